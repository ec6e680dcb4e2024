"""`hub up` and `hub down`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.render import use_clock_of
from hub.cli.terminal import (
    HERE,
    HomeOption,
    JsonOption,
    ShutdownSignals,
    StopSignal,
    answer,
    discard_output,
    explain,
    runnable,
    say,
    speech,
    text,
    warn,
)
from hub.errors import FatalError

if TYPE_CHECKING:
    from hub.home import Home
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
    from hub.home import Home
    from hub.ops.supervisor import PROGRAMS, Supervisor

    unknown = set(programs or ()) - set(PROGRAMS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: {', '.join(PROGRAMS)}")
    loaded = Home.load(home)
    refuse_errors(loaded)
    reporter = UpReporter(json)
    supervisor = Supervisor(loaded, reporter, only=tuple(programs or PROGRAMS))
    with supervisor.run.claim(), running(supervisor, reporter):
        threading.Event().wait()


def refuse_errors(home: Home) -> None:
    """Print every error of a home, and raise when there is one: a hub with errors in its files is not started."""
    from hub.cli.validate import findings

    errors = [error for error, is_error in findings(home.path) if is_error]
    for error in errors:
        warn(*explain(error))
    if errors:
        raise FatalError("HUB-E1012", count=len(errors), home=home.path)


@contextlib.contextmanager
def running(
    supervisor: Supervisor, reporter: UpReporter, also_kill: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Run the hub for the time of the block, and report its facts. A signal ends the block; everything is stopped in any case.

    A signal before the block begins raises typer.Exit. A second one, at any time from then on, kills everything with SIGKILL,
    calls `also_kill`, and ends this process with code 130.
    """

    def kill() -> None:
        supervisor.kill()
        also_kill()

    stopping = ShutdownSignals(kill)
    stopping.handle()
    from hub.cli.event_lines import EventLines

    lines: list[EventLines] = []

    def follow() -> None:
        home = supervisor.home
        use_clock_of(home.config.timezone)
        lines.append(EventLines(supervisor.log(), speech.language, home.people.names, reporter.fact))

    reporter.at_topics = follow  # before any program runs: no fact comes before the tail begins
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
        reporter("stopping", {})
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
    """Reports what the supervisor does, for people or as JSON lines."""

    json: bool = False
    began: float = field(default_factory=time.monotonic)
    at_topics: Callable[[], None] | None = None
    """Called once the log's topics exist."""

    def __call__(self, what: str, facts: Mapping[str, Any]) -> None:
        if what == "topics" and self.at_topics is not None:
            self.at_topics()
        with ignore_output_errors():
            if self.json:
                answer({"what": what, **facts})
                return
            say(*_lines(what, facts))

    def fact(self, line: str) -> None:
        """Print a business fact."""
        with ignore_output_errors():
            if self.json:
                answer({"what": "fact", "line": line.strip()})
            else:
                say(line)


@contextlib.contextmanager
def ignore_output_errors() -> Iterator[None]:
    """Continue when the output's disk is full or its reader has gone: the process that runs a hub must not end because of that."""
    try:
        yield
    except BrokenPipeError:
        discard_output()  # nothing reads further output
    except (OSError, ValueError):
        return


def _lines(what: str, facts: Mapping[str, Any]) -> list[str]:
    """The lines for one report of the supervisor, in the reader's language; none for reports that people need not see."""
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
            line = text(
                "  ! {program} 停住不动，再不动就重启它",
                "  ! {program} does not respond; it is restarted if that continues",
            )
            return [line.format_map(facts)]
        case "ending":
            return [
                text("  ✘ {program} 一直不动，结束它", "  ✘ {program} still does not respond: ending it").format_map(
                    facts
                )
            ]
        case "alarm":
            mark = "✘" if facts["level"] == "error" else "!"
            parts = (facts.get(name) for name in ("program", "instance", "place", "code", "reason"))
            fix = [f"    → {runnable(facts['fix'])}"] if "fix" in facts else []
            return [f"  {mark} {'  '.join(filter(None, parts))}", *fix]
        case "stopping":
            return [text("正在停止…", "stopping…")]
        case "restarted":
            return [text("  ✔ {program} 已重启", "  ✔ {program} is back").format_map(facts)]
        case "broker.failed":
            return [f"  ✘ {facts['code']} {facts['reason']}", f"    → {runnable(facts['fix'])}"]
    return []


def down(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Stop the hub that runs on this home, and wait until it has stopped."""
    from hub.home import data_folder
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
