"""`hub up` and `hub down`.

One line on the terminal for each business fact, as it enters the log.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from hub.cli.render import MOST_OF_A_FACT, cut, shown, use_clock_of
from hub.cli.terminal import (
    HERE,
    HomeOption,
    JsonOption,
    Stopping,
    StopSignal,
    answer,
    explain,
    runnable,
    say,
    say_no_more,
    speech,
    text,
    warn,
)
from hub.errors import FatalError, HubError
from hub.log.event_log import EventLog
from schemas.envelope import Event
from schemas.topics import EVENTS

LINES: dict[str, tuple[str, str]] = {
    "crm.opportunity.won": (
        "赢单 {name} · {account} · {amount} {currency}",
        "won {name} · {account} · {amount} {currency}",
    ),
    "crm.opportunity.lost": ("丢单 {name} · {account}", "lost {name} · {account}"),
    "crm.complaint.filed": ("客诉 {customer}", "complaint of {customer}"),
    "erp.stock.ran_low": ("库存不足 {item}：余 {quantity}", "stock of {item} ran low: {quantity} left"),
    "work.project.created": ("  → 项目 {name} ({ref})", "  → project {name} ({ref})"),
    "work.task.created": ("  → 任务 {title} · {assignee}", "  → task {title} · {assignee}"),
    "work.task.completed": ("完成 {title} ({ref})", "done {title} ({ref})"),
    "work.project.completed": ("项目完成 {name} ({ref})", "project completed {name} ({ref})"),
    "hub.command.done message.send": ("  → 消息 {text} · {to}", "  → message {text} · {to}"),
    "hub.command.done": ("  → {type} 已办 {id}", "  → {type} done {id}"),
    "hub.command.parked": (
        "  ✘ {type} 停放：{code} {reason} → hub parked list",
        "  ✘ {type} parked: {code} {reason} → hub parked list",
    ),
    "hub.rule.changed": ("规则已更新 {ref}", "rule changed {ref}"),
    "hub.connector.paused": ("连接器已暂停 {ref}：{reason}", "connector paused {ref}: {reason}"),
    "hub.connector.resumed": ("连接器已恢复 {ref}", "connector resumed {ref}"),
}


class _Fields(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""


def line_of(event: Event, language: str, names: Mapping[str, str]) -> str | None:
    """The line for an event; None for those that are no news to a person. `names`: reference → a person's name."""
    found = LINES.get(f"{event.type} {event.data.get('type')}") or LINES.get(event.type)
    if found is None:
        return None
    template = runnable(found[0] if language == "zh-CN" else found[1])
    ref, arguments = event.subject.partition("/")[2], event.data.get("arguments") or {}
    told = _Fields({name: _said(value, names) for name, value in {**arguments, **event.data, "ref": ref}.items()})
    return f"  {local(event.recordedtime)}  {template.format_map(told).rstrip(' ·')}"


def _said(value: Any, names: Mapping[str, str]) -> Any:
    """In one line and not too long, a person by name."""
    return cut(" ".join(names.get(value, value).split()), MOST_OF_A_FACT) if isinstance(value, str) else value


def local(stamp: str) -> str:
    """The time of day by the home's clock."""
    return shown(stamp, "%H:%M:%S")


class FactLines:
    """Follows the log from its end, as it is when this is made, and says each fact; a broker that is away is waited for."""

    def __init__(self, log: EventLog, language: str, names: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._log, self._language, self._names, self._say = log, language, names, say
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="facts", daemon=True)
        self._positions: dict[int, int] | None = None
        with contextlib.suppress(HubError):
            self._positions = dict(log.ends(EVENTS.name))

    def start(self) -> None:
        """Say what has come since, and go on."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns soon."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except HubError:
                self._stopping.wait(1.0)

    def _read(self) -> None:
        self._positions = self._positions or dict(self._log.ends(EVENTS.name))
        reader = self._log.reader(EVENTS.name, self._positions, gather=0.2)
        try:
            while not self._stopping.is_set():
                for record in reader.read(500, 0.5):
                    self._positions[record.partition] = record.offset + 1
                    self._tell(record.value or b"")
        finally:
            reader.close()

    def _tell(self, raw: bytes) -> None:
        try:
            line = line_of(Event.from_json(raw), self._language, self._names)
        except ValidationError:
            return
        if line is not None:
            self._say(line)


if TYPE_CHECKING:
    from hub.config.home import Home
    from hub.ops.supervisor import Supervisor


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up", help="启动接力 · start the hub")(up)
    app.command("down", help="停止接力 · stop it")(down)


def up(
    programs: Annotated[
        list[str] | None, typer.Argument(help="只启动其中几个 · only these: worker connectors projections")
    ] = None,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Start the broker and the programs, show one line per business fact, until Ctrl-C or SIGTERM."""
    from hub.config.home import Home
    from hub.ops.supervisor import PROGRAMS, Supervisor

    unknown = set(programs or ()) - set(PROGRAMS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: {', '.join(PROGRAMS)}")
    loaded = Home.load(home)
    refuse_errors(loaded)
    teller = UpReporter(json)
    supervisor = Supervisor(loaded, teller, only=tuple(programs or PROGRAMS))
    with supervisor.run.claim(), running(supervisor, teller):
        threading.Event().wait()


def refuse_errors(home: Home) -> None:
    """Say every error of a home, and raise when there is one: a hub that is half right is not started."""
    from hub.cli.validate import findings

    errors = [error for error, is_error in findings(home.path) if is_error]
    for error in errors:
        warn(*explain(error))
    if errors:
        raise FatalError("HUB-E1012", count=len(errors), home=home.path)


@contextlib.contextmanager
def running(supervisor: Supervisor, teller: UpReporter, also_kill: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Start the hub for the time of the block, and tell its facts; a signal ends the block, and all is stopped in any case.

    A signal that comes before the block is begun raises typer.Exit. One more, at any time from then on, ends everything with
    SIGKILL, `also_kill` too, and this process with code 130.
    """
    pass

    def kill() -> None:
        supervisor.kill()
        also_kill()

    stopping = Stopping(kill)
    stopping.handle()
    lines: list[FactLines] = []

    def follow() -> None:
        home = supervisor.home
        use_clock_of(home.config.timezone)
        lines.append(FactLines(supervisor.log(), speech.language, home.people.names, teller.fact))

    teller.at_topics = follow  # before any program runs: no fact comes before the tail begins
    begun = False
    try:
        try:
            supervisor.start()
            for each in lines:
                each.start()
            begun = True
            yield
        finally:
            stopping.begin()
    except StopSignal:
        teller("stopping", {})
        if not begun:
            raise typer.Exit from None
    finally:
        try:
            for each in lines:
                each.stop()
        finally:
            supervisor.stop()


@dataclass
class UpReporter:
    """Says what the supervisor does, for people or as JSON lines."""

    json: bool = False
    began: float = field(default_factory=time.monotonic)
    at_topics: Callable[[], None] | None = None
    """Called once the log is there."""

    def __call__(self, what: str, facts: Mapping[str, Any]) -> None:
        if what == "topics" and self.at_topics is not None:
            self.at_topics()
        with unheard():
            if self.json:
                answer({"what": what, **facts})
                return
            say(*_lines(what, facts))

    def fact(self, line: str) -> None:
        """Say a business fact."""
        with unheard():
            if self.json:
                answer({"what": "fact", "line": line.strip()})
            else:
                say(line)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Go on where what is said goes to a full disk or to a reader that has gone: who keeps a hub running must not end by it."""
    try:
        yield
    except BrokenPipeError:
        say_no_more()  # what is said from now on is said to nobody
    except (OSError, ValueError):
        return


def _lines(what: str, facts: Mapping[str, Any]) -> list[str]:
    """What the supervisor says, in the reader's language; nothing for what people need not see."""
    match what:
        case "broker.progress":
            return [f"  · {facts['line']}"]
        case "broker":
            return [
                text("  ✔ Kafka 就绪 {at}   {seconds} 秒", "  ✔ Kafka is up at {at}   {seconds} s").format_map(facts)
            ]
        case "topics":
            return [text("  ✔ 主题就绪", "  ✔ topics are there")]
        case "ready":
            line = text(
                "  ✔ 看板 {url}/   （仅限本机，登录功能尚未提供）",
                "  ✔ boards {url}/   (this machine only, until there is sign-in)",
            )
            return [line.format_map(facts)]
        case "ended":
            line = text("  ✘ {program} 意外退出（{code}），正在重启", "  ✘ {program} ended ({code}), starting it again")
            more = [*facts["last"], *([text("日志 {log}", "log {log}").format_map(facts)] if facts["log"] else [])]
            return [line.format_map(facts), *(f"      {each}" for each in more)]
        case "frozen":
            said = text(
                "  ! {program} 停住不动，再不动就重启它", "  ! {program} stands still; it is restarted if it goes on so"
            )
            return [said.format_map(facts)]
        case "ending":
            return [
                text("  ✘ {program} 一直不动，结束它", "  ✘ {program} still stands still: ending it").format_map(facts)
            ]
        case "alarm":
            mark = "✘" if facts["level"] == "error" else "!"
            told = (facts.get(name) for name in ("program", "instance", "place", "code", "reason"))
            fix = [f"    → {runnable(facts['fix'])}"] if "fix" in facts else []
            return [f"  {mark} {'  '.join(filter(None, told))}", *fix]
        case "stopping":
            return [text("正在停止…", "stopping…")]
        case "restarted":
            return [text("  ✔ {program} 已重启", "  ✔ {program} is back").format_map(facts)]
        case "broker.failed":
            return [f"  ✘ {facts['code']} {facts['reason']}", f"    → {runnable(facts['fix'])}"]
    return []


def down(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Stop the hub that runs on this home, and wait until it has."""
    from hub.config.home import data_folder
    from hub.runtime.run_folder import RunFolder

    run = RunFolder(data_folder(home) / "run")
    ran = run.is_claimed()
    stopped = run.stop(patience=60.0) if ran else True
    if json:
        answer({"ran": ran, "stopped": stopped})
    elif not ran:
        say(text("没有在运行", "it was not running"))
    elif stopped:
        say(text("已停止", "stopped"))
    if not stopped:
        raise FatalError("HUB-E1013", pid=run.notes().get("pid", "?"))
