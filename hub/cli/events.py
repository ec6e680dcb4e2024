"""`hub events`: shows the events of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.gaps import not_found
from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, text, warn
from hub.errors import HubError, RejectedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.cli.log_reading import LocatedEvent
    from hub.cli.running_hub import RunningHub
    from hub.projector.trail import Trail
    from hub.replay.history import History
    from schemas.envelope import Event

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
    from hub.cli.log_reading import following, matching, search_latest, search_latest_of
    from hub.cli.running_hub import RunningHub
    from hub.projector.trail import open_trail

    hub, wanted = RunningHub.of(home), matching(type_, case)
    try:
        log = hub.log()
        if type_ is None and case is None:
            search = search_latest(log, wanted, limit, everything=False)
        else:
            with open_trail(hub.home.boards_url) as trail:
                search = search_latest_of(log, trail, type_, case, limit)
    except HubError as error:
        if follow:
            raise
        _tail_of_ledger(hub, type_, case, limit, error, json)
        return
    if json and not follow:
        answer({**search.coverage, "events": [as_value(at) for at in search.found]})
        return
    for at in search.found:
        _show(at, json)
    if not json:
        warn(_covered(search.coverage))
    for at in following(log, wanted, search.next_offsets) if follow else ():
        _show(at, json)


def _tail_of_ledger(
    hub: RunningHub, type_: str | None, case: str | None, limit: int, outage: HubError, json: bool
) -> None:
    """Show the last events that the ledger still has, while the log is unavailable. Raises `outage` without a ledger."""
    with hub.look() as conn:
        if conn is None:
            raise outage
        found = last_of_ledger(conn, type_, case, limit)
    if json:
        values = [{"partition": None, "offset": None, "event": each.model_dump(exclude_none=True)} for each in found]
        answer({"read": 0, "total": None, "events": values, "code": outage.code})
        return
    say(*map(event_line, found))
    note = text("（读不到日志：{}；以上出自台账）", "(the log could not be read: {}; these are from the ledger)")
    warn(note.format(outage.message()))


def last_of_ledger(conn: Connection, type_: str | None, case: str | None, limit: int) -> list[Event]:
    """The last events that the ledger recorded, oldest first."""
    from sqlalchemy import select

    from hub.ledger.outbox import outbox
    from schemas.envelope import Event

    query = select(outbox.c.body).order_by(outbox.c.id.desc()).limit(limit)
    if case is not None:
        query = query.where(outbox.c.case_id == case)
    if type_ is not None:
        below = outbox.c.type.startswith(type_.removesuffix("*"), autoescape=True)
        query = query.where(below if type_.endswith("*") else outbox.c.type == type_)
    return [Event.from_json(row.body) for row in reversed(conn.execute(query).all())]


def _show(at: LocatedEvent, json: bool) -> None:
    if json:
        answer(as_value(at))
    else:
        say(line(at))


def as_value(at: LocatedEvent) -> dict[str, Any]:
    """An event and its place in the log, for machines."""
    place = {"partition": at.record.partition, "offset": at.record.offset}
    if at.event is None:
        return {**place, "unreadable": (at.record.value or b"").decode(errors="backslashreplace")}
    return {**place, "event": at.event.model_dump(exclude_none=True)}


def line(at: LocatedEvent) -> str:
    """A record on one line."""
    if at.event is None:
        place = f"{at.record.partition}:{at.record.offset}"
        return f"  {text('读不懂的记录', 'an unreadable record')} {place}"
    return event_line(at.event)


def event_line(event: Event) -> str:
    """An event on one line."""
    from hub.cli.parked_entries import local_time

    who = event.actor or event.data.get("by") or event.source.rpartition("/")[2]
    return f"  {local_time(event.recordedtime)}  {event.type:<26} {event.subject}  {who}  [{event.id}]"


@events.command("show")
def show(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="事件 id · the event's id")],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """一个事件的全文，和它在日志中的位置 · one event in full, and its place in the log."""
    import orjson

    from hub.cli.running_hub import RunningHub

    hub = RunningHub.of(home)
    with hub.history() as history:
        event_id = resolve_event_id(history, event_id)
        found = history.event(event_id)
        places, coverage = _of_log(hub, event_id, history.trail)
    event = found.event if found is not None else next((at.event for at in places if at.event is not None), None)
    if event is None:
        raise not_found(event_id, history.gaps)
    value = event.model_dump(exclude_none=True)
    where = [{"partition": at.record.partition, "offset": at.record.offset} for at in places]
    if json:
        answer({"event": value, "places": where, "coverage": coverage})
        return
    say(*orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().split("\n"))
    for place in where:
        say(
            text(
                "  日志：分区 {partition} 偏移 {offset}", "  in the log: partition {partition} offset {offset}"
            ).format_map(place)
        )
    if coverage is None:
        say(text("  （接力没有在运行，没有查看日志）", "  (the hub is not running: the log was not read)"))
    else:
        say(f"  {_covered(coverage)}")


def _covered(coverage: dict[str, int]) -> str:
    return text("（查了 {read} 条，共 {total} 条）", "(looked through {read} of {total} events)").format_map(coverage)


def resolve_event_id(history: History, start: str) -> str:
    """The full event id for an id or its prefix, as `hub why` prints it; raises RejectedError for an ambiguous prefix."""
    from hub.replay.story import MIN_ID_PREFIX

    start = start.strip("[]")
    if len(start) < MIN_ID_PREFIX or history.event(start) is not None:
        return start
    ids = [each.event.id for each in history.starting(start)]
    if len(ids) > 1:
        raise RejectedError("HUB-E6207", ref=start, candidates=", ".join(ids))
    return ids[0] if ids else start


def _of_log(hub: RunningHub, event_id: str, trail: Trail | None) -> tuple[list[LocatedEvent], dict[str, int] | None]:
    """The event's places in the log, and how much was read to find them; None while the log is unavailable."""
    from hub.cli.log_reading import search_event

    try:
        search = search_event(hub.log(), event_id, trail)
    except HubError:
        return [], None
    return search.found, search.coverage
