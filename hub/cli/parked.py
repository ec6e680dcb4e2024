"""`hub parked`: parked work (dead letters), its causes, and what a person does about it: edit, preview, retry, discard."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.gaps import gap_lines
from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, confirmed, say, text, warn
from hub.errors import RejectedError

if TYPE_CHECKING:
    from hub.cli.parked_settle import ParkedRequests
    from hub.ledger.database import AnyRow
    from hub.ledger.ledger import Ledger
    from hub.ledger.parked_search import ParkedFilter

parked = typer.Typer(
    invoke_without_command=True,
    help="停放的事：按原因查看、编辑、预演、重试、放弃 · parked work by cause: see, edit, preview, retry, discard",
)
Which = Annotated[str, typer.Argument(help="编号，或事件、命令的 id · its number, or the id of the event or command")]
Several = Annotated[list[str] | None, typer.Argument(help="编号或 id · numbers or ids")]
By = Annotated[str, typer.Option("--by", help="谁 · who does it", show_default="系统用户 · the system's user")]
Reason = Annotated[str | None, typer.Option("--reason", help="为什么 · why; the log records it")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="不再询问 · without asking")]
KINDS = ("event", "command", "delivery")


def _kind(value: str | None) -> str | None:
    """Validate --kind: one of `KINDS`."""
    if value is not None and value not in KINDS:
        raise typer.BadParameter(f"{value}: {', '.join(KINDS)}")
    return value


Kind = Annotated[str | None, typer.Option("--kind", help=", ".join(KINDS), callback=_kind)]
Code = Annotated[str | None, typer.Option("--code", help="HUB-E…")]
Rule = Annotated[str | None, typer.Option("--rule", help="规则 · the rule")]
Connector = Annotated[str | None, typer.Option("--connector", help="连接 · the connected system")]
Case = Annotated[str | None, typer.Option("--case", help="只看这个链条 · this case only")]
Cause = Annotated[
    str | None,
    typer.Option("--cause", help="hub parked 所列的原因，或错误码 · a cause of hub parked, or a code"),
]
Refused = Annotated[
    bool, typer.Option("--refused", help="被拒收的推送 · pushes that were refused, with the answers to their senders")
]
Since = Annotated[str | None, typer.Option("--since", help="时间，或 30m、2h、3d · a time, or 30m, 2h, 3d")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(parked, name="parked")


def myself() -> str:
    """The system user at this terminal."""
    return getpass.getuser()


@parked.callback()
def causes(
    context: typer.Context,
    kind: Kind = None,
    code: Code = None,
    rule: Rule = None,
    connector: Connector = None,
    case: Case = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="最多多少种原因 · how many causes at most")] = 50,
    refused: Refused = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """停放的事，按原因分组 · what is parked, by cause. Exit 6 when anything is."""
    if context.invoked_subcommand is not None:
        return
    if refused:
        _refused(home, connector, limit, json=json)
        return
    from hub.cli import parked_entries, parked_settle
    from hub.cli.running_hub import RunningHub

    with RunningHub.of(home).look() as conn:
        wanted = parked_settle.parked_filter(
            kind=kind, code=code, rule=rule, instance=connector, case=case, since=since
        )
        report = parked_entries.causes(conn, wanted, limit) if conn is not None else parked_entries.NO_CAUSES
    if json:
        answer(report)
    else:
        for line in parked_entries.cause_lines(report):
            say(line)
    if report["causes"]:
        raise typer.Exit(Exit.PARKED)


@parked.command("list")
def list_(
    kind: Kind = None,
    code: Code = None,
    rule: Rule = None,
    connector: Connector = None,
    case: Case = None,
    cause: Cause = None,
    since: Since = None,
    state: Annotated[str, typer.Option("--state", help="open, done, discarded, all")] = "open",
    after: Annotated[int, typer.Option("--after", help="从这个编号之后 · from behind this number on")] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="每页条数 · entries of a page")] = 1000,
    refused: Refused = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """逐条列出，按编号分页 · entry by entry, in pages; the next begins --after the last number. Exit 6 when one is open."""
    if refused:
        _refused(home, connector, limit, after, json=json, entries_only=True)
        return
    from hub.cli import parked_entries, parked_settle
    from hub.cli.running_hub import RunningHub
    from hub.ledger import parked_search

    with RunningHub.of(home).look() as conn:
        wanted = parked_settle.parked_filter(
            conn, cause, kind=kind, code=code, rule=rule, instance=connector, case=case, since=since, state=state
        )
        rows = parked_search.page(conn, wanted, after, limit) if conn is not None else []
    entries = [parked_entries.as_value(row) for row in rows]
    if json:
        answer(entries)
    else:
        for line in parked_entries.lines(entries, limit):
            say(line)
    if any(entry["state"] == "open" for entry in entries):
        raise typer.Exit(Exit.PARKED)


@parked.command("show")
def show(which: Which, refused: Refused = False, home: HomeOption = HERE, json: JsonOption = False) -> None:
    """一条停放的事：原文、位置、规则、历次尝试、排在后面的 · one entry: bytes, place, rule, attempts, what waits behind it."""
    if refused:
        _refused_one(which, home, json=json)
        return
    from hub.cli import parked_entries, parked_story
    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    with contextlib.ExitStack() as stack:
        conn = stack.enter_context(hub.look())
        entry = parked_entries.find(conn, which) if conn is not None else None
        if conn is None or entry is None:
            raise RejectedError("HUB-E6203", id=which)
        history = stack.enter_context(hub.history())
        story = parked_story.as_value(conn, hub.home, entry, history)
    if json:
        answer(story)
        return
    for line in parked_story.lines(story, entry, hub.home.secrets):
        say(line)
    warn(*gap_lines(history.gaps))


def _refused(
    home: Path, instance: str | None, limit: int, before: int = 0, *, json: bool, entries_only: bool = False
) -> None:
    """Refused pushes: the counts and the latest, or only the entries, page by page, the newest first."""
    from hub.cli import parked_refused
    from hub.cli.running_hub import RunningHub

    with RunningHub.of(home).look() as conn:
        report = parked_refused.NO_REFUSALS
        if conn is not None and entries_only:
            report = {"entries": parked_refused.page(conn, instance, before, limit)}
        elif conn is not None:
            report = parked_refused.overview(conn, instance, limit)
    if json:
        answer(report["entries"] if entries_only else report)
        return
    for line in parked_refused.page_lines(report["entries"], limit) if entries_only else parked_refused.lines(report):
        say(line)


def _refused_one(which: str, home: Path, *, json: bool) -> None:
    from hub.cli import parked_refused
    from hub.cli.running_hub import RunningHub
    from hub.ledger import refused

    hub = RunningHub.of(home)
    with hub.look() as conn:
        known = conn is not None and which.isdecimal() and refused.has_tables(conn)
        entry = refused.get(conn, int(which)) if conn is not None and known else None
    if entry is None:
        raise RejectedError("HUB-E6215", id=which)
    refusal = parked_refused.full_value(entry, hub.home)
    if json:
        answer(refusal)
        return
    for line in parked_refused.full_lines(refusal, entry, hub.home):
        say(line)


@parked.command("edit")
def edit(
    which: Which,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="如 data.amount=880000 · a field and its value")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", exists=True, dir_okay=False, help="全文 · the whole of it")
    ] = None,
    reason: Reason = None,
    by: By = "",
    yes: Yes = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """更正它：显示差异，确认后记为一个事件；原文不变 · correct it: shows the diff, asks, records an event; what came stays."""
    from hub.cli import parked_editing
    from hub.cli.parked_bytes import difference
    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    with hub.ledger() as ledger:
        entry = _one(ledger, which)
        before = parked_editing.current_bytes(hub, entry)
        after = parked_editing.edited(before, hub.home.secrets, file, settings or [])
        changed = difference(before, after, hub.home.secrets)
        if before == after or not (changed or file):
            raise RejectedError("HUB-E6214", id=which)
        corrected = parked_editing.checked(entry, after)
        for line in () if json else changed:
            say(line)
        if not (yes or json or confirmed(text("记录这个更正？", "Record this correction?"))):
            say(text("没有记录；加 --yes 则不询问", "Nothing was recorded; --yes skips the question"))
            raise typer.Exit(Exit.FAILED)
        request = parked_editing.operator_request(by or myself(), reason)
        event = ledger.writer.run(lambda conn: parked_editing.record(conn, entry, corrected, request))
    if json:
        answer({"id": entry.id, "ref": entry.ref, "event": event, "diff": changed})
    else:
        say(
            text("已记录 #{0} 的更正 → hub parked preview {0}", "#{0} is corrected → hub parked preview {0}").format(
                entry.id
            )
        )


@parked.command("preview")
def preview(
    which: Several = None,
    every: Annotated[bool, typer.Option("--all", help="全部 · everything")] = False,
    case: Case = None,
    cause: Cause = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="最多多少条 · how many at most")] = 100,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """预演：现在重试会怎样，什么也不做 · what a retry would do now, without doing it. Exit 6 when something would fail again."""
    from hub.cli import parked_preview
    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    with hub.ledger() as ledger:
        entries: list[AnyRow] = []
        for rows in _chosen(ledger, which, case, cause, every=every):
            entries += rows
            if len(entries) >= limit:
                break
    outcomes = parked_preview.preview(hub, entries[:limit])
    if json:
        answer(outcomes)
    else:
        for line in parked_preview.lines(outcomes, hub.home.secrets):
            say(line)
    if any(each["outcome"] in ("fails", "never") for each in outcomes):
        raise typer.Exit(Exit.PARKED)


@parked.command("retry")
def retry(
    which: Several = None,
    every: Annotated[bool, typer.Option("--all", help="全部 · everything")] = False,
    case: Annotated[str | None, typer.Option("--case", help="这个链条的 · what waits in this case")] = None,
    cause: Cause = None,
    by: By = "",
    reason: Reason = None,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """再试一次，同一链条按原来的顺序 · try again, in its order. Exit 6 when something stays parked."""
    from hub.cli.parked_settle import ParkedRequests, wait_for_file_reload
    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    with hub.ledger() as ledger:
        requests = ParkedRequests(hub, ledger, by or myself(), reason)
        for number, entries in enumerate(_chosen(ledger, which, case, cause, every=every)):
            if number == 0:
                wait_for_file_reload(hub)
            requests.retry(entries)
        requests.wait()
        _report(requests, json)


@parked.command("discard")
def discard(
    which: Annotated[list[str], typer.Argument(help="编号或 id · numbers or ids")],
    reason: Annotated[str, typer.Option("--reason", help="为什么 · why; the log records it")],
    by: By = "",
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """放弃它，它的链条继续 · give it up; its case goes on. The bytes and the reason stay on record."""
    from hub.cli.parked_settle import ParkedRequests
    from hub.cli.running_hub import RunningHub

    if not reason.strip():
        raise typer.BadParameter(text("请写明原因", "say why"), param_hint="--reason")
    hub = RunningHub.of(home)
    with hub.ledger() as ledger:
        requests = ParkedRequests(hub, ledger, by or myself(), reason)
        for entry in [_one(ledger, name) for name in which]:
            requests.discard(entry)
        requests.wait()
        _report(requests, json)


def _one(ledger: Ledger, name: str) -> AnyRow:
    """The open entry of this name; raises RejectedError when there is none, or it is settled."""
    from hub.cli import parked_entries

    with ledger.reading() as conn:
        entry = parked_entries.find(conn, name)
    if entry is None:
        raise RejectedError("HUB-E6203", id=name)
    if entry.state != "open":
        raise RejectedError("HUB-E6204", id=name, state=entry.state)
    return entry


def _chosen(
    ledger: Ledger, which: Sequence[str] | None, case: str | None, cause: str | None, *, every: bool
) -> Iterator[Sequence[AnyRow]]:
    """The chosen entries, page by page, oldest first; of a case, a cause or all, only those that can be retried."""
    from hub.cli import parked_settle
    from hub.cli.parked_settle import can_be_retried

    if bool(which) + every + (case is not None) + (cause is not None) != 1:
        raise typer.BadParameter(
            text("给出编号、--cause、--case 或 --all 之一", "give numbers, or --cause, or --case, or --all")
        )
    if which:
        yield [_one(ledger, name) for name in which]
        return
    with ledger.reading() as conn:
        wanted: ParkedFilter = parked_settle.parked_filter(conn, cause, case=case)
    for rows in parked_settle.pages(ledger, wanted):
        yield [row for row in rows if can_be_retried(row)]


def _report(requests: ParkedRequests, json: bool) -> None:
    """Print the result; exit 6 while something is still parked."""
    from hub.cli import parked_entries

    left = [parked_entries.as_value(row) for row in requests.still_open()]
    working, requested = requests.unfinished(), len(dict.fromkeys(requests.refs))
    result: dict[str, Any] = {
        "asked": requested,
        "settled": requested - len(left),
        "working": working,
        "parked": left,
    }
    if json:
        answer(result)
    else:
        say(text("处理 {asked} 条，{settled} 条已了结", "{asked} requested, {settled} settled").format_map(result))
        for command in working:
            say(text("  … 命令 {} 还在重试 → hub status", "  … command {} is being tried → hub status").format(command))
        for line in parked_entries.lines(left, len(left) + 1) if left else ():
            say(f"  {line}")
        if left and not requests.hub.runs:
            say(text("  接力没有在运行：启动后会处理 → hub up", "  the hub is not running: it is done after hub up"))
    if left:
        raise typer.Exit(Exit.PARKED)
