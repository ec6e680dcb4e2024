"""Refused pushes for the operator: how many for which reason, and the first bytes of the signed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hub.cli import parked_bytes, parked_entries
from hub.cli.terminal import speech, text
from hub.errors import texts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.home import Home
    from hub.ledger.database import AnyRow

NO_REFUSALS: dict[str, Any] = {"counts": [], "kept": 0, "entries": []}
NAMES = ("id", "instance", "ref", "delivery", "code", "size", "kept", "times", "first_at", "last_at")
RECENT_PERIOD = timedelta(days=7)
"""The period that `hub status` covers."""


def as_value(entry: AnyRow) -> dict[str, Any]:
    """A stored refusal for machines, without its bytes."""
    error = parked_entries.error_of(entry)
    known = entry.code in texts()
    return {
        **{name: getattr(entry, name) for name in NAMES},
        "seen": dict(entry.seen),
        "message": error.message(speech.language) if known else entry.code,
        "fix": error.fix(speech.language) if known else None,
    }


def full_value(entry: AnyRow, home: Home) -> dict[str, Any]:
    """As `as_value`, with the headers and the first bytes; secrets are masked."""
    masked = parked_bytes.masked({"headers": dict(entry.headers), "seen": dict(entry.seen)}, home.secrets)
    return {**as_value(entry), **masked, "body": parked_bytes.shown(entry.head, home.secrets)}


def overview(conn: Connection, instance: str | None, limit: int) -> dict[str, Any]:
    """How often pushes were refused and why, and the latest stored ones."""
    from hub.ledger import refused

    if not refused.has_tables(conn):
        return NO_REFUSALS
    counts = [each for each in refused.counts(conn) if instance is None or each.instance == instance]
    return {
        "counts": [_count(each) for each in counts],
        "kept": refused.entry_count(conn),
        "entries": [as_value(row) for row in refused.page(conn, instance, limit=limit)],
    }


def page(conn: Connection, instance: str | None, before: int, limit: int) -> list[dict[str, Any]]:
    """Stored refusals before a number, the newest first."""
    from hub.ledger import refused

    if not refused.has_tables(conn):
        return []
    return [as_value(row) for row in refused.page(conn, instance, before or None, limit)]


def recent(conn: Connection, now: datetime | None = None) -> list[dict[str, Any]]:
    """The counts of the last days, for `hub status`."""
    from hub.ledger import refused

    if not refused.has_tables(conn):
        return []
    return [_count(each) for each in refused.counts(conn, (now or datetime.now(UTC)) - RECENT_PERIOD)]


def _count(count: Any) -> dict[str, Any]:
    names = ("instance", "code", "signed", "times", "dropped", "last_at")
    return {name: getattr(count, name) for name in names}


def count_lines(counts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The counts for people."""
    from hub.errors import HubError

    for each in counts:
        whose = text("已签名", "signed") if each["signed"] else text("未证实身份", "of unknown senders")
        mark = "✘" if each["signed"] else "○"
        reason = (
            HubError(each["code"], place=None, **_PLACEHOLDERS).message(speech.language)
            if each["code"] in texts()
            else ""
        )
        last = parked_entries.local_time(each["last_at"])
        yield text(
            "  {mark} {instance}  拒收 {times} 次（{whose}）  {code} {reason}  最近 {last}",
            "  {mark} {instance}  refused {times} ({whose})  {code} {reason}  last {last}",
        ).format(
            mark=mark, whose=whose, last=last, reason=reason, **{k: each[k] for k in ("instance", "times", "code")}
        )
        if each["dropped"]:
            yield text("      其中 {} 条的原文已让位给更新的", "      {} of them made room for newer ones").format(
                each["dropped"]
            )


_PLACEHOLDERS = dict.fromkeys(("reason", "key", "number", "field", "most", "bytes", "instance"), "…")
"""Facts for a message that covers many refusals, each with facts of its own."""


def lines(overview: Mapping[str, Any]) -> Iterator[str]:
    """The overview for people."""
    yield from count_lines(overview["counts"])
    for entry in overview["entries"]:
        yield from entry_lines(entry)
    if not overview["counts"] and not overview["entries"]:
        yield text("没有拒收过推送", "no push was refused")
        return
    yield text(
        "保留原文 {} 条。看一条：hub parked show 编号 --refused；改好后请发送方再推一次",
        "{} are stored with their bytes. Show one: hub parked show NUMBER --refused; have the sender push it again once corrected",
    ).format(overview["kept"])


def page_lines(entries: Sequence[Mapping[str, Any]], limit: int) -> Iterator[str]:
    """A page for people; a full one ends with the option for the next."""
    for entry in entries:
        yield from entry_lines(entry)
    if not entries:
        yield text("没有保留被拒收的推送", "no refused push is stored")
    elif len(entries) >= limit:
        yield text("… 更早的：--after {}", "… earlier ones: --after {}").format(entries[-1]["id"])


def entry_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """One entry of a list."""
    times = text("，{} 次", ", {} times").format(entry["times"]) if entry["times"] > 1 else ""
    who = entry["delivery"] or entry["ref"]
    yield f"#{entry['id']:<6} {parked_entries.local_time(entry['last_at'])}  {entry['instance']}  {entry['code']}  {who}{times}"
    yield f"        {entry['message']}"


def full_lines(refusal: Mapping[str, Any], entry: AnyRow, home: Home) -> Iterator[str]:
    """One entry in full, for people."""
    yield f"#{refusal['id']}  {text('拒收', 'refused')}  {refusal['ref']}"
    yield f"  {refusal['code']}  {refusal['message']}"
    yield f"  → {refusal['fix']}"
    shown = (
        (text("连接", "connector"), refusal["instance"]), (text("推送编号", "push"), refusal["delivery"]),
        (text("首次", "first"), parked_entries.local_time(refusal["first_at"])),
        (text("最近", "last"), parked_entries.local_time(refusal["last_at"])), (text("次数", "times"), refusal["times"]),
    )  # fmt: skip
    yield from (f"  {name}: {value}" for name, value in (*shown, *refusal["headers"].items()) if value)
    if refusal["kept"] < refusal["size"]:
        yield text("  原文的前 {} 字节（共 {}）：", "  the first {} bytes of {}:").format(
            refusal["kept"], refusal["size"]
        )
    else:
        yield text("  原文（{} 字节）：", "  what came ({} bytes):").format(refusal["size"])
    yield from parked_bytes.lines(entry.head, home.secrets)
