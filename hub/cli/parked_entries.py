"""Renders parked work: single entries, and entries grouped by cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hub.cli.render import shown
from hub.cli.terminal import runnable, speech, text
from hub.errors import HubError, texts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.ledger.database import AnyRow
    from hub.ledger.parked_search import Group, ParkedFilter

KINDS = {"event": ("事件", "event"), "command": ("命令", "command"), "delivery": ("推送", "delivery")}


def find(conn: Connection, name: str) -> AnyRow | None:
    """The entry of this number, ref, or id of its event or command."""
    from hub.ledger import parked

    if name.isdecimal():
        return parked.get(conn, int(name))
    refs = (name, f"event/{name}", f"command/{name}")
    return next((found for ref in refs if (found := parked.find(conn, ref)) is not None), None)


def error_of(entry: AnyRow) -> HubError:
    """The reason it is parked, as an error with a message in either language."""
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
        "tries",
        "edits",
    )
    return {
        **{name: getattr(entry, name) for name in names},
        "case": entry.case_id,
        "seen": dict(entry.seen),
        "message": error_of(entry).message(speech.language) if known else entry.code,
        "fix": error_of(entry).fix(speech.language) if known else None,
    }


NO_CAUSES: Mapping[str, Any] = {"count": 0, "causes": [], "more": 0}


def causes(conn: Connection, wanted: ParkedFilter, limit: int) -> dict[str, Any]:
    """Parked work by cause, with one example each; the causes with the most entries first. `more`: the number of omitted causes."""
    from hub.ledger import parked_search

    found = parked_search.groups(conn, wanted)
    examples = parked_search.examples(conn, [group.example for group in found[:limit]])
    shown = [_cause_value(group, as_value(examples[group.example])) for group in found[:limit]]
    return {"count": sum(group.count for group in found), "causes": shown, "more": max(0, len(found) - limit)}


def _cause_value(group: Group, example: Mapping[str, Any]) -> dict[str, Any]:
    of_example = {name: example[name] for name in ("id", "ref", "subject", "case")}
    numbers = {"count": group.count, "oldest": group.oldest, "newest": group.newest}
    texts_ = {name: example[name] for name in ("message", "fix")}
    return {"cause": group.cause.name, **group.cause._asdict(), **numbers, **texts_, "example": of_example}


def cause_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The causes for people."""
    for cause in report["causes"]:
        when = text("首次 {}，最近 {}", "first {}, last {}").format(
            local_time(cause["oldest"]), local_time(cause["newest"])
        )
        marks = [
            text(*KINDS[cause["kind"]]),
            cause["instance"],
            cause["rule"] and f"{text('规则', 'rule')} {cause['rule']}",
        ]
        yield f"{cause['code']}{_at(cause)}  {cause['message']}"
        yield f"  → {runnable(cause['fix'] or '')}"
        yield f"  {text('{} 条', '{} entries').format(cause['count'])}  {'  '.join(filter(None, marks))}  {when}"
        example = cause["example"]
        yield f"  {text('如', 'e.g.')} #{example['id']} {example['subject'] or example['ref']}   --cause {cause['cause']}"
    if report["more"]:
        yield text("… 另有 {} 种原因", "… {} more causes").format(report["more"])
    if not report["count"]:
        yield text("没有停放的事", "nothing is parked")
        return
    count = report["count"]
    yield runnable(text("共 {} 条。逐条：hub parked list --cause …；重试：hub parked retry --cause …",
               "{} in all. List: hub parked list --cause …; retry: hub parked retry --cause …").format(count))  # fmt: skip


def _at(entry: Mapping[str, Any]) -> str:
    return f" {entry['place']}" if entry["place"] else ""


def lines(entries: Sequence[Mapping[str, Any]], limit: int) -> Iterator[str]:
    """A page of entries for people; a full one ends with the option for the next."""
    for entry in entries:
        kind, about = text(*KINDS[entry["kind"]]), entry["subject"] or entry["ref"]
        yield f"#{entry['id']:<6} {local_time(entry['parked_at'])}  {kind}  {entry['code']}{_at(entry)}  {about}"
        yield f"        {entry['message']}"
    if not entries:
        yield text("没有停放的事", "nothing is parked")
    elif len(entries) >= limit:
        yield text("… 下一页：--after {}", "… the next page: --after {}").format(entries[-1]["id"])


def local_time(time: str) -> str:
    """A time in the home's time zone, for people."""
    return shown(time, "%m-%d %H:%M:%S")
