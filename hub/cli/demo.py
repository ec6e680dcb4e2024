"""`hub demo`: the whole chain on real parts. A salesperson wins deals in a real Tryton, and the work follows by itself.

What happens in `hub demo`: the deals that are won, and the one task that fails on purpose, with the way to mend it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hub.cli.init import copy, write_env
from hub.cli.terminal import Exit, JsonOption, answer, choose_language, command_line, say, speech, text
from hub.errors import FatalError, RetryableError

if TYPE_CHECKING:
    from hub.config.home import Home

Ask = Callable[[Mapping[str, Any]], dict[str, Any]]

PARKED_WITHIN = 60.0
LOOK = 0.2
FAILS_AFTER = 4
"""So many deals come before the one whose task fails: it ends the first minute."""
FAILS = "HUB-E3143"
"""Its assignee has no account at the system that shall do it."""


class Deal(NamedTuple):
    """One that a salesperson wins in Tryton."""

    name: str
    customer: str
    amount: str


DEALS: Mapping[str, tuple[Deal, ...]] = {
    "zh-CN": (
        Deal("网关项目", "华为", "880000"),
        Deal("仓储升级", "中兴", "260000"),
        Deal("培训服务", "海尔", "36000"),  # below the rule's limit: no project
        Deal("数据平台", "比亚迪", "1250000.50"),
        Deal("产线联网", "美的", "430000"),
    ),
    "en": (
        Deal("Gateway", "Globex", "880000"),
        Deal("Warehouse upgrade", "Initech", "260000"),
        Deal("Training", "Hooli", "36000"),
        Deal("Data platform", "Umbrella", "1250000.50"),
        Deal("Connected line", "Acme", "430000"),
    ),
}
LARGE: Mapping[str, Deal] = {
    "zh-CN": Deal("智慧园区", "万科", "2600000"),
    "en": Deal("Smart campus", "Stark", "2600000"),
}
"""Large enough for the rule that names the key account manager, whose account the demo's people.yaml leaves out."""
LESSON = {
    "zh-CN": """
  ✘ 这一次失败是演示特意安排的：大单“{deal}”要请张伟回访，而 people.yaml 里没有他在 Tryton 的账号。
    只有这一个任务停放了，什么都没有丢，别的照常。另开一个终端把它修好：
      看原因      {look}
      改派给林涛  {edit}
      重试        {retry}
    任务随即出现在看板上。（也可以在 {people} 给张伟写上 accounts: {{tryton: zhang.wei}}，再重试。）
""",
    "en": """
  ✘ This one fails on purpose: Zhang Wei is to follow up the large deal “{deal}”, and people.yaml has no Tryton account of his.
    Only this task is parked; nothing is lost, and all else goes on. In another terminal, mend it:
      see why             {look}
      give it to Lin Tao  {edit}
      try again           {retry}
    The task then appears on the board. (Or give Zhang Wei accounts: {{tryton: zhang.wei}} in {people}, and try again.)
""",
}


def deals() -> Iterator[Deal]:
    """The deals, without end, in the language of this terminal; a name that comes again is numbered."""
    mine = DEALS[speech.language]
    for number, deal in enumerate(itertools.cycle(mine)):
        if number == FAILS_AFTER:
            yield LARGE[speech.language]
        again = number // len(mine) + 1
        yield deal if again == 1 else deal._replace(name=f"{deal.name} {again}")


def play(home: Home, ask: Ask, pause: float) -> None:
    """Win a deal every few seconds, until a signal ends it."""
    for deal in deals():
        ask({"win": deal._asdict()})
        if deal == LARGE[speech.language]:
            tell_of_failure(home, deal)
        threading.Event().wait(pause)


def tell_of_failure(home: Home, deal: Deal) -> None:
    """Once its task is parked, say what happened and how to mend it, with commands that work as they stand."""
    number = parked_number(home)
    if number is not None:
        say(*lesson(number, deal, home.path))


def parked_number(home: Home) -> int | None:
    """The number of the parked task; None when it does not come in time."""
    from hub.cli import parked_settle
    from hub.ledger import parked_search
    from hub.ledger.ledger import look_at

    deadline = time.monotonic() + PARKED_WITHIN
    while time.monotonic() < deadline:
        with look_at(home.ledger_url, "outbox") as conn:
            rows = parked_search.page(conn, parked_settle.wanted(code=FAILS), 0, 1) if conn is not None else []
        if rows:
            return int(rows[0].id)
        time.sleep(LOOK)
    return None


def lesson(number: int, deal: Deal, home: Path) -> list[str]:
    """What is said of the failure."""
    told = LESSON[speech.language].format(
        deal=deal.name,
        look=command_line("parked"),
        edit=command_line("parked", "edit", str(number), "--set", "arguments.assignee=person/lin.tao"),
        retry=command_line("parked", "retry", str(number)),
        people=home / "people.yaml",
    )
    return told.split("\n")[:-1]


if TYPE_CHECKING:
    from hub.config.home import Home
    from hub.ops.supervisor import Supervisor

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
    from hub.cli.up import UpReporter, running
    from hub.config.home import Home
    from hub.ops.supervisor import Supervisor

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
        teller = UpReporter(json)
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
    from hub.ops.embedded_kafka import ports

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
    from hub.runtime.run_folder import RunFolder

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
    command = [sys.executable, "-m", "connectors.tryton.demo.__main__", str(root)]
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
    board = BoardReader(supervisor.url)
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

    from hub.log.event_log import read_to_end
    from schemas.envelope import Event, parse_time
    from schemas.topics import EVENTS

    log = supervisor.log()
    won: dict[str, Event] = {}
    took: dict[str, float] = {}
    for batch in read_to_end(log, EVENTS.name, log.starts(EVENTS.name)):
        for event in (Event.from_json(record.value or b"") for record in batch):
            if event.type == "crm.opportunity.won":
                won[event.case] = event
            if event.type == "work.task.created" and event.case in won and event.case not in took:
                took[event.case] = (parse_time(event.recordedtime) - parse_time(won[event.case].time)).total_seconds()
    return round(median(took.values()) * 1000) if took else None


class BoardReader:
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
