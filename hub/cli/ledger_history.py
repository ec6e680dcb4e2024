"""How much of its history the ledger retains, and why: the texts of `hub status` and `hub doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hub.cli.render import shown
from hub.cli.terminal import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.home import Home

NO_HISTORY: Mapping[str, Any] = {
    "setting": None,
    "rows": 0,
    "keys": 0,
    "oldest": None,
    "why": "young",
    "stuck": {},
    "backup": None,
}


def history_report(home: Home, conn: Connection) -> dict[str, Any]:
    """The retention report as in `--json`: the setting, the rows and keys retained, and why (see `RetainedRows.why`)."""
    from hub.ledger.retention import RetainedRows
    from schemas.envelope import format_time

    retained, config = RetainedRows.of(conn), home.config
    why = retained.why(config.history, datetime.now(UTC), config.kafka.replication)
    return {
        "setting": config.ledger_history,
        "rows": retained.rows,
        "keys": retained.keys,
        "oldest": format_time(retained.oldest) if retained.oldest is not None else None,
        "why": why,
        "stuck": {str(partition): sequence for partition, sequence in retained.stuck.items()},
        "backup": {"folder": retained.backup.folder, "at": retained.backup.at} if retained.backup is not None else None,
    }


def summary(report: Mapping[str, Any]) -> str:
    """How much the ledger retains."""
    since = shown(report["oldest"], "%Y-%m-%d") if report["oldest"] else "—"
    facts = {**report, "since": since}
    return text(
        "台账留有 {rows} 条完整事件（自 {since} 起，ledger_history: {setting}），{keys} 条只留识别重复的键",
        "the ledger keeps {rows} events (since {since}, ledger_history: {setting}), and of {keys} the key that knows a repeat",
    ).format_map(facts)


def warning(report: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why the ledger retains more than `ledger_history` sets, and the fix; None while it does not."""
    backup = report["backup"] or {"at": "", "folder": "DIR"}
    match report["why"]:
        case "never backed up":
            return (
                text(
                    "更早的也都留着：日志只在一块磁盘上，还没有备份",
                    "older events are retained too: the log is on one disk, and was never backed up",
                ),
                "hub backup DIR",
            )
        case "not backed up since":
            reason = text(
                "更早的等下一次备份：上次是 {}", "what is older waits for the next backup: the last one is of {}"
            )
            return reason.format(shown(backup["at"], "%Y-%m-%d")), f"hub backup {backup['folder']}"
        case "stuck":
            partition, sequence = next(iter(report["stuck"].items()))
            reason = text(
                "更早的也留着：日志分区 {} 缺少序号 {}，或与台账不同",
                "older events are retained too: partition {} of the log lacks sequence {}, or differs there from the ledger",
            )
            return reason.format(partition, sequence), "hub audit"
        case "its turn" if not report["running"]:
            return text("更早的下次运行时精简", "what is older is trimmed when the hub runs"), "hub up"
    return None


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The lines of `hub status`: none while the ledger retains what is set."""
    found = warning(report)
    if found is not None:
        reason, fix = found
        yield f"  ! {summary(report)}"
        yield f"    {reason} → {fix}"
