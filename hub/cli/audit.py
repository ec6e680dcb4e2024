"""`hub audit`: proof, from the log, the ledger and the boards, that nothing was lost or done twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.auditing.report import MOST, Report
from hub.cli.as_typed import runnable
from hub.cli.audit_findings import GONE, UNANSWERED, fix, what
from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, say, speech, text
from hub.errors import FatalError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.event_log import EventLog
    from hub.home import Home


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
    """Compare what was accepted, what lies in the log, what was folded and done, and what the boards show.

    Exit 0: all holds, and nothing stands still. Exit 6: so it does, with work that is parked.
    """
    from hub.cli.running_hub import RunningHub
    from hub.cli.times import time_of
    from hub.cli.verdicts import verdict_of
    from hub.health.verdict import State
    from hub.health.words import as_value

    hub = RunningHub.of(home)
    report = full_audit(hub.home, hub.bootstrap, time_of(since) if outside else None, decisions=decisions)
    verdict = verdict_of(hub)
    report["health"] = as_value(verdict, speech.language)
    if json:
        answer(report)
    else:
        for line in lines(report):
            say(line)
    if not report["ok"] or verdict.state >= State.STALLED:
        raise typer.Exit(Exit.FAILED)
    if verdict.parked:
        raise typer.Exit(Exit.PARKED)


def full_audit(
    home: Home, bootstrap: str, outside_since: str | None = None, *, decisions: bool = False
) -> dict[str, Any]:
    """The whole balance: `ok`, `counts`, `boards`, and `findings`, each with its place and its fix. May run while the hub does.

    With a time, `outside` too: what each system says of what was done there since. With `decisions`, what the log's own rules give.

    Raises RetryableError while the broker or a database is away, FatalError for a home that has never run.
    """
    report = _of_log_and_ledger(home, bootstrap, decisions=decisions)
    boards = list(_boards(home, bootstrap))
    wrong = [found for found in boards if not found["equal"]]
    if wrong:
        names = sorted(str(found["board"]) for found in wrong)
        report["findings"].append(
            {
                "what": "boards that are not the fold of the log",
                "count": len(wrong),
                "examples": names,
                "place": "boards",
            }
        )
    asked = {} if outside_since is None else {"outside": list(_outside(home, bootstrap, outside_since))}
    report["findings"] += [finding for told in asked.get("outside", ()) for finding in _missing(told)]
    for finding in report["findings"]:
        finding["fix"] = fix(finding["what"])
    return {**report, "ok": not report["findings"], "boards": boards, **asked}


def _of_log_and_ledger(home: Home, bootstrap: str, *, decisions: bool) -> dict[str, Any]:
    from hub.audit import audit as compare
    from hub.auditing.boards import POSITIONS
    from hub.cli.running_hub import look_at
    from hub.kafka_log import KafkaLog
    from hub.ledger import conflicts, outbox, parked

    log = KafkaLog(home.kafka_client(bootstrap))

    def given() -> Mapping[int, int]:
        with look_at(home.ledger_url, "outbox") as later:
            return outbox.sequence_ends(later) if later is not None else {}

    with look_at(home.ledger_url, "outbox") as conn:
        if conn is None:
            raise FatalError("HUB-E5006", home=home.path)
        with look_at(home.boards_url, POSITIONS) as boards:
            report = compare(log, conn, _outbox_id(conn), datetime.now(UTC), given, boards).as_value()
        kinds, differing = parked.count(conn), sum(conflicts.counts(conn).values())
    report["counts"] |= {"deliveries_parked": kinds.get("delivery", 0), "conflicts": differing}
    return report


def _decide(found: Report, home: Home, log: EventLog, conn: Connection) -> None:
    """Fold the log under its own rules, and compare with what was asked for."""
    from hub.auditing import decisions
    from hub.home import RULES_HISTORY
    from hub.rules.book import RuleBook
    from hub.worker.rule_history import RuleHistory

    read = RuleHistory(log, home.data / RULES_HISTORY)
    read.refresh()
    decisions.compare(found, log, conn, RuleBook(read.history, home.environ))


def _outbox_id(conn: Connection) -> str:
    from sqlalchemy import select

    from hub.ledger.identity import identity

    found = select(identity.c.value).where(identity.c.name == "outbox")
    return str(conn.execute(found).scalar_one_or_none() or "")


def _boards(home: Home, bootstrap: str) -> Iterator[dict[str, Any]]:
    """Each board beside the fold of the log; one that could not be compared is not equal, and says why."""
    from hub.cli.other_programs import ask_of, error_of

    for told in ask_of(home, bootstrap, "projections.rebuilding", "--all", "--verify"):
        if "board" in told:
            yield told["board"]
        elif "error" in told:
            error = error_of(told["error"])
            board = told["error"].get("board", "?")
            yield {"board": board, "equal": False, "error": {"code": error.code, "message": error.message()}}


def _outside(home: Home, bootstrap: str, since: str) -> Iterator[dict[str, Any]]:
    """What each system says of what was done there."""
    from hub.cli.other_programs import ask_of, error_of

    for told in ask_of(home, bootstrap, "connectors.reconciling", "--since", since):
        if "error" in told:
            raise error_of(told["error"])
        yield told["outside"]


def _missing(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = str(told["instance"])
    if told["missing"]:
        names = [f"{gone['case']} {gone['type']} {gone['id']}" for gone in told["missing"]]
        yield {"what": GONE, "count": len(names), "examples": names[:MOST], "place": place}
    if told["unanswered"]:
        why = str(told["error"]["code"]) if told["error"] else ""
        yield {"what": UNANSWERED, "count": told["unanswered"], "examples": [why], "place": place}


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report for people."""
    counts = report["counts"]
    for zh, en, names in (*SHOWN, *(DECISIONS if "requests_given" in counts else ())):
        told = "  ".join(f"{text(*NAMES[name])} {counts.get(name, 0)}" for name in names)
        yield f"  {text(zh, en)}: {told}"
    for board in report["boards"]:
        yield f"  {text('看板', 'board')} {board['board']}: {_equality(board)}"
    for told in report.get("outside", ()):
        yield f"  {text('对方系统', 'outside')} {told['instance']}: {_answers(told)}"
    for finding in report["findings"]:
        yield f"  ✘ {what(finding['what'])}: {finding['count']}  {_few(finding['examples'])}"
        yield f"    {finding.get('place', '')} → {runnable(fix(finding['what']))}"
    if counts.get("conflicts"):  # no loss and nothing twice: what was told first is what counts
        told = text("同一版本又来了别的内容，以先到的为准", "told again with other content, the first stands")
        yield f"  ! {told}: {counts['conflicts']}  → {runnable('hub events conflicts')}"
    if report["ok"]:
        yield from _holds(report)


def _holds(report: Mapping[str, Any]) -> Iterator[str]:
    """The last line of a balance that holds: what it does not cover yet, if anything still waits."""
    waiting = "  ".join(
        f"{text(*NAMES[name])} {report['counts'][name]}" for name in PENDING if report["counts"].get(name)
    )
    health = report.get("health", {"status": "ok"})
    if not waiting and health["status"] == "ok":
        yield text(
            "  ✔ 核对无误：没有丢失，没有重复，看板与日志一致",
            "  ✔ all holds: nothing lost, nothing twice, boards equal the log",
        )
        return
    told = text("至此无误，但尚未处理完", "all holds so far, and not all is processed yet")
    why = "" if health["status"] == "ok" else f"  {health['sentence']}"
    yield f"  {'!' if health['status'] in ('ok', 'degraded') else '✘'} {told}: {waiting or '–'}{why}"


PENDING = ("on_their_way", "cases_behind", "commands_on_their_way")
"""What of the balance is under way."""


def _answers(told: Mapping[str, Any]) -> str:
    counted = {**told, "missing": len(told["missing"])}
    return text(
        "找到 {found}  找不到 {missing}  无应答 {unanswered}  无法查询 {unasked}  刚办完 {young}",
        "found {found}  missing {missing}  unanswered {unanswered}  cannot be asked for {unasked}  just done {young}",
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


SHOWN = (
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
DECISIONS = (
    (
        "按当时的规则重算",
        "folded under its own rules",
        ("requests_given", "requests_recorded", "requests_of_unknown_rules"),
    ),
)
NAMES = {
    "requests_given": ("给出请求", "requests given"),
    "requests_recorded": ("台账记录", "recorded"),
    "requests_of_unknown_rules": ("其中规则不可考", "of rules nobody knows any more"),
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
