"""`hub audit`: proves from the log, the ledger and the boards that nothing was lost or done twice.

Also holds the texts of every finding: its title in Chinese (the English is its name) and its fix in both languages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, runnable, say, speech, text
from hub.errors import FatalError
from hub.replay.audit.report import MAX_EXAMPLES, Report


class FindingTexts(NamedTuple):
    """A finding in Chinese (its English is its name), and the fix in both languages."""

    zh: str
    fix_zh: str
    fix_en: str


_REPAIR = ("hub repair 补齐或说明缺口", "close the gap: hub repair")
_BOARD = ("重建看板：hub rebuild", "build the board again: hub rebuild")
_STATE = (
    "停掉 hub，运行 hub repair state，再 hub up：从日志重算；请附上本次核对结果报告此事",
    "stop the hub, run hub repair state, then hub up, to fold the log again; and please report it with the audit's output",
)
_RUNNING = ("确认 hub 在运行：hub status，hub doctor", "see that the hub runs: hub status, hub doctor")
_PARKED = ("hub parked list 对照，再 hub parked retry", "compare with hub parked list, then hub parked retry")
_LEDGER = (
    "台账缺行：从备份恢复台账，再运行 hub audit",
    "the ledger lacks rows: restore it from its backup, then hub audit",
)

NOT_FOUND_OUTSIDE, UNANSWERED = "done, but not found in its system", "done, and its system gave no answer"
FINDINGS = {
    NOT_FOUND_OUTSIDE: FindingTexts(
        "已办，对方系统里却找不到",
        "在对方系统查看是否有人删除；若从未有过，请人工补做（hub why 看它从何而来）",
        "see in that system whether somebody deleted it; if it never was there, do it by hand (hub why shows where it came from)",
    ),
    UNANSWERED: FindingTexts(
        "已办，但对方系统没有应答",
        "hub connectors check，恢复后再核对一次",
        "hub connectors check, and audit again once it answers",
    ),
    "published, but not in the log": FindingTexts("已发布，日志中却没有", *_REPAIR),
    "published and trimmed, but not in the log": FindingTexts("已发布并精简，日志中却没有", *_REPAIR),
    "not in the log after too long": FindingTexts("收下很久了，日志中仍没有", *_RUNNING),
    "gaps in the sequence of partition": FindingTexts("序号有缺口，分区", *_REPAIR),
    "partitions with sequences that the ledger never gave": FindingTexts(
        "日志中的序号台账从未给出，分区",
        "台账比日志旧，或有别的程序写入日志：核对备份与写权限",
        "the ledger is older than the log, or somebody else writes to it: check backups and the right to write",
    ),
    "events that were acted on, and that this hub never took in": FindingTexts(
        "hub 从未收下、却已照办的事件（偏移：类型 id）",
        "有别的程序写入日志：收回它的写权限（内置 Kafka：停机，删掉 .hub/kafka/secret，再启动），用 hub why 查看由此办了什么",
        "another program writes to the log: take its right to write away (embedded broker: stop, delete .hub/kafka/secret, start),"
        " and see with hub why what was done because of it",
    ),
    "events that came twice, under two sequences": FindingTexts(
        "同一事件以两个序号写入了日志",
        "台账可能从备份恢复过：对照 hub why，必要时放弃多出的任务",
        "the ledger may have been restored from a backup: look at hub why, and give up what was requested twice",
    ),
    "cases whose last event the processor has not folded": FindingTexts("最后的事件迟迟没有处理的链条", *_RUNNING),
    "objects of cases that are not the fold of the log": FindingTexts("处理状态与日志不一致的对象", *_STATE),
    "events that were folded before what is parked in front of them": FindingTexts(
        "越过停放事件先行处理的事件", *_STATE
    ),
    "cases that were forgotten before they were over": FindingTexts("尚未结束就被遗忘的链条", *_STATE),
    "records that a forgotten case would not come back with": FindingTexts("被遗忘的链条恢复时会漏掉的记录", *_STATE),
    "records that are neither folded, parked nor given up": FindingTexts("既未处理、也未停放或放弃的记录", *_STATE),
    "cases that the log does not tell of": FindingTexts("日志中没有的链条", *_STATE),
    "views that are not the fold of the log": FindingTexts("与日志不一致的共享视图", *_STATE),
    "objects that the shared view lacks": FindingTexts("共享视图中缺少的对象", *_STATE),
    "records of the shared view that cannot be read": FindingTexts(
        "共享视图中读不懂的记录",
        "找出写入该主题的程序并收回写权限",
        "find who writes to that topic, and take that right away",
    ),
    "rows of a board that are not the fold of the log": FindingTexts("与日志不一致的看板行", *_BOARD),
    "rows that a board lacks": FindingTexts("看板缺少的行", *_BOARD),
    "rows of a board that the log does not tell of": FindingTexts("日志中没有的看板行", *_BOARD),
    "boards that are not the fold of the log": FindingTexts("与日志不一致的看板", *_BOARD),
    "calls in doubt after too long": FindingTexts("结果不明已久的调用", *_RUNNING),
    "commands that were read and are not in the ledger": FindingTexts("读过却不在台账中的命令", *_LEDGER),
    "parked commands that no list shows": FindingTexts("停放了却不在清单中的命令", *_LEDGER),
    "parked events that no list shows": FindingTexts("停放了却不在清单中的事件", *_PARKED),
    "listed as parked, but held nowhere": FindingTexts("列为停放、实际却没有停放的事件", *_PARKED),
    "requests that the log's own rules do not give": FindingTexts(
        "按日志自己的规则不该有的请求",
        "hub why 看它从何而来；旧版本曾按后来的规则重算过旧事件：必要时放弃多出的任务",
        "see with hub why where it came from; older versions folded the past under later rules: give up what is too much",
    ),
    "requests that the log's own rules give, and the ledger lacks": FindingTexts(
        "按日志自己的规则应有、台账却没有的请求", *_LEDGER
    ),
    "effects that no event tells of": FindingTexts("办成了却没有事件记载的命令", *_LEDGER),
}
"""Keyed by the finding's English name, or by the start of a name that ends in a variable part."""


def _known(finding: str) -> str | None:
    return next((known for known in FINDINGS if finding.startswith(known)), None)


def what(finding: str) -> str:
    """The finding's title, in the reader's language."""
    start = _known(finding)
    return finding if start is None else text(FINDINGS[start].zh, start) + finding.removeprefix(start)


def fix(finding: str) -> str:
    """The finding's fix, in the reader's language; empty for an unknown finding."""
    start = _known(finding)
    return "" if start is None else text(FINDINGS[start].fix_zh, FINDINGS[start].fix_en)


if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.home import Home
    from hub.log.event_log import EventLog


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "audit", help="核对：收到的 = 已处理 + 停放，没有丢失和重复 · prove that nothing was lost or done twice"
    )(audit)


def audit(
    home: HomeOption = HERE,
    outside: Annotated[
        bool, typer.Option("--outside", help="并向对方系统逐条核对已办的结果 · also ask each system for what was done")
    ] = False,
    since: Annotated[
        str, typer.Option(help="--outside 核对从何时起：1d、2h 或时间 · since when: 1d, 2h, or a time")
    ] = "1d",
    decisions: Annotated[
        bool,
        typer.Option(
            "--decisions",
            help="并按当时的规则重算全部请求 · also fold the log under its own rules: every request, no more",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare what the ledger accepted, what the log holds, what was folded and executed, and what the boards show.

    Exit 0: no finding, and the hub is not stalled. Exit 6: the same, with parked work. Exit 1: a finding, or a stalled hub.
    """
    from hub.cli.health_summary import health_of
    from hub.cli.render import time_of
    from hub.cli.running_hub import RunningHub
    from hub.health.status import HealthState
    from hub.health.words import status_value

    hub = RunningHub.of(home)
    report = full_audit(hub.home, hub.bootstrap, time_of(since) if outside else None, decisions=decisions)
    status = health_of(hub)
    report["health"] = status_value(status, speech.language)
    if json:
        answer(report)
    else:
        for line in lines(report):
            say(line)
    if not report["ok"] or status.state >= HealthState.STALLED:
        raise typer.Exit(Exit.FAILED)
    if status.parked:
        raise typer.Exit(Exit.PARKED)


def full_audit(
    home: Home, bootstrap: str, outside_since: str | None = None, *, decisions: bool = False
) -> dict[str, Any]:
    """The whole report: `ok`, `counts`, `boards`, and `findings`, each with its place and its fix. May run while the hub does.

    With `outside_since` (a time), also `outside`: each system's answers about the effects done there since then. With
    `decisions`, the log is also folded under the rules of its time and compared with the recorded commands.

    Raises RetryableError while the broker or a database is unavailable, FatalError for a home that has never run.
    """
    report = _of_log_and_ledger(home, bootstrap, decisions=decisions)
    boards = list(_boards(home, bootstrap))
    differing = [board for board in boards if not board["equal"]]
    if differing:
        names = sorted(str(board["board"]) for board in differing)
        report["findings"].append(
            {
                "what": "boards that are not the fold of the log",
                "count": len(differing),
                "examples": names,
                "place": "boards",
            }
        )
    outside = {} if outside_since is None else {"outside": list(_outside(home, bootstrap, outside_since))}
    report["findings"] += [finding for answers in outside.get("outside", ()) for finding in _missing(answers)]
    for finding in report["findings"]:
        finding["fix"] = fix(finding["what"])
    return {**report, "ok": not report["findings"], "boards": boards, **outside}


def _of_log_and_ledger(home: Home, bootstrap: str, *, decisions: bool) -> dict[str, Any]:
    from hub.ledger import conflicts, outbox, parked
    from hub.ledger.ledger import read_snapshot
    from hub.log.kafka_log import KafkaLog
    from hub.replay.audit.audit import audit as compare
    from hub.replay.audit.boards import POSITIONS

    log = KafkaLog(home.kafka_client(bootstrap))

    def given() -> Mapping[int, int]:
        with read_snapshot(home.ledger_url, "outbox") as later:
            return outbox.sequence_ends(later) if later is not None else {}

    with read_snapshot(home.ledger_url, "outbox") as conn:
        if conn is None:
            raise FatalError("HUB-E5006", home=home.path)
        with read_snapshot(home.boards_url, POSITIONS) as boards:
            found = compare(log, conn, _outbox_id(conn), datetime.now(UTC), given, boards)
        if decisions:
            _compare_decisions(found, home, log, conn)
        kinds, differing = parked.count(conn), sum(conflicts.counts(conn).values())
    report = found.as_value()
    report["counts"] |= {"deliveries_parked": kinds.get("delivery", 0), "conflicts": differing}
    return report


def _compare_decisions(report: Report, home: Home, log: EventLog, conn: Connection) -> None:
    """Fold the log under the rules of its time, and compare the resulting commands with the recorded ones."""
    from hub.home import RULES_HISTORY
    from hub.processor.rule_history import RuleHistory
    from hub.replay.audit import decisions
    from hub.rules.book import RuleBook

    rules = RuleHistory(log, home.data / RULES_HISTORY)
    rules.refresh()
    decisions.compare(report, log, conn, RuleBook(rules.history, home.environ))


def _outbox_id(conn: Connection) -> str:
    from sqlalchemy import select

    from hub.ledger.identity import identity

    query = select(identity.c.value).where(identity.c.name == "outbox")
    return str(conn.execute(query).scalar_one_or_none() or "")


def _boards(home: Home, bootstrap: str) -> Iterator[dict[str, Any]]:
    """Each board compared with the fold of the log; a board that could not be compared is not equal, and carries the error."""
    from hub.cli.other_programs import ask_of, error_of

    for line in ask_of(home, bootstrap, "hub.projector.rebuilding", "--all", "--verify"):
        if "board" in line:
            yield line["board"]
        elif "error" in line:
            error = error_of(line["error"])
            board = line["error"].get("board", "?")
            yield {"board": board, "equal": False, "error": {"code": error.code, "message": error.message()}}


def _outside(home: Home, bootstrap: str, since: str) -> Iterator[dict[str, Any]]:
    """Each system's answers about the effects done there since `since`; raises the program's error."""
    from hub.cli.other_programs import ask_of, error_of

    for line in ask_of(home, bootstrap, "hub.ops.reconciling", "--since", since):
        if "error" in line:
            raise error_of(line["error"])
        yield line["outside"]


def _missing(answers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The findings in one system's answers: effects that it does not have, and effects that it could not confirm."""
    place = str(answers["instance"])
    if answers["missing"]:
        names = [f"{effect['case']} {effect['type']} {effect['id']}" for effect in answers["missing"]]
        yield {"what": NOT_FOUND_OUTSIDE, "count": len(names), "examples": names[:MAX_EXAMPLES], "place": place}
    if answers["unanswered"]:
        why = str(answers["error"]["code"]) if answers["error"] else ""
        yield {"what": UNANSWERED, "count": answers["unanswered"], "examples": [why], "place": place}


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    counts = report["counts"]
    for zh, en, names in (*COUNT_LINES, *(DECISION_LINES if "requests_given" in counts else ())):
        listed = "  ".join(f"{text(*COUNT_NAMES[name])} {counts.get(name, 0)}" for name in names)
        yield f"  {text(zh, en)}: {listed}"
    for board in report["boards"]:
        yield f"  {text('看板', 'board')} {board['board']}: {_equality(board)}"
    for answers in report.get("outside", ()):
        yield f"  {text('对方系统', 'outside')} {answers['instance']}: {_answer_counts(answers)}"
    for finding in report["findings"]:
        yield f"  ✘ {what(finding['what'])}: {finding['count']}  {_few(finding['examples'])}"
        yield f"    {finding.get('place', '')} → {runnable(fix(finding['what']))}"
    if counts.get("conflicts"):  # no loss and no duplicate: the first delivered content is the one in effect
        note = text("同一版本又来了别的内容，以先到的为准", "delivered again with other content, the first counts")
        yield f"  ! {note}: {counts['conflicts']}  → {runnable('hub events conflicts')}"
    if report["ok"]:
        yield from _holds(report)


def _holds(report: Mapping[str, Any]) -> Iterator[str]:
    """The last line of a report without findings: what is not processed yet, if anything still waits."""
    waiting = "  ".join(
        f"{text(*COUNT_NAMES[name])} {report['counts'][name]}" for name in PENDING if report["counts"].get(name)
    )
    health = report.get("health", {"status": "ok"})
    if not waiting and health["status"] == "ok":
        yield text(
            "  ✔ 核对无误：没有丢失，没有重复，看板与日志一致",
            "  ✔ all holds: nothing lost, nothing twice, boards equal the log",
        )
        return
    result = text("至此无误，但尚未处理完", "all holds so far, and not all is processed yet")
    why = "" if health["status"] == "ok" else f"  {health['sentence']}"
    yield f"  {'!' if health['status'] in ('ok', 'degraded') else '✘'} {result}: {waiting or '–'}{why}"


PENDING = ("on_their_way", "cases_behind", "commands_on_their_way")
"""Counts of work in progress."""


def _answer_counts(answers: Mapping[str, Any]) -> str:
    counted = {**answers, "missing": len(answers["missing"])}
    return text(
        "找到 {found}  找不到 {missing}  无应答 {unanswered}  无法查询 {unasked}  刚办完 {young}",
        "found {found}  missing {missing}  unanswered {unanswered}  cannot be looked up {unasked}  just done {young}",
    ).format_map(counted)


def _equality(board: Mapping[str, Any]) -> str:
    if board["equal"]:
        return text("与日志一致，{rows} 行", "equals the log, {rows} rows").format_map(board)
    if "error" in board:
        return f"✘ {board['error']['code']} {board['error']['message']}"
    if board["live"] is None:
        return text("✘ 还没有建立 → hub rebuild {board}", "✘ not there yet → hub rebuild {board}").format_map(board)
    return text(
        "✘ 与日志不一致，{differing_count} 行 → hub rebuild {board}",
        "✘ differs from the log in {differing_count} rows → hub rebuild {board}",
    ).format_map(board)


def _few(examples: Iterable[str]) -> str:
    return ", ".join(list(examples)[:3])


COUNT_LINES = (
    ("接入", "intake", ("accepted", "on_their_way", "deliveries_parked")),
    ("日志", "log", ("in_the_log", "repeats", "ignored", "unreadable")),
    (
        "处理",
        "processor",
        ("cases", "cases_forgotten", "events_applied", "events_parked", "events_discarded", "cases_behind"),
    ),
    (
        "命令",
        "commands",
        ("commands", "commands_done", "commands_on_their_way", "commands_parked", "commands_discarded"),
    ),
)
DECISION_LINES = (
    (
        "按当时的规则重算",
        "folded under its own rules",
        ("requests_given", "requests_recorded", "requests_of_unknown_rules"),
    ),
)
COUNT_NAMES = {
    "requests_given": ("给出请求", "requests given"),
    "requests_recorded": ("台账记录", "recorded"),
    "requests_of_unknown_rules": ("其中规则不可考", "of rules that are no longer known"),
    "accepted": ("已收下", "accepted"),
    "on_their_way": ("在途", "on their way"),
    "deliveries_parked": ("推送停放", "deliveries parked"),
    "in_the_log": ("事件", "events"),
    "repeats": ("重复写入", "written again"),
    "ignored": ("未匹配", "matched nothing"),
    "unreadable": ("读不懂", "unreadable"),
    "cases": ("链条", "cases"),
    "events_applied": ("已处理", "applied"),
    "events_parked": ("停放", "parked"),
    "events_discarded": ("放弃", "discarded"),
    "cases_forgotten": ("其中已遗忘", "of them forgotten"),
    "cases_behind": ("尚未处理完", "cases behind"),
    "commands": ("全部", "all"),
    "commands_done": ("已办", "done"),
    "commands_on_their_way": ("在途", "on their way"),
    "commands_parked": ("停放", "parked"),
    "commands_discarded": ("放弃", "discarded"),
}
