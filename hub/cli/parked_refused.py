"""Pushes that were refused, for their receiver: how many for which reason, and those that were signed with their first bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hub.cli import parked_bytes, parked_entries
from hub.cli.terminal import speech, text
from hub.errors import texts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.config.home import Home
    from hub.ledger.database import AnyRow

NOTHING: dict[str, Any] = {"counts": [], "kept": 0, "entries": []}
NAMES = ("id", "instance", "ref", "delivery", "code", "size", "kept", "times", "first_at", "last_at")
RECENT = timedelta(days=7)
"""What `hub status` looks back at."""


def as_value(entry: AnyRow) -> dict[str, Any]:
    """A kept refusal for machines, without its bytes."""
    error = parked_entries.error_of(entry)
    known = entry.code in texts()
    return {
        **{name: getattr(entry, name) for name in NAMES},
        "seen": dict(entry.seen),
        "message": error.message(speech.language) if known else entry.code,
        "fix": error.fix(speech.language) if known else None,
    }


def whole(entry: AnyRow, home: Home) -> dict[str, Any]:
    """As `as_value`, with the headers and the first bytes; secrets are masked."""
    masked = parked_bytes.masked({"headers": dict(entry.headers), "seen": dict(entry.seen)}, home.secrets)
    return {**as_value(entry), **masked, "body": parked_bytes.shown(entry.head, home.secrets)}


def overview(conn: Connection, instance: str | None, limit: int) -> dict[str, Any]:
    """How often pushes were refused and why, and the latest of those that are kept."""
    from hub.ledger import refused

    if not refused.is_there(conn):
        return NOTHING
    told = [each for each in refused.counts(conn) if instance is None or each.instance == instance]
    return {
        "counts": [_count(each) for each in told],
        "kept": refused.kept(conn),
        "entries": [as_value(row) for row in refused.page(conn, instance, limit=limit)],
    }


def page(conn: Connection, instance: str | None, before: int, limit: int) -> list[dict[str, Any]]:
    """Kept refusals, the newest first, from before a number on."""
    from hub.ledger import refused

    if not refused.is_there(conn):
        return []
    return [as_value(row) for row in refused.page(conn, instance, before or None, limit)]


def recent(conn: Connection, now: datetime | None = None) -> list[dict[str, Any]]:
    """The counts of the last days, for `hub status`."""
    from hub.ledger import refused

    if not refused.is_there(conn):
        return []
    return [_count(each) for each in refused.counts(conn, (now or datetime.now(UTC)) - RECENT)]


def _count(count: Any) -> dict[str, Any]:
    names = ("instance", "code", "signed", "times", "dropped", "last_at")
    return {name: getattr(count, name) for name in names}


def count_lines(counts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The counts for people: what senders of ours could not get rid of first."""
    from hub.errors import HubError

    for each in counts:
        whose = text("已签名", "signed") if each["signed"] else text("未证实身份", "of unknown senders")
        mark = "✘" if each["signed"] else "○"
        reason = (
            HubError(each["code"], place=None, **_UNSEEN).message(speech.language) if each["code"] in texts() else ""
        )
        last = parked_entries.local(each["last_at"])
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


_UNSEEN = dict.fromkeys(("reason", "key", "number", "field", "most", "bytes", "instance"), "…")
"""The facts of a reason that stands for many: each of them has its own."""


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The overview for people."""
    yield from count_lines(told["counts"])
    for entry in told["entries"]:
        yield from entry_lines(entry)
    if not told["counts"] and not told["entries"]:
        yield text("没有拒收过推送", "no push was refused")
        return
    yield text(
        "保留原文 {} 条。看一条：hub parked show 编号 --refused；改好后请发送方再推一次",
        "{} are kept with their bytes. One of them: hub parked show NUMBER --refused; have the sender push it again once mended",
    ).format(told["kept"])


def page_lines(entries: Sequence[Mapping[str, Any]], limit: int) -> Iterator[str]:
    """A page for people; a full one says how to go on."""
    for entry in entries:
        yield from entry_lines(entry)
    if not entries:
        yield text("没有保留被拒收的推送", "no refused push is kept")
    elif len(entries) >= limit:
        yield text("… 更早的：--after {}", "… earlier ones: --after {}").format(entries[-1]["id"])


def entry_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """One entry of a list."""
    times = text("，{} 次", ", {} times").format(entry["times"]) if entry["times"] > 1 else ""
    who = entry["delivery"] or entry["ref"]
    yield f"#{entry['id']:<6} {parked_entries.local(entry['last_at'])}  {entry['instance']}  {entry['code']}  {who}{times}"
    yield f"        {entry['message']}"


def whole_lines(told: Mapping[str, Any], entry: AnyRow, home: Home) -> Iterator[str]:
    """One entry in full, for people."""
    yield f"#{told['id']}  {text('拒收', 'refused')}  {told['ref']}"
    yield f"  {told['code']}  {told['message']}"
    yield f"  → {told['fix']}"
    shown = (
        (text("连接", "connector"), told["instance"]), (text("推送编号", "push"), told["delivery"]),
        (text("首次", "first"), parked_entries.local(told["first_at"])),
        (text("最近", "last"), parked_entries.local(told["last_at"])), (text("次数", "times"), told["times"]),
    )  # fmt: skip
    yield from (f"  {name}: {value}" for name, value in (*shown, *told["headers"].items()) if value)
    if told["kept"] < told["size"]:
        yield text("  原文的前 {} 字节（共 {}）：", "  the first {} bytes of {}:").format(told["kept"], told["size"])
    else:
        yield text("  原文（{} 字节）：", "  what came ({} bytes):").format(told["size"])
    yield from parked_bytes.lines(entry.head, home.secrets)
