"""What a history query could not read (`Gaps`), as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hub.cli.terminal import text, warn
from hub.errors import RejectedError

if TYPE_CHECKING:
    from hub.replay.history import Gaps

MAX_NAMED = 5
"""More places than this are shortened to `…`."""


def not_found(ref: str, gaps: Gaps) -> RejectedError:
    """The error for a reference that matches nothing. Prints a warning about unreadable parts first."""
    warn(*gap_lines(gaps))
    return RejectedError("HUB-E6216" if gaps else "HUB-E6206", ref=ref)


def gap_lines(gaps: Gaps) -> Iterator[str]:
    """A line for each part of the history that could not be read; none where the answer is complete."""
    if gaps.no_ledger:
        yield text(
            "（没有台账可读：命令和它们的结果不在其中，事件来自日志）",
            "(no ledger could be read: commands and their results are missing, events are from the log)",
        )
    if gaps.no_trail:
        yield text(
            "（没有日志的索引：台账已放掉的事件不在其中 → hub up，或 hub rebuild trail）",
            "(no index of the log: events that the ledger has let go of are missing → hub up, or hub rebuild trail)",
        )
    if gaps.unread:
        places = ", ".join(f"{partition}:{offset}" for partition, offset in [*gaps.unread][:MAX_NAMED])
        more = "…" if len(gaps.unread) > MAX_NAMED else ""
        why = (
            gaps.log_error.message()
            if gaps.log_error is not None
            else text("那里没有事件了", "there is no event any more")
        )
        line = text("（日志里的 {} 条事件没能读到：{}；{}{}）", "({} events of the log could not be read: {}; {}{})")
        yield line.format(len(gaps.unread), why, places, more)
    if gaps.behind:
        yield text(
            "（日志的索引还在追赶：只按编号找了最近的一部分）",
            "(the index of the log is catching up: bare ids were looked for among the newest only)",
        )
