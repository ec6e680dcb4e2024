"""`hub up` and `hub down`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.as_typed import runnable
from hub.cli.stopping import Stopping, ToldToStop
from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, explain, say, say_no_more, speech, text, warn
from hub.cli.times import use_clock_of
from hub.errors import FatalError

if TYPE_CHECKING:
    from hub.home import Home
    from hub.supervisor.supervisor import Supervisor


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
    from hub.home import Home
    from hub.supervisor.supervisor import PROGRAMS, Supervisor

    unknown = set(programs or ()) - set(PROGRAMS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: {', '.join(PROGRAMS)}")
    loaded = Home.load(home)
    refuse_errors(loaded)
    teller = Teller(json)
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
def running(supervisor: Supervisor, teller: Teller, also_kill: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Start the hub for the time of the block, and tell its facts; a signal ends the block, and all is stopped in any case.

    A signal that comes before the block is begun raises typer.Exit. One more, at any time from then on, ends everything with
    SIGKILL, `also_kill` too, and this process with code 130.
    """
    from hub.cli.facts import FactLines

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
    except ToldToStop:
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
class Teller:
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
    from hub.home import data_folder
    from hub.supervisor.run_folder import RunFolder

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
