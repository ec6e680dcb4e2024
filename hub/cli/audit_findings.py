"""Every finding of the audit in words: what it is in Chinese, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple

from hub.cli.terminal import text


class Words(NamedTuple):
    """A finding in Chinese (its English is its name), and the fix in both languages."""

    zh: str
    fix_zh: str
    fix_en: str


_REPAIR = ("hub repair 补齐或说明缺口", "close the gap: hub repair")
_BOARD = ("重建看板：hub rebuild", "build the board again: hub rebuild")
_STATE = (
    "停掉 hub，运行 hub repair state，再 hub up：从日志重算；请附上本次核对结果报告此事",
    "stop the hub, run hub repair state, then hub up, to fold the log anew; and please report it with the audit's output",
)
_RUNNING = ("确认 hub 在运行：hub status，hub doctor", "see that the hub runs: hub status, hub doctor")
_PARKED = ("hub parked list 对照，再 hub parked retry", "compare with hub parked list, then hub parked retry")
_LEDGER = (
    "台账缺行：从备份恢复台账，再运行 hub audit",
    "the ledger lacks rows: restore it from its backup, then hub audit",
)

GONE, UNANSWERED = "done, but not found in its system", "done, and its system gave no answer"
FINDINGS = {
    GONE: Words(
        "已办，对方系统里却找不到",
        "在对方系统查看是否有人删除；若从未有过，请人工补做（hub why 看它从何而来）",
        "see in that system whether somebody deleted it; if it never was there, do it by hand (hub why tells where it came from)",
    ),
    UNANSWERED: Words(
        "已办，但对方系统没有应答",
        "hub connectors check，恢复后再核对一次",
        "hub connectors check, and audit again once it answers",
    ),
    "published, but not in the log": Words("已发布，日志中却没有", *_REPAIR),
    "published and trimmed, but not in the log": Words("已发布并精简，日志中却没有", *_REPAIR),
    "not in the log after too long": Words("收下很久了，日志中仍没有", *_RUNNING),
    "gaps in the sequence of partition": Words("序号有缺口，分区", *_REPAIR),
    "partitions with sequences that the ledger never gave": Words(
        "日志中的序号台账从未给出，分区",
        "台账比日志旧，或有别的程序写入日志：核对备份与写权限",
        "the ledger is older than the log, or somebody else writes to it: check backups and the right to write",
    ),
    "events that were acted on, and that this hub never took in": Words(
        "hub 从未收下、却已照办的事件（偏移：类型 id）",
        "有别的程序写入日志：收回它的写权限（内置 Kafka：停机，删掉 .hub/kafka/secret，再启动），用 hub why 查看由此办了什么",
        "another program writes to the log: take its right to write away (embedded broker: stop, delete .hub/kafka/secret, start),"
        " and see with hub why what was done because of it",
    ),
    "events that came twice, under two sequences": Words(
        "同一事件以两个序号写入了日志",
        "台账可能从备份恢复过：对照 hub why，必要时放弃多出的任务",
        "the ledger may have been restored from a backup: look at hub why, and give up what was asked for twice",
    ),
    "cases whose last event the processor has not folded": Words("最后的事件迟迟没有处理的链条", *_RUNNING),
    "objects of cases that are not the fold of the log": Words("处理状态与日志不一致的对象", *_STATE),
    "events that were folded before what is parked in front of them": Words("越过停放事件先行处理的事件", *_STATE),
    "cases that were forgotten before they were over": Words("尚未结束就被遗忘的链条", *_STATE),
    "records that a forgotten case would not come back with": Words("被遗忘的链条恢复时会漏掉的记录", *_STATE),
    "records that are neither folded, parked nor given up": Words("既未处理、也未停放或放弃的记录", *_STATE),
    "cases that the log does not tell of": Words("日志中没有的链条", *_STATE),
    "views that are not the fold of the log": Words("与日志不一致的共享视图", *_STATE),
    "objects that the shared view lacks": Words("共享视图中缺少的对象", *_STATE),
    "records of the shared view that cannot be read": Words(
        "共享视图中读不懂的记录",
        "找出写入该主题的程序并收回写权限",
        "find who writes to that topic, and take that right away",
    ),
    "rows of a board that are not the fold of the log": Words("与日志不一致的看板行", *_BOARD),
    "rows that a board lacks": Words("看板缺少的行", *_BOARD),
    "rows of a board that the log does not tell of": Words("日志中没有的看板行", *_BOARD),
    "boards that are not the fold of the log": Words("与日志不一致的看板", *_BOARD),
    "calls in doubt after too long": Words("结果不明已久的调用", *_RUNNING),
    "commands that were read and are not in the ledger": Words("读过却不在台账中的命令", *_LEDGER),
    "parked commands that no list shows": Words("停放了却不在清单中的命令", *_LEDGER),
    "parked events that no list shows": Words("停放了却不在清单中的事件", *_PARKED),
    "listed as parked, but held nowhere": Words("列为停放、实际却没有停放的事件", *_PARKED),
    "requests that the log's own rules do not give": Words(
        "按日志自己的规则不该有的请求",
        "hub why 看它从何而来；旧版本曾按后来的规则重算过旧事件：必要时放弃多出的任务",
        "see with hub why where it came from; older versions folded the past under later rules: give up what is too much",
    ),
    "requests that the log's own rules give, and the ledger lacks": Words(
        "按日志自己的规则应有、台账却没有的请求", *_LEDGER
    ),
    "effects that no event tells of": Words("办成了却没有事件记载的命令", *_LEDGER),
}
"""By its English name, or how that begins."""


def _known(finding: str) -> str | None:
    return next((known for known in FINDINGS if finding.startswith(known)), None)


def what(finding: str) -> str:
    """What was found, in the reader's language."""
    start = _known(finding)
    return finding if start is None else text(FINDINGS[start].zh, start) + finding.removeprefix(start)


def fix(finding: str) -> str:
    """What to do about it, in the reader's language."""
    start = _known(finding)
    return "" if start is None else text(FINDINGS[start].fix_zh, FINDINGS[start].fix_en)
