"""What happens in `hub demo`: the deals that are won, and the one task that fails on purpose, with the way to mend it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hub.cli.as_typed import command_line
from hub.cli.terminal import say, speech

if TYPE_CHECKING:
    from hub.home import Home

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
    from hub.cli import parked_choice
    from hub.ledger import parked_search
    from hub.ledger.looking import look_at

    deadline = time.monotonic() + PARKED_WITHIN
    while time.monotonic() < deadline:
        with look_at(home.ledger_url, "outbox") as conn:
            rows = parked_search.page(conn, parked_choice.wanted(code=FAILS), 0, 1) if conn is not None else []
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
