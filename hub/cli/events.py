"""`hub events`: what lies in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, text, warn
from hub.errors import HubError, RejectedError

if TYPE_CHECKING:
    from hub.cli.log_reading import Lying
    from hub.cli.running_hub import RunningHub

events = typer.Typer(no_args_is_help=True, help="日志里的事件 · the events of the log")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    from hub.cli import conflicting_events

    conflicting_events.register(events)
    app.add_typer(events, name="events")


@events.command("tail")
def tail(
    type_: Annotated[str | None, typer.Option("--type", help="如 crm.opportunity.won 或 crm.* · or crm.*")] = None,
    case: Annotated[str | None, typer.Option("--case", help="只看这个链条 · this case only")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="最近多少条 · how many of the last")] = 20,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="继续显示新事件，直到 Ctrl-C · and what comes")
    ] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """最近的事件，按进入日志的先后 · the last events, as they entered the log. With -f and --json, one line each."""
    from hub.cli.log_reading import following, last, matching
    from hub.cli.running_hub import RunningHub

    log, wanted = RunningHub.of(home).log(), matching(type_, case)
    search = last(log, wanted, limit, everything=type_ is not None or case is not None)
    if json and not follow:
        answer({"read": search.read, "total": search.total, "events": [as_value(at) for at in search.found]})
        return
    for at in search.found:
        _show(at, json)
    if not json:
        warn(text("（读了 {} 条，共 {} 条）", "(read {} of {} events)").format(search.read, search.total))
    for at in following(log, wanted, search.goes_on) if follow else ():
        _show(at, json)


def _show(at: Lying, json: bool) -> None:
    if json:
        answer(as_value(at))
    else:
        say(line(at))


def as_value(at: Lying) -> dict[str, Any]:
    """An event and its place in the log, for machines."""
    place = {"partition": at.record.partition, "offset": at.record.offset}
    if at.event is None:
        return {**place, "unreadable": (at.record.value or b"").decode(errors="backslashreplace")}
    return {**place, "event": at.event.model_dump(exclude_none=True)}


def line(at: Lying) -> str:
    """An event on one line."""
    from hub.cli.parked_entries import local

    if at.event is None:
        place = f"{at.record.partition}:{at.record.offset}"
        return f"  {text('读不懂的记录', 'an unreadable record')} {place}"
    event = at.event
    who = event.actor or event.data.get("by") or event.source.rpartition("/")[2]
    return f"  {local(event.recordedtime)}  {event.type:<26} {event.subject}  {who}  [{event.id}]"


@events.command("show")
def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="事件 id · the event's id")],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """一个事件的全文，和它在日志中的位置 · one event in full, and where it lies in the log."""
    import orjson

    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    event_id = whole_id(hub, event_id)
    found = _of_ledger(hub, event_id)
    places, coverage = _of_log(hub, event_id)
    event = found or next((at.event.model_dump(exclude_none=True) for at in places if at.event is not None), None)
    if event is None:
        raise RejectedError("HUB-E6206", ref=event_id)
    where = [{"partition": at.record.partition, "offset": at.record.offset} for at in places]
    if json:
        answer({"event": event, "places": where, "coverage": coverage})
        return
    say(*orjson.dumps(event, option=orjson.OPT_INDENT_2).decode().split("\n"))
    for place in where:
        say(
            text(
                "  日志：分区 {partition} 偏移 {offset}", "  in the log: partition {partition} offset {offset}"
            ).format_map(place)
        )
    if coverage is None:
        say(text("  （接力没有在运行，没有查看日志）", "  (the hub is not running: the log was not looked at)"))
    else:
        say(text("  （读了 {read} 条，共 {total} 条）", "  (read {read} of {total} events)").format_map(coverage))


def whole_id(hub: RunningHub, start: str) -> str:
    """The id of the event that a person means by it or by its start, as `hub why` prints it; raises RejectedError for several."""
    from hub.ledger import outbox
    from hub.story import starting_with

    start = start.strip("[]")
    with hub.look() as conn:
        if conn is None or outbox.find(conn, start) is not None:
            return start
        found = [each.ref for each in starting_with(conn, start) if outbox.find(conn, each.ref) is not None]
    if len(found) > 1:
        raise RejectedError("HUB-E6207", ref=start, candidates=", ".join(found))
    return found[0] if found else start


def _of_ledger(hub: RunningHub, event_id: str) -> dict[str, Any] | None:
    from hub.ledger import outbox
    from schemas.event import Event

    with hub.look() as conn:
        row = outbox.find(conn, event_id) if conn is not None else None
    return Event.from_json(row.body).model_dump(exclude_none=True) if row is not None else None


def _of_log(hub: RunningHub, event_id: str) -> tuple[list[Lying], dict[str, int] | None]:
    """Where it lies, and how much was read to find out; None while the log is away."""
    from hub.cli.log_reading import one

    try:
        search = one(hub.log(), event_id)
    except HubError:
        return [], None
    return search.found, {"read": search.read, "total": search.total}
