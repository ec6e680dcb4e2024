"""`hub events conflicts`: events delivered again under the same id with other content. The first delivery is in effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, text

if TYPE_CHECKING:
    from hub.ledger.database import AnyRow

DEFAULT_LIMIT = 20


def register(events: typer.Typer) -> None:
    """Add the command."""
    events.command("conflicts")(list_conflicts)


def list_conflicts(
    instance: Annotated[str | None, typer.Option("--instance", help="只看这个连接 · of this connection")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="最近多少条 · how many of the last")
    ] = DEFAULT_LIMIT,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """同一版本又来了别的内容的事件，最近的在前 · events delivered again with other content, the latest first."""
    from hub.cli.running_hub import RunningHub
    from hub.ledger import conflicts

    hub, entries, counts = RunningHub.of(home), list[dict[str, Any]](), dict[str, int]()
    with hub.look() as conn:
        rows = conflicts.latest(conn, instance, limit) if conn is not None else ()
        counts = conflicts.counts(conn) if conn is not None else {}
    if rows:
        with hub.history() as history:
            for row in rows:
                first = history.event(row.event_id)
                data = first.event.data if first is not None else None
                entries.append({"instance": row.instance, **conflict_as_value(row, data)})
    if json:
        answer({"counts": counts, "conflicts": entries})
        return
    for each in entries:
        say(f"  {each['subject']}  {each['type']}  {each['instance']}  → hub why {each['event'][:8]}")
        for line in conflict_lines([each]):
            say(line)
    if not entries:
        say(text("  ✔ 没有", "  ✔ none"))


def conflict_as_value(row: AnyRow, first: Mapping[str, Any] | None) -> dict[str, Any]:
    """An entry, for machines; `first` is the content in effect, None where it is no longer stored."""
    import orjson

    from hub.ledger import conflicts

    try:
        later = orjson.loads(row.body)["data"]
    except orjson.JSONDecodeError:  # too long: stored truncated
        later = {}
    changed = conflicts.changes(first, later) if later and first is not None else {}
    return {
        "event": row.event_id,
        "type": row.type,
        "subject": row.subject,
        "times": row.times,
        "last_at": row.last_at,
        "changes": {name: {"first": one, "later": other} for name, (one, other) in changed.items()},
    }


def conflict_lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    """Entries, for people: a line for each, and one for each field that differs."""
    from hub.cli.parked_entries import local_time
    from hub.config.validation import short

    for each in entries:
        note = text(
            "同一版本又来了别的内容（{} 次，最近 {}），以先到的为准",
            "the same version was delivered with other content ({} times, last at {}); the first counts",
        )
        yield f"  ! [{each['event'][:8]}] {note.format(each['times'], local_time(each['last_at']))}"
        for name, one in each["changes"].items():
            yield f"    {name}: {short(one['first'])} → {short(one['later'])}"
