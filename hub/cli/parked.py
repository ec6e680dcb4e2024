"""`hub parked`: what cannot go on, why, and what a person does about it."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, say, text
from hub.errors import RejectedError

if TYPE_CHECKING:
    from hub.cli.parked_settling import Settling
    from hub.ledger.ledger import Ledger
    from hub.ledger.metadata import AnyRow

MOST = 10_000
"""Entries that one command lists or retries."""

parked = typer.Typer(no_args_is_help=True, help="停放的事：查看、重试、放弃 · parked work: see, retry, discard")
Which = Annotated[str, typer.Argument(help="编号，或事件、命令的 id · its number, or the id of the event or command")]
By = Annotated[str, typer.Option("--by", help="谁 · who does it", show_default="系统用户 · the system's user")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(parked, name="parked")


def myself() -> str:
    """The person at this terminal, by the system's word."""
    return getpass.getuser()


@parked.command("list")
def list_(
    home: HomeOption = HERE,
    json: JsonOption = False,
    case: Annotated[str | None, typer.Option("--case", help="只看这个链条 · this case only")] = None,
) -> None:
    """停放的事，按原因分组 · what is parked, by cause"""
    from hub.cli import parked_entries
    from hub.cli.running_hub import RunningHub
    from hub.ledger import parked as ledger_parked

    with RunningHub.of(home).look() as conn:
        rows = ledger_parked.opened(conn, case=case, limit=MOST) if conn is not None else []
        entries = [parked_entries.as_value(row) for row in rows]
    if json:
        answer(entries)
    else:
        for line in parked_entries.lines(entries):
            say(line)
        if not entries:
            say(text("没有停放的事", "nothing is parked"))


@parked.command("show")
def show(which: Which, home: HomeOption = HERE, json: JsonOption = False) -> None:
    """一条停放的事，连同原文 · one entry, with its bytes."""
    from hub.cli import parked_entries
    from hub.cli.running_hub import RunningHub

    with RunningHub.of(home).look() as conn:
        found = parked_entries.find(conn, which) if conn is not None else None
    if found is None:
        raise RejectedError("HUB-E6203", id=which)
    if json:
        answer({**parked_entries.as_value(found), "headers": found.headers, "body": parked_entries.body_of(found)})
        return
    for line in parked_entries.story(found):
        say(line)


@parked.command("retry")
def retry(
    which: Annotated[list[str] | None, typer.Argument(help="编号或 id · numbers or ids")] = None,
    every: Annotated[bool, typer.Option("--all", help="全部 · everything")] = False,
    case: Annotated[str | None, typer.Option("--case", help="这个链条的 · what waits in this case")] = None,
    by: By = "",
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """再试一次，同一链条按原来的顺序 · try again, in its order. Exit 6 when something stays parked."""
    from hub.cli.parked_settling import Settling, until_files_are_read
    from hub.cli.running_hub import RunningHub

    if bool(which) + every + (case is not None) != 1:
        raise typer.BadParameter(text("给出编号、--all 或 --case 之一", "give numbers, or --all, or --case"))
    hub = RunningHub.of(home)
    with hub.ledger() as ledger:
        entries = [_one(ledger, name) for name in which] if which else _all(ledger, case)
        until_files_are_read(hub)
        settling = Settling(hub, ledger, by or myself())
        settling.retry(entries)
        settling.wait()
        _tell(settling, json)


@parked.command("discard")
def discard(
    which: Which,
    reason: Annotated[str, typer.Option("--reason", help="为什么 · why; it is kept in the log")],
    by: By = "",
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """放弃它，它的链条继续 · give it up; its case goes on. The bytes and the reason are kept."""
    from hub.cli.parked_settling import Settling
    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    with hub.ledger() as ledger:
        settling = Settling(hub, ledger, by or myself(), reason)
        settling.discard(_one(ledger, which))
        settling.wait()
        _tell(settling, json)


def _one(ledger: Ledger, name: str) -> AnyRow:
    """The open entry that is meant; raises RejectedError when there is none, or it is settled."""
    from hub.cli import parked_entries

    with ledger.reading() as conn:
        found = parked_entries.find(conn, name)
    if found is None:
        raise RejectedError("HUB-E6203", id=name)
    if found.state != "open":
        raise RejectedError("HUB-E6204", id=name, state=found.state)
    return found


def _all(ledger: Ledger, case: str | None) -> Sequence[AnyRow]:
    """What is open and can be tried again; of a case, or of all."""
    from hub.cli.parked_settling import can_be_retried
    from hub.ledger import parked as ledger_parked

    with ledger.reading() as conn:
        return [row for row in ledger_parked.opened(conn, case=case, limit=MOST) if can_be_retried(row)]


def _tell(settling: Settling, json: bool) -> None:
    """Say what came of it; exit 6 while something is still parked."""
    from hub.cli import parked_entries

    left = [parked_entries.as_value(row) for row in settling.still_open()]
    working, asked = settling.unfinished(), len(dict.fromkeys(settling.refs))
    told: dict[str, Any] = {"asked": asked, "settled": asked - len(left), "working": working, "parked": left}
    if json:
        answer(told)
    else:
        say(text("处理 {asked} 条，{settled} 条已了结", "{asked} asked, {settled} settled").format_map(told))
        for command in working:
            say(text("  … 命令 {} 还在重试 → hub status", "  … command {} is being tried → hub status").format(command))
        for line in parked_entries.lines(left):
            say(f"  {line}")
        if left and not settling.hub.runs:
            say(text("  接力没有在运行：启动后会处理 → hub up", "  the hub is not running: it is done after hub up"))
    if left:
        raise typer.Exit(Exit.PARKED)
