"""One parked entry in full: reason, place, attempts with their answers, operators' actions, what waits behind it, its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hub.cli import parked_bytes, parked_entries
from hub.cli.terminal import runnable, speech, text
from hub.errors import HubError, texts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.home import Home
    from hub.ledger.database import AnyRow
    from hub.replay.history import History

MAX_WAITING_SHOWN = 10
"""How many of the waiting entries are listed."""


def as_value(conn: Connection, home: Home, entry: AnyRow, history: History) -> dict[str, Any]:
    """An entry for machines, with its bytes and headers; secrets are masked. `gaps`: what could not be read now."""
    from hub.config.strict_json import storable
    from hub.ledger import parked_search

    number, rows = parked_search.blocked_by(conn, entry, MAX_WAITING_SHOWN)
    named = [{"id": row.id, "ref": row.ref, "code": row.code, "subject": row.subject} for row in rows]
    commands = _commands_behind(conn, entry)
    story = {
        **parked_entries.as_value(entry),
        "source": _source(home, entry),
        "attempts": [*_attempts(conn, entry)],
        "answer": _answer(conn, entry),
        "done": [*_done(history, entry)],
        "waiting": {"count": number + len(commands), "entries": named, "commands": commands[:MAX_WAITING_SHOWN]},
        "headers": storable(entry.headers),
        "body": parked_bytes.shown(entry.body, home.secrets),
        "correction": parked_bytes.shown(entry.correction, home.secrets) if entry.correction is not None else None,
        "gaps": history.gaps.as_value(),
    }
    return {
        **story,
        **parked_bytes.masked({name: story[name] for name in ("seen", "message", "headers", "attempts")}, home.secrets),
    }


def _source(home: Home, entry: AnyRow) -> str | None:
    """The line of the user's file at the entry's place: the rule's expression, or the mapping's."""
    file, _, line = (entry.place or "").partition(":")
    number = line.partition(":")[0]
    if not number.isdecimal() or not (home.path / file).resolve().is_relative_to(home.path):
        return None
    try:
        lines = (home.path / file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return (
        str(parked_bytes.masked(lines[int(number) - 1].strip(), home.secrets))
        if 0 < int(number) <= len(lines)
        else None
    )


def _attempts(conn: Connection, entry: AnyRow) -> Iterator[dict[str, Any]]:
    """Its attempts with their results, oldest first."""
    from hub.ledger import parked

    for row in (*parked.earlier_attempts(conn, entry.id), entry):
        at = row.at if hasattr(row, "at") else row.tried_at or row.parked_at
        number = row.number if hasattr(row, "number") else row.tries
        known = row.code in texts()
        message = HubError(row.code, **row.seen).message(speech.language) if known else row.code
        yield {"number": number, "at": at, "code": row.code, "place": row.place, "message": message}


def _answer(conn: Connection, entry: AnyRow) -> dict[str, Any] | None:
    """How often a command was sent, and the last answer of its system."""
    from hub.ledger import commands

    row = commands.get(conn, entry.ref.removeprefix("command/")) if entry.kind == "command" else None
    if row is None:
        return None
    return {name: getattr(row, name) for name in ("state", "attempts", "updated_at", "code", "reason", "response")}


def _done(history: History, entry: AnyRow) -> Iterator[dict[str, Any]]:
    """Operators' actions from the log: retries, corrections, a discard."""
    wanted = entry.ref.removeprefix("event/").removeprefix("command/")
    stored = history.of_subject(entry.ref) if entry.kind == "delivery" else history.of_case(entry.case_id or entry.ref)
    for event in (each.event for each in stored if each.event.type.startswith("hub.parked.")):
        if event.data.get("parked") == wanted or event.type == "hub.parked.retried":
            actor = {name: event.data.get(name) for name in ("by", "reason")}
            yield {"at": event.time, "what": event.type.rpartition(".")[2], "event": event.id, **actor}


def _commands_behind(conn: Connection, entry: AnyRow) -> list[dict[str, Any]]:
    """The commands of its case that wait for it."""
    from hub.ledger import commands

    mine = commands.get(conn, entry.ref.removeprefix("command/")) if entry.kind == "command" else None
    if mine is None:
        return []
    later = [
        row for row in commands.of_case(conn, mine.case_id) if row.seq > mine.seq and row.state not in commands.ENDED
    ]
    return [{"id": row.id, "type": row.type, "instance": row.instance, "state": row.state} for row in later]


def lines(story: Mapping[str, Any], entry: AnyRow, secrets: set[str]) -> Iterator[str]:
    """One entry for people."""
    yield f"#{story['id']}  {text(*parked_entries.KINDS[story['kind']])}  {story['ref']}  ({story['state']})"
    yield f"  {story['code']} {story['place'] or ''}  {story['message']}"
    if story["source"]:
        yield f"    | {story['source']}"
    yield f"  → {runnable(story['fix'] or '')}"
    shown = (
        (text("链条", "case"), story["case"]), (text("对象", "subject"), story["subject"]),
        (text("连接", "connector"), story["instance"]), (text("规则", "rule"), story["rule"]),
        (text("停放于", "parked at"), parked_entries.local_time(story["parked_at"])), (text("说明", "reason"), story["reason"]),
    )  # fmt: skip
    yield from (f"  {name}: {value}" for name, value in shown if value)
    yield from (f"  {name}: {value}" for name, value in (story["headers"] or {}).items())
    yield from _history(story)
    yield text("  原文（{} 字节）：", "  what came ({} bytes):").format(len(entry.body))
    yield from parked_bytes.lines(entry.body, secrets)
    if entry.correction is not None:
        yield text("  更正：", "  corrected:")
        yield from parked_bytes.difference(entry.body, entry.correction, secrets)


def _history(story: Mapping[str, Any]) -> Iterator[str]:
    for attempt in story["attempts"]:
        at, where = parked_entries.local_time(attempt["at"]), attempt["place"] or ""
        yield f"  {text('第 {} 次', 'try {}').format(attempt['number'])}  {at}  {attempt['code']} {where}  {attempt['message']}"
    if story["answer"]:
        words = text("  已发送 {attempts} 次，最后答复：{reason}", "  sent {attempts} times, the last answer: {reason}")
        yield words.format(attempts=story["answer"]["attempts"], reason=story["answer"]["reason"] or "-")
    for done in story["done"]:
        at, who = parked_entries.local_time(done["at"]), done["by"] or "-"
        yield f"  {text(*ACTIONS[done['what']])}  {at}  {who}  {done['reason'] or ''}".rstrip()
    waiting = story["waiting"]
    if waiting["count"]:
        yield text("  后面排着 {} 条：", "  {} wait behind it:").format(waiting["count"])
        yield from (
            f"    #{each['id']}  {each['code']}  {each['subject'] or each['ref']}" for each in waiting["entries"]
        )
        yield from (f"    {each['type']} @{each['instance']}  {each['state']}" for each in waiting["commands"])


ACTIONS = {"retried": ("重试", "retried"), "discarded": ("放弃", "discarded"), "edited": ("更正", "corrected")}
