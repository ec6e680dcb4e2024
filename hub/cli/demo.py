"""`hub demo`: the whole chain on real parts. A salesperson wins deals in a real Tryton, and the work follows by itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.as_typed import command_line
from hub.cli.demo_story import Ask, deals, play
from hub.cli.init import copy, write_env
from hub.cli.terminal import Exit, JsonOption, answer, choose_language, say, speech, text
from hub.errors import FatalError, RetryableError

if TYPE_CHECKING:
    from hub.home import Home
    from hub.supervisor.supervisor import Supervisor

HOME = Path(".hub/demo")
ONCE = 3
"""Deals of `--once`: two that become projects, one that must not."""
WEB_PORT = 8600
PATIENCE = 120.0
GRACE = 10.0
"""Seconds that Tryton gets to end."""
TASKS = 3
"""Tasks that one won deal becomes."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "demo", help="演示：真实的 Kafka、真实的 CRM、会动的看板 · a real Kafka, a real CRM, a board that moves"
    )(demo)


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="走完一遍，末行输出 JSON 摘要 · once, with a JSON summary on the last line")
    ] = False,
    pause: Annotated[
        float, typer.Option("--pause", min=0.1, help="两次赢单之间的秒数 · seconds between two deals")
    ] = 12.0,
    keep: Annotated[bool, typer.Option("--keep", help="沿用上次的数据 · go on with the data of the last run")] = False,
    json: JsonOption = False,
) -> None:
    """Start everything in ./.hub/demo, win deals as a salesperson would, and show what follows."""
    from hub.cli.up import Teller, running
    from hub.home import Home
    from hub.supervisor.supervisor import Supervisor

    root = HOME.absolute()
    speech.home = HOME
    choose_language(speech.language)
    _refuse_a_second(root)
    if not keep:
        shutil.rmtree(root, ignore_errors=True)
    say(
        text(
            "  接力 · 演示 · 数据在 ./.hub/demo （Ctrl-C 停止）",
            "  Baton · demo · data in ./.hub/demo (Ctrl-C to stop)",
        )
    )
    began = time.monotonic()
    with tryton(root / "tryton") as (settings, ask, kill):
        _make_home(root, settings)
        os.environ.update(environment(settings))
        home = Home.load(root)
        teller = Teller(json)
        supervisor = Supervisor(home, teller)
        summary: dict[str, Any] | None = None
        with supervisor.run.claim(), running(supervisor, teller, kill):
            if once:
                summary = _once(home, supervisor, ask, began)
            else:
                _play(home, ask, pause)
    if summary is not None:
        answer(summary)
        raise typer.Exit(Exit.OK if summary["ok"] else Exit.FAILED)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What the demo's hub.yaml reads from the environment, and where the demo is, whatever else the environment says."""
    from hub.embedded_kafka import ports

    wanted = int(os.environ.get("HUB_WEB_PORT", WEB_PORT))
    port = ports.any_free([wanted])
    if port != wanted:
        taken = text(
            "  ! 端口 {} 已被占用（{}），看板改用 {}", "  ! port {} is taken ({}); the boards are at {} instead"
        )
        say(taken.format(wanted, ports.occupant(wanted), port))
    web = {"HUB_WEB_PORT": str(port), "HUB_DATA": str((HOME / ".hub").absolute())}
    none = dict.fromkeys(("HUB_KAFKA", "HUB_LEDGER", "HUB_BOARDS"), "")  # those of a hub that is no demo
    return {**account(settings), **web, **none}


def account(settings: Mapping[str, str]) -> dict[str, str]:
    """How to get into that Tryton."""
    return {f"TRYTON_{name.upper()}": settings[name] for name in ("url", "database", "login", "password")}


def _refuse_a_second(root: Path) -> None:
    """A demo that runs here has its data where ours would go."""
    from hub.supervisor.run_folder import RunFolder

    run = RunFolder(root / ".hub" / "run")
    if run.is_claimed():
        raise FatalError("HUB-E1010", pid=run.notes().get("pid", "?"), home=root)


def _make_home(root: Path, settings: Mapping[str, str]) -> None:
    """With an `.env`, so that every other command works on this home too, while the demo runs."""
    if not (root / "hub.yaml").exists():  # what was mended in a home that is kept stays mended
        copy("demo", root)
    write_env(root, account(settings))


@contextlib.contextmanager
def tryton(root: Path) -> Iterator[tuple[dict[str, str], Ask, Callable[[], None]]]:
    """A real Tryton in a process of its own: its settings, a way to have its people do something, and one to kill it."""
    command = [sys.executable, "-m", "connectors.tryton.demo", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            settings = _heard(process, "settings")
            yield settings["settings"], lambda asked: _ask(process, asked), process.kill
        finally:
            with contextlib.suppress(OSError):
                if process.stdin:
                    process.stdin.close()
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()


def _ask(process: subprocess.Popen[str], asked: Mapping[str, Any]) -> dict[str, Any]:
    import orjson

    assert process.stdin is not None
    process.stdin.write(orjson.dumps(asked).decode() + "\n")
    process.stdin.flush()
    return _heard(process, "won", "finished", "error")


def _heard(process: subprocess.Popen[str], *wanted: str) -> dict[str, Any]:
    """Its next answer; what it says of its progress goes to the terminal."""
    import orjson

    from hub.cli.up import unheard

    assert process.stdout is not None
    for line in process.stdout:
        heard: dict[str, Any] = orjson.loads(line)
        if "progress" in heard:
            with unheard():
                say(f"  · {heard['progress']}")
        if any(name in heard for name in wanted):
            return heard
    raise RetryableError("HUB-E1014")


def _play(home: Home, ask: Ask, pause: float) -> None:
    """Say what there is to be tried, and win deals until a signal ends it."""
    say(
        text(
            "  下一步：打开看板，点“为什么？”；在 Tryton 里赢单的是销售王芳。另开一个终端可试：",
            "  next: open the board, press “Why”; it is the salesperson Wang Fang who wins deals in Tryton. "
            "In another terminal: ",
        )
        + command_line("status")
    )
    play(home, ask, pause)


def _once(home: Home, supervisor: Supervisor, ask: Ask, began: float) -> dict[str, Any]:
    """The whole chain once: deals won, tasks made, one project finished and invoiced, the audit."""
    from hub.cli.audit import full_audit

    for deal in islice(deals(), ONCE):
        ask({"win": deal._asdict()})
    board = Board(supervisor.url)
    expected = TASKS * (ONCE - 1)
    tasks = board.wait(lambda rows: sum(row["state"] != "requested" for row in rows) >= expected)
    first = time.monotonic() - began
    for task in [row for row in tasks if row["instance"] == "tryton"]:
        ask({"finish": int(task["ref"].rpartition("/")[2])})
    tasks = board.wait(lambda rows: len(rows) >= expected + ONCE - 1)
    report = full_audit(home, supervisor.bootstrap)
    return {
        "ok": report["ok"] and len(tasks) == expected + ONCE - 1,
        "events": report["counts"]["in_the_log"],
        "commands": report["counts"]["commands"],
        "tasks": len(tasks),
        "won_to_task_ms": won_to_task(supervisor),
        "seconds_to_first_tasks": round(first, 1),
        "board_url": f"{supervisor.url}/boards/tasks",
        "audit": report,
    }


def won_to_task(supervisor: Supervisor) -> int | None:
    """Milliseconds from the moment a deal was won, by the CRM's clock, to its first task: the median over the deals."""
    from statistics import median

    from hub.event_log import read_to_end
    from schemas.event import Event, moment
    from schemas.topics import EVENTS

    log = supervisor.log()
    won: dict[str, Event] = {}
    took: dict[str, float] = {}
    for batch in read_to_end(log, EVENTS.name, log.starts(EVENTS.name)):
        for event in (Event.from_json(record.value or b"") for record in batch):
            if event.type == "crm.opportunity.won":
                won[event.case] = event
            if event.type == "work.task.created" and event.case in won and event.case not in took:
                took[event.case] = (moment(event.recordedtime) - moment(won[event.case].time)).total_seconds()
    return round(median(took.values()) * 1000) if took else None


class Board:
    """The tasks board, as a program reads it."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/api/tasks?limit=500"

    def wait(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The board's cards, once they are as wanted; raises RetryableError when that takes too long."""
        deadline = time.monotonic() + PATIENCE
        while True:
            rows = self.rows()
            if enough(rows):
                return rows
            if time.monotonic() > deadline:
                raise RetryableError("HUB-E1015", seconds=int(PATIENCE), seen=len(rows))
            time.sleep(0.05)

    def rows(self) -> list[dict[str, Any]]:
        """The cards now."""
        import requests

        found: list[dict[str, Any]] = requests.get(self.url, timeout=10).json()["items"]
        return found
