"""`hub events conflicts`: what was told again under the same id with other content. The first stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, text

if TYPE_CHECKING:
    from hub.ledger.database import AnyRow

LISTED = 20


def register(events: typer.Typer) -> None:
    """Add the command."""
    events.command("conflicts")(listed)


def listed(
    instance: Annotated[str | None, typer.Option("--instance", help="只看这个连接 · of this connection")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="最近多少条 · how many of the last")] = LISTED,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """同一版本又来了别的内容的事件，最近的在前 · events that were told again with other content, the latest first."""
    from hub.cli.running_hub import RunningHub
    from hub.ledger import conflicts

    hub, found, counted = RunningHub.of(home), list[dict[str, Any]](), dict[str, int]()
    with hub.look() as conn:
        rows = conflicts.latest(conn, instance, limit) if conn is not None else ()
        counted = conflicts.counts(conn) if conn is not None else {}
    if rows:
        with hub.history() as history:
            for row in rows:
                first = history.event(row.event_id)
                data = first.event.data if first is not None else None
                found.append({"instance": row.instance, **conflict(row, data)})
    if json:
        answer({"counts": counted, "conflicts": found})
        return
    for each in found:
        say(f"  {each['subject']}  {each['type']}  {each['instance']}  → hub why {each['event'][:8]}")
        for line in differences([each]):
            say(line)
    if not found:
        say(text("  ✔ 没有", "  ✔ none"))


def conflict(row: AnyRow, first: Mapping[str, Any] | None) -> dict[str, Any]:
    """An entry, for machines; `first` is the content that stands, None where it is not kept any more."""
    import orjson

    from hub.ledger import conflicts

    try:
        later = orjson.loads(row.body)["data"]
    except orjson.JSONDecodeError:  # it was too long to be kept whole
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


def differences(found: list[dict[str, Any]]) -> Iterator[str]:
    """Entries for people: a line for each and one for each field that differs."""
    from hub.cli.parked_entries import local
    from hub.config.validation import short

    for each in found:
        said = text(
            "同一版本又来了别的内容（{} 次，最近 {}），以先到的为准",
            "the same version was told with other content ({} times, last at {}); the first stands",
        )
        yield f"  ! [{each['event'][:8]}] {said.format(each['times'], local(each['last_at']))}"
        for name, one in each["changes"].items():
            yield f"    {name}: {short(one['first'])} → {short(one['later'])}"
