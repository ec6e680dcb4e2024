"""Parked work as it is shown: an entry in words, and entries of one cause together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hub.cli.terminal import speech, text
from hub.errors import HubError, texts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.ledger.metadata import AnyRow

MOST = 10
"""Entries of one cause that are named."""
KINDS = {"event": ("事件", "event"), "command": ("命令", "command"), "delivery": ("推送", "delivery")}


def find(conn: Connection, name: str) -> AnyRow | None:
    """The entry that a person means: by its number, its ref, or the id of the event or command."""
    from hub.ledger import parked

    if name.isdecimal():
        return parked.get(conn, int(name))
    refs = (name, f"event/{name}", f"command/{name}")
    return next((found for ref in refs if (found := parked.find(conn, ref)) is not None), None)


def error_of(entry: AnyRow) -> HubError:
    """Why it is parked, as an error that can be said in either language."""
    return HubError(entry.code, **entry.seen)


def as_value(entry: AnyRow) -> dict[str, Any]:
    """An entry for machines, without its bytes."""
    known = entry.code in texts()
    names = (
        "id",
        "ref",
        "kind",
        "state",
        "code",
        "place",
        "rule",
        "instance",
        "subject",
        "parked_at",
        "asked",
        "reason",
    )
    return {
        **{name: getattr(entry, name) for name in names},
        "case": entry.case_id,
        "seen": dict(entry.seen),
        "message": error_of(entry).message(speech.language) if known else entry.code,
        "fix": error_of(entry).fix(speech.language) if known else None,
    }


def grouped(entries: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Entries of one cause together; the causes that hold most up come first."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for entry in entries:
        cause = (entry["kind"], entry["code"], entry["rule"], entry["place"], entry["instance"])
        groups.setdefault(cause, []).append(entry)
    return sorted(groups.values(), key=lambda group: (-len(group), group[0]["id"]))


def lines(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The list for people."""
    for group in grouped(entries):
        first, last = group[0], group[-1]
        place = f" {first['place']}" if first["place"] else ""
        rule = f"  {text('规则', 'rule')} {first['rule']}" if first["rule"] else ""
        when = text("首次 {}，最近 {}", "first {}, last {}").format(local(first["parked_at"]), local(last["parked_at"]))
        yield f"{first['code']}{place}  {first['message']}"
        yield f"  → {first['fix']}"
        yield f"  {text('{} 条', '{} entries').format(len(group))}  {when}{rule}"
        for entry in group[:MOST]:
            yield f"    #{entry['id']:<5} {text(*KINDS[entry['kind']])}  {entry['subject'] or entry['ref']}"
        if len(group) > MOST:
            yield f"    … {text('另有 {} 条', '{} more').format(len(group) - MOST)}"


def local(stamp: str) -> str:
    """A moment as the terminal's clock has it."""
    from schemas.event import moment

    return moment(stamp).astimezone().strftime("%m-%d %H:%M:%S")


def story(entry: AnyRow) -> Iterator[str]:
    """One entry in full, with its bytes."""
    told = as_value(entry)
    yield f"#{told['id']}  {text(*KINDS[told['kind']])}  {told['ref']}  ({told['state']})"
    yield f"  {told['code']} {told['place'] or ''}  {told['message']}"
    yield f"  → {told['fix']}"
    shown = (
        (text("链条", "case"), told["case"]), (text("对象", "subject"), told["subject"]),
        (text("连接", "connector"), told["instance"]), (text("规则", "rule"), told["rule"]),
        (text("停放于", "parked at"), local(told["parked_at"])), (text("说明", "reason"), told["reason"]),
    )  # fmt: skip
    yield from (f"  {name}: {value}" for name, value in shown if value)
    yield from (f"  {name}: {value}" for name, value in (entry.headers or {}).items())
    yield body_of(entry)


def body_of(entry: AnyRow) -> str:
    """Its bytes, for reading: JSON is laid out."""
    import orjson

    try:
        return orjson.dumps(orjson.loads(entry.body), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return bytes(entry.body).decode(errors="backslashreplace")
