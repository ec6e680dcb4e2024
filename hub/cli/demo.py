"""`hub demo`: the whole flow on real systems. A salesperson wins deals in a real Tryton, and projects and tasks follow.

Also holds the demo's deals, and the one task that fails on purpose, with instructions for fixing it.
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
    from hub.home import Home
    from hub.ops.supervisor import Supervisor

Ask = Callable[[Mapping[str, Any]], dict[str, Any]]

PARKED_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 0.2
DEALS_BEFORE_FAILURE = 4
"""The deal whose task fails comes after this many others: about a minute after the start."""
FAILURE_CODE = "HUB-E3143"
"""The error of the failing task: its assignee has no account in the target system."""


class Deal(NamedTuple):
    """A deal that a salesperson wins in Tryton."""

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
LARGE_DEAL: Mapping[str, Deal] = {
    "zh-CN": Deal("智慧园区", "万科", "2600000"),
    "en": Deal("Smart campus", "Stark", "2600000"),
}
"""Large enough for the rule that assigns the key account manager, whose account the demo's people.yaml leaves out."""
FAILURE_HELP = {
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
    """An endless sequence of deals, in the language of this terminal; repeated names are numbered."""
    localized = DEALS[speech.language]
    for number, deal in enumerate(itertools.cycle(localized)):
        if number == DEALS_BEFORE_FAILURE:
            yield LARGE_DEAL[speech.language]
        cycle = number // len(localized) + 1
        yield deal if cycle == 1 else deal._replace(name=f"{deal.name} {cycle}")


def play(home: Home, ask: Ask, pause: float) -> None:
    """Win a deal every `pause` seconds, until a signal ends the process."""
    for deal in deals():
        ask({"win": deal._asdict()})
        if deal == LARGE_DEAL[speech.language]:
            announce_failure(home, deal)
        threading.Event().wait(pause)


def announce_failure(home: Home, deal: Deal) -> None:
    """Once the deal's task is parked, print what happened and how to fix it, with commands ready to be pasted."""
    number = parked_number(home)
    if number is not None:
        say(*failure_help(number, deal, home.path))


def parked_number(home: Home) -> int | None:
    """The number of the parked task; None if it is not parked within PARKED_TIMEOUT_S."""
    from hub.cli import parked_settle
    from hub.ledger import parked_search
    from hub.ledger.ledger import read_snapshot

    deadline = time.monotonic() + PARKED_TIMEOUT_S
    while time.monotonic() < deadline:
        with read_snapshot(home.ledger_url, "outbox") as conn:
            rows = (
                parked_search.page(conn, parked_settle.parked_filter(code=FAILURE_CODE), 0, 1)
                if conn is not None
                else []
            )
        if rows:
            return int(rows[0].id)
        time.sleep(POLL_INTERVAL_S)
    return None


def failure_help(number: int, deal: Deal, home: Path) -> list[str]:
    """The lines that explain the failure."""
    content = FAILURE_HELP[speech.language].format(
        deal=deal.name,
        look=command_line("parked"),
        edit=command_line("parked", "edit", str(number), "--set", "arguments.assignee=person/lin.tao"),
        retry=command_line("parked", "retry", str(number)),
        people=home / "people.yaml",
    )
    return content.split("\n")[:-1]


HOME = Path(".hub/demo")
ONCE_DEALS = 3
"""Deals of `--once`: two that become projects, and one below the rule's limit that must not."""
WEB_PORT = 8600
BOARD_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
"""Time for Tryton to exit before it is killed."""
TASKS_PER_DEAL = 3
"""Tasks that one won deal creates."""


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
    from hub.home import Home
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
    """The variables that the demo's hub.yaml reads; they override the addresses of another hub in the environment."""
    from hub.ops.embedded_kafka import ports

    wanted = int(os.environ.get("HUB_WEB_PORT", WEB_PORT))
    port = ports.any_free([wanted])
    if port != wanted:
        taken = text(
            "  ! 端口 {} 已被占用（{}），看板改用 {}", "  ! port {} is taken ({}); the boards are at {} instead"
        )
        say(taken.format(wanted, ports.occupant(wanted), port))
    web = {"HUB_WEB_PORT": str(port), "HUB_DATA": str((HOME / ".hub").absolute())}
    none = dict.fromkeys(("HUB_KAFKA", "HUB_LEDGER", "HUB_BOARDS"), "")  # may be set for another hub
    return {**account(settings), **web, **none}


def account(settings: Mapping[str, str]) -> dict[str, str]:
    """The address and credentials of that Tryton, as environment variables."""
    return {f"TRYTON_{name.upper()}": settings[name] for name in ("url", "database", "login", "password")}


def _refuse_a_second(root: Path) -> None:
    """Raise FatalError while another demo runs here: its data are in the same folder."""
    from hub.runtime.run_folder import RunFolder

    run = RunFolder(root / ".hub" / "run")
    if run.is_claimed():
        raise FatalError("HUB-E1010", pid=run.notes().get("pid", "?"), home=root)


def _make_home(root: Path, settings: Mapping[str, str]) -> None:
    """Create the home, with an `.env` so that every other command works on it while the demo runs."""
    if not (root / "hub.yaml").exists():  # with --keep the user's fixes stay
        copy("demo", root)
    write_env(root, account(settings))


@contextlib.contextmanager
def tryton(root: Path) -> Iterator[tuple[dict[str, str], Ask, Callable[[], None]]]:
    """A real Tryton in its own process: yields its settings, a function that sends it a request, and one that kills it."""
    command = [sys.executable, "-m", "connectors.tryton.demo", str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            answer = _answer(process, "settings")
            yield answer["settings"], lambda request: _ask(process, request), process.kill
        finally:
            with contextlib.suppress(OSError):
                if process.stdin:
                    process.stdin.close()
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _ask(process: subprocess.Popen[str], request: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request (one JSON line) and wait for its answer."""
    import orjson

    assert process.stdin is not None
    process.stdin.write(orjson.dumps(request).decode() + "\n")
    process.stdin.flush()
    return _answer(process, "won", "finished", "error")


def _answer(process: subprocess.Popen[str], *wanted: str) -> dict[str, Any]:
    """The next JSON line that has one of the `wanted` keys; progress lines before it go to the terminal.

    Raises RetryableError when the process ends first.
    """
    import orjson

    from hub.cli.up import ignore_output_errors

    assert process.stdout is not None
    for line in process.stdout:
        message: dict[str, Any] = orjson.loads(line)
        if "progress" in message:
            with ignore_output_errors():
                say(f"  · {message['progress']}")
        if any(name in message for name in wanted):
            return message
    raise RetryableError("HUB-E1014")


def _play(home: Home, ask: Ask, pause: float) -> None:
    """Print what to try next, and win deals until a signal ends the process."""
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
    """The whole flow once: deals won, tasks created, one project finished and invoiced, the audit. Returns the summary."""
    from hub.cli.audit import full_audit

    for deal in islice(deals(), ONCE_DEALS):
        ask({"win": deal._asdict()})
    board = BoardReader(supervisor.url)
    expected = TASKS_PER_DEAL * (ONCE_DEALS - 1)
    tasks = board.wait(lambda rows: sum(row["state"] != "requested" for row in rows) >= expected)
    first = time.monotonic() - began
    for task in [row for row in tasks if row["instance"] == "tryton"]:
        ask({"finish": int(task["ref"].rpartition("/")[2])})
    tasks = board.wait(lambda rows: len(rows) >= expected + ONCE_DEALS - 1)
    report = full_audit(home, supervisor.bootstrap)
    return {
        "ok": report["ok"] and len(tasks) == expected + ONCE_DEALS - 1,
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
    seconds: dict[str, float] = {}
    for batch in read_to_end(log, EVENTS.name, log.starts(EVENTS.name)):
        for event in (Event.from_json(record.value or b"") for record in batch):
            if event.type == "crm.opportunity.won":
                won[event.case] = event
            if event.type == "work.task.created" and event.case in won and event.case not in seconds:
                seconds[event.case] = (
                    parse_time(event.recordedtime) - parse_time(won[event.case].time)
                ).total_seconds()
    return round(median(seconds.values()) * 1000) if seconds else None


class BoardReader:
    """The tasks board, as a program reads it."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/api/tasks?limit=500"

    def wait(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The board's cards, once they are `enough`; raises RetryableError after BOARD_TIMEOUT_S."""
        deadline = time.monotonic() + BOARD_TIMEOUT_S
        while True:
            rows = self.rows()
            if enough(rows):
                return rows
            if time.monotonic() > deadline:
                raise RetryableError("HUB-E1015", seconds=int(BOARD_TIMEOUT_S), seen=len(rows))
            time.sleep(0.05)

    def rows(self) -> list[dict[str, Any]]:
        """The cards now."""
        import requests

        items: list[dict[str, Any]] = requests.get(self.url, timeout=10).json()["items"]
        return items
