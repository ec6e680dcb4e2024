"""What `hub status` and `hub doctor` say of how much of its history the ledger keeps, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hub.cli.render import shown
from hub.cli.terminal import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.config.home import Home

NOTHING: Mapping[str, Any] = {
    "setting": None,
    "rows": 0,
    "keys": 0,
    "oldest": None,
    "why": "young",
    "stuck": {},
    "backup": None,
}


def look(home: Home, conn: Connection) -> dict[str, Any]:
    """As `--json` tells it."""
    from hub.ledger.retention import RetainedRows
    from schemas.envelope import format_time

    kept, config = RetainedRows.of(conn), home.config
    why = kept.why(config.history, datetime.now(UTC), config.kafka.replication)
    return {
        "setting": config.ledger_history,
        "rows": kept.rows,
        "keys": kept.keys,
        "oldest": format_time(kept.oldest) if kept.oldest is not None else None,
        "why": why,
        "stuck": {str(partition): sequence for partition, sequence in kept.stuck.items()},
        "backup": {"folder": kept.backup.folder, "at": kept.backup.at} if kept.backup is not None else None,
    }


def sentence(told: Mapping[str, Any]) -> str:
    """How much is kept."""
    since = shown(told["oldest"], "%Y-%m-%d") if told["oldest"] else "—"
    facts = {**told, "since": since}
    return text(
        "台账留有 {rows} 条完整事件（自 {since} 起，ledger_history: {setting}），{keys} 条只留识别重复的键",
        "the ledger keeps {rows} events (since {since}, ledger_history: {setting}), and of {keys} the key that knows a repeat",
    ).format_map(facts)


def complaint(told: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why it keeps more than it was told to, and what to do; None while it does not."""
    backup = told["backup"] or {"at": "", "folder": "DIR"}
    match told["why"]:
        case "never backed up":
            return (
                text(
                    "更早的也都留着：日志只在一块磁盘上，还没有备份",
                    "what is older stays too: the log lies on one disk, and was never backed up",
                ),
                "hub backup DIR",
            )
        case "not backed up since":
            said = text(
                "更早的等下一次备份：上次是 {}", "what is older waits for the next backup: the last one is of {}"
            )
            return said.format(shown(backup["at"], "%Y-%m-%d")), f"hub backup {backup['folder']}"
        case "stuck":
            partition, sequence = next(iter(told["stuck"].items()))
            said = text(
                "更早的也留着：日志分区 {} 缺少序号 {}，或与台账不同",
                "what is older stays too: partition {} of the log lacks sequence {}, or has it otherwise than the ledger",
            )
            return said.format(partition, sequence), "hub audit"
        case "its turn" if not told["running"]:
            return text("更早的下次运行时精简", "what is older is trimmed when the hub runs"), "hub up"
    return None


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """For `hub status`: nothing while all is as it was set."""
    found = complaint(told)
    if found is not None:
        yield f"  ! {sentence(told)}"
        yield f"    {found[0]} → {found[1]}"
