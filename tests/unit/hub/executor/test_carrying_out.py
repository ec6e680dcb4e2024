"""Commands against systems that answer, refuse, break off and ask to wait."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
import structlog
from sqlalchemy import Connection

from hub.errors import FatalError, RejectedError, RetryableError, UncertainError, UnreadableError
from hub.executor import command_consumer, executor, instances, retry_policy
from hub.executor import executor as dispatcher
from hub.executor.instances import FAILURE_THRESHOLD
from hub.executor.retry_policy import MAX_CRASHES
from hub.kit.connector import Idempotency, RateLimits
from hub.ledger import commands, parked, parked_work
from hub.ledger.database import AnyRow
from schemas.envelope import format_time, promise
from tests.executor_bench import Bench, command

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of the length that a test can bear; how long they are in truth is tested where they are reckoned."""
    monkeypatch.setattr(retry_policy, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(retry_policy, "MAX_DELAY_S", 0.5)
    monkeypatch.setattr(instances, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(instances, "MAX_PAUSE_S", 0.5)
    monkeypatch.setattr(instances, "MAX_REFUSED_PAUSE_S", 0.5)
    monkeypatch.setattr(dispatcher, "POLL_INTERVAL_S", 0.1)
    monkeypatch.setattr(command_consumer, "POLL_WAIT_S", 0.05)
    monkeypatch.setattr(executor, "OUTAGE_RETRY_S", 0.1)


def away() -> RetryableError:
    return RetryableError("HUB-E4005", instance="pm", reason="away")


def doubt() -> UncertainError:
    return UncertainError("HUB-E4002", instance="pm", reason="no answer")


def never() -> RejectedError:
    return RejectedError("HUB-E4006", instance="pm", reason="no such project")


def test_a_case_keeps_its_order_while_others_pass_it(bench: Bench) -> None:
    pm = bench.system("pm")
    pm.refuse = lambda asked: away() if asked.id == first.id and len(pm.sent) < 20 else None
    first, *rest = [command(n, case="opportunity/crm/slow") for n in range(4)]
    others = [command(0, case=f"opportunity/crm/{n}") for n in range(20)]
    with bench.running():
        bench.ask(first, *rest, *others)
        bench.until_states("DONE", others)
        bench.until_states("DONE", [first, *rest])
    ours = [sent.id for sent in pm.sent if sent.case == first.case]
    assert list(dict.fromkeys(ours)) == [first.id, *(asked.id for asked in rest)]
    assert ours.count(first.id) > 1
    created = [event.causationid for event in bench.events("work.task.created") if event.case == first.case]
    assert created == [first.id, *(asked.id for asked in rest)]


def test_cases_are_worked_on_side_by_side_up_to_the_limit(bench: Bench) -> None:
    together = threading.Barrier(4)
    pm = bench.system("pm", limits=RateLimits(per_second=10_000, at_once=4, timeout=5))
    pm.before = [lambda: together.wait(10) for _ in range(8)]
    asked = [command(0, case=f"opportunity/crm/{n}") for n in range(8)]
    with bench.running():
        bench.ask(*asked)
        bench.until_states("DONE", asked)
    assert pm.most_at_once == 4


def test_a_system_that_hangs_holds_up_no_other(bench: Bench) -> None:
    hang = threading.Event()
    pm, im = bench.system("pm"), bench.system("im")
    pm.before = [lambda: hang.wait(20) for _ in range(8)]
    stuck = [command(0, case=f"opportunity/crm/{n}") for n in range(8)]
    others = [command(1, case=f"opportunity/crm/m{n}", type_="message.send", instance="im") for n in range(20)]
    with bench.running():
        bench.ask(*stuck)
        bench.until(lambda: len(pm.sent) == 8)
        bench.ask(*others)
        bench.until_states("DONE", others)
        assert {bench.row(asked).state for asked in stuck} == {"SENDING"}
        hang.set()
        bench.until_states("DONE", stuck)
    assert len(im.effects) == 20


@pytest.mark.parametrize("once", [Idempotency.KEY, Idempotency.LOOKUP])
def test_no_answer_after_the_work_was_done_does_it_once(bench: Bench, once: Idempotency) -> None:
    pm = bench.system("pm", class_=once)
    pm.after = [doubt()]
    with bench.running():
        bench.ask(command())
        bench.until_states("DONE", [command()])
    assert dict(pm.effects) == {command().id: 1}
    assert len(pm.sent) == (2 if once is Idempotency.KEY else 1)
    assert len(pm.looked) == (0 if once is Idempotency.KEY else 1)
    assert len(bench.events("work.task.created")) == 1


@pytest.mark.parametrize("once", [Idempotency.KEY, Idempotency.LOOKUP])
def test_no_answer_before_the_work_was_done_does_it_after_all(bench: Bench, once: Idempotency) -> None:
    pm = bench.system("pm", class_=once)
    pm.before = [doubt()]
    with bench.running():
        bench.ask(command())
        bench.until_states("DONE", [command()])
    assert dict(pm.effects) == {command().id: 1}
    assert len(pm.sent) == 2
    assert bench.row(command()).attempts == 2


def test_a_look_that_fails_is_repeated_and_nothing_is_sent_in_between(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.LOOKUP)
    pm.after = [doubt()]
    pm.finding = [away(), doubt(), ZeroDivisionError()]
    with bench.running():
        bench.ask(command())
        bench.until_states("DONE", [command()])
    assert (len(pm.sent), len(pm.looked)) == (1, 4)
    assert dict(pm.effects) == {command().id: 1}


def test_a_doubt_that_nobody_can_look_up_waits_for_a_person(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.NONE)
    pm.after = [doubt()]
    with bench.running():
        bench.ask(command(0), command(1))
        bench.until_states("PARKED", [command(0)])
        bench.ledger.writer.run(lambda conn: parked_work.discard(conn, command(0).id, "done over there", NOW))
        bench.until_states("DONE", [command(1)])
    assert pm.effects == {command(0).id: 1, command(1).id: 1}
    [note] = bench.events("hub.command.parked")
    assert note.data["code"] == "HUB-E4065"
    assert [event.data["reason"] for event in bench.events("hub.command.failed")] == ["done over there"]


@pytest.mark.parametrize("once", [Idempotency.KEY, Idempotency.LOOKUP])
def test_answers_that_tell_nothing_park_in_the_end_and_a_retry_does_it_once(bench: Bench, once: Idempotency) -> None:
    pm = bench.system("pm", class_=once, limits=RateLimits(10_000, 8, 5, 0.01, tries=3))
    unread = UnreadableError("HUB-E4205", instance="pm", setting="send.task.create.id", reason="{}")
    (pm.after if once is Idempotency.KEY else pm.finding).extend([unread] * 3)
    if once is Idempotency.LOOKUP:
        pm.after.append(doubt())
    asked, other = command(), command(case="opportunity/crm/other")
    with bench.running():
        bench.ask(asked)
        bench.until_states("PARKED", [asked])
        bench.ask(other)
        bench.until_states("DONE", [other])
        (entry,) = _open(bench)
        assert (entry.code, entry.seen["tries"], entry.seen["cause"]) == ("HUB-E4071", 3, "HUB-E4205")
        bench.ledger.writer.run(lambda conn: parked_work.retry(conn, asked.id, NOW))
        bench.until_states("DONE", [asked])
    assert pm.effects[asked.id] == 1


def test_a_refused_command_parks_its_case_waits_and_a_retry_goes_on_in_order(bench: Bench) -> None:
    pm = bench.system("pm")
    bad, after, other = command(0), command(1), command(0, case="opportunity/crm/O-2")
    wrong = {"project": True}
    pm.refuse = lambda asked: never() if wrong["project"] and asked.id == bad.id else None
    with bench.running():
        bench.ask(bad, after, other)
        bench.until_states("PARKED", [bad])
        bench.until_states("DONE", [other])
        [row] = _open(bench)
        assert (row.ref, row.kind, row.code, row.case_id) == (f"command/{bad.id}", "command", "HUB-E4006", bad.case)
        assert (row.rule, row.instance, row.body, row.seen["reason"]) == (
            "won-deal",
            "pm",
            bad.to_json(),
            "no such project",
        )
        assert bench.row(after).state == "NEW"
        wrong["project"] = False
        assert bench.ledger.writer.run(lambda conn: parked_work.retry(conn, bad.id, NOW, "person/li.lei"))
        bench.until_states("DONE", [bad, after])
    assert _open(bench) == []
    assert [sent.id for sent in pm.sent if sent.case == bad.case] == [bad.id, bad.id, after.id]
    [note] = bench.events("hub.parked.retried")
    assert note.data == {"parked": bad.id, "reason": None, "by": "person/li.lei"}
    assert not bench.ledger.writer.run(lambda conn: parked_work.retry(conn, bad.id, NOW))


def test_a_person_without_an_account_parks_and_goes_on_after_the_fix(bench: Bench) -> None:
    pm = bench.system("pm")
    bench.people.missing.add("person/li.lei")
    project = command(0, type_="project.create", name="交付")
    task = command(1, title="启动会", assignee="person/li.lei", project=promise(project.id))
    last = command(2, title="实施方案", assignee="person/lin.tao")
    with bench.running():
        bench.ask(project, task, last)
        bench.until_states("PARKED", [task])
        assert "person/li.lei" in bench.row(task).reason
        assert [sent.id for sent in pm.sent] == [project.id]
        bench.people.missing.clear()
        bench.ledger.writer.run(lambda conn: parked_work.retry(conn, task.id, NOW))
        bench.until_states("DONE", [project, task, last])
    assert [sent.id for sent in pm.sent] == [project.id, task.id, last.id]
    assert pm.sent[1].arguments["assignee"] == "li.lei@pm"


def test_what_rests_on_a_command_that_was_given_up_parks(bench: Bench) -> None:
    bench.system("pm").refuse = lambda asked: never() if asked.type == "project.create" else None
    project, task = command(0, type_="project.create", name="交付"), command(1, project=promise(command(0).id))
    with bench.running():
        bench.ask(project, task)
        bench.until_states("PARKED", [project])
        bench.ledger.writer.run(lambda conn: parked_work.discard(conn, project.id, "not wanted", NOW))
        bench.until_states("PARKED", [task])
    assert bench.row(task).code == "HUB-E4063"


def test_an_instance_or_a_type_that_nobody_serves_parks_until_it_is_connected(bench: Bench) -> None:
    bench.system("im", command_types=frozenset({"message.send"}))
    nobody, unable = command(0, case="opportunity/crm/A"), command(0, case="opportunity/crm/B", instance="im")
    with bench.running() as running:
        bench.ask(nobody, unable)
        bench.until_states("PARKED", [nobody, unable])
        assert (bench.row(nobody).code, bench.row(unable).code) == ("HUB-E4061", "HUB-E4062")
        bench.system("pm")
        running.use(connectors=bench.connectors())
        bench.ledger.writer.run(lambda conn: parked_work.retry(conn, nobody.id, NOW))
        bench.until_states("DONE", [nobody])


def test_retry_after_is_kept_by_the_whole_instance(bench: Bench) -> None:
    pm = bench.system("pm", limits=RateLimits(per_second=10_000, at_once=1, timeout=5))
    pm.before = [RetryableError("HUB-E4004", retry_after=0.7, instance="pm")]
    asked = [command(0, case=f"opportunity/crm/{n}") for n in range(5)]
    with bench.running():
        bench.ask(*asked)
        bench.until_states("DONE", asked)
    first, second, *_ = pm.sent_at
    assert second - first >= 0.7
    assert len(pm.sent) == 6


def test_the_rate_of_an_instance_is_kept(bench: Bench) -> None:
    pm = bench.system("pm", limits=RateLimits(per_second=50, at_once=2, timeout=5))
    asked = [command(0, case=f"opportunity/crm/{n}") for n in range(40)]
    with bench.running():
        bench.ask(*asked)
        bench.until_states("DONE", asked)
    assert pm.sent_at[-1] - pm.sent_at[0] >= (40 - 2 - 1) / 50


def test_a_system_that_is_away_is_tried_by_one_call_at_a_time_and_nothing_parks(bench: Bench) -> None:
    pm = bench.system("pm")
    down = {"now": True}
    pm.refuse = lambda _asked: away() if down["now"] else None
    asked = [command(0, case=f"opportunity/crm/{n}") for n in range(30)]
    with structlog.testing.capture_logs() as said, bench.running():
        bench.ask(*asked)
        bench.until(lambda: any(line["event"] == "instance.paused" for line in said))
        under_way = len(pm.sent) + pm.limits.at_once
        bench.until(lambda: len(pm.sent) > under_way)
        pm.most_at_once = 0  # from here on every call is a trial
        bench.until(lambda: len(pm.sent) > under_way + 3)
        assert pm.most_at_once == 1
        down["now"] = False
        bench.until_states("DONE", asked)
    assert bench.events("hub.command.parked") == []
    assert [line["event"] for line in said if line.get("instance") == "pm"] == [
        "instance.paused",
        "instance.back",
    ]


@pytest.mark.parametrize("error", [away(), doubt(), FatalError("HUB-E4003", instance="pm", login="hub")])
def test_commands_that_always_fail_keep_no_good_one_from_its_turn(bench: Bench, error: Exception) -> None:
    pm = bench.system("pm")
    bad = [command(0, case=f"opportunity/crm/bad-{n}") for n in range(FAILURE_THRESHOLD + 3)]
    good = [command(0, case=f"opportunity/crm/good-{n}") for n in range(4)]
    pm.refuse = lambda asked: error if "bad" in asked.case else None
    with bench.running():
        bench.ask(*bad)
        bench.until(lambda: len(pm.sent) > 2 * len(bad))
        for one in good:
            bench.ask(one)
            bench.until_states("DONE", [one])
    assert {bench.row(one).state for one in bad} <= {"RETRY", "UNKNOWN"}


def test_refused_credentials_pause_the_instance_once_and_cost_no_attempt(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.LOOKUP)
    locked = {"now": True}
    pm.refuse = lambda _asked: FatalError("HUB-E4003", instance="pm", login="hub") if locked["now"] else None
    asked = [command(0, case=f"opportunity/crm/{n}") for n in range(10)]
    with bench.running():
        bench.ask(*asked)
        bench.until(lambda: bool(bench.events("hub.connector.paused")))
        bench.until(lambda: len(pm.sent) > 8, 5)  # a trial after the first wait
        assert {row.state for row in bench.rows().values()} <= {"NEW", "RETRY", "SENDING"}
        locked["now"] = False
        bench.until_states("DONE", asked)
    [paused], [resumed] = bench.events("hub.connector.paused"), bench.events("hub.connector.resumed")
    assert "hub" in paused.data["reason"]
    assert paused.subject == resumed.subject == "connector/hub/pm"
    assert {row.attempts for row in bench.rows().values()} == {1}
    assert bench.events("hub.command.parked") == []
    assert pm.looked == []  # what was refused was not done


def test_a_connector_that_breaks_on_a_command_is_asked_again_and_parks_in_the_end(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.LOOKUP, limits=RateLimits(10_000, 8, 5.0, 0.01))
    pm.after = [ZeroDivisionError("secret")]
    pm.finding = [KeyError("secret") for _ in range(MAX_CRASHES)]
    with structlog.testing.capture_logs() as said, bench.running():
        bench.ask(command())
        bench.until_states("PARKED", [command()], 30)
        row = bench.row(command())
        assert row.code == "HUB-E4066"
        assert "KeyError" in row.reason
        assert "executor_bench.py:" in row.reason
        pm.finding.clear()
        bench.ledger.writer.run(lambda conn: parked_work.retry(conn, command().id, NOW))
        bench.until_states("DONE", [command()])
    assert dict(pm.effects) == {command().id: 1}  # it was looked up before it would have been sent again
    assert len(pm.sent) == 1
    assert "secret" not in str(said)
    assert "secret" not in str([event.model_dump() for event in bench.events()])


def test_a_call_that_nobody_saw_end_is_not_repeated_where_nobody_can_be_asked(bench: Bench) -> None:
    """Its caller died between SENDING and the result: it may have been done."""
    pm = bench.system("pm", class_=Idempotency.NONE)
    asked = command(0)

    def abandoned(conn: Connection) -> None:
        commands.accept(conn, asked, asked.to_json(), format_time(NOW))
        conn.execute(commands.commands.update().values(state="UNKNOWN", attempts=1))

    bench.ledger.writer.run(abandoned)
    with bench.running():
        bench.until_states("PARKED", [asked])
        assert (bench.row(asked).code, pm.sent) == ("HUB-E4065", [])
        bench.ledger.writer.run(lambda conn: parked_work.retry(conn, asked.id, NOW))  # a person has looked over there
        bench.until_states("DONE", [asked])
    assert dict(pm.effects) == {asked.id: 1}


def test_two_executors_on_one_ledger_do_everything_once(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.NONE, seconds=0.005)
    asked = [command(n % 3, case=f"opportunity/crm/{n // 3}") for n in range(90)]
    with bench.another() as other, bench.running(), bench.running(other):
        bench.ask(*asked)
        bench.until_states("DONE", asked)
    assert set(pm.effects.values()) == {1}
    assert len(pm.sent) == len(asked)
    for case in {one.case for one in asked}:
        assert [sent.position for sent in pm.sent if sent.case == case] == [0, 1, 2]


def test_another_carries_on_when_the_one_that_took_commands_in_stops(bench: Bench) -> None:
    bench.system("pm")
    with bench.another() as other, bench.running() as first, bench.running(other) as second:
        bench.ask(command(0))
        bench.until_states("DONE", [command(0)])
        first.stop()
        bench.ask(command(1))
        bench.until_states("DONE", [command(1)])
        assert second.healthy()
        assert not first.healthy()


def test_stopping_lets_calls_end_and_starts_no_more(bench: Bench) -> None:
    may_end, begun = threading.Event(), threading.Event()

    def begin() -> None:
        begun.set()
        may_end.wait(10)

    pm = bench.system("pm", limits=RateLimits(10_000, 1, 5.0, 0.05))
    pm.before = [begin]
    only = bench.executor()
    only.start()
    bench.ask(command(0), command(1))
    assert begun.wait(10)
    stopper = threading.Thread(target=only.stop)
    stopper.start()
    may_end.set()
    stopper.join(20)
    assert [bench.row(one).state for one in (command(0), command(1))] == ["DONE", "NEW"]
    assert len(pm.sent) == 1


@pytest.mark.parametrize(
    "answer", [{"odd": {1: object()}}, {"nul": "\x00"}, {"half": "\ud800"}, {"long": "x" * 100_000}]
)
@pytest.mark.parametrize("made", ["7\x00", "\ud800", " \n", "", "x" * 500])
def test_an_odd_answer_does_not_undo_what_was_done(bench: Bench, answer: dict[str, object], made: str) -> None:
    pm = bench.system("pm", answer=answer, answer_id=made)
    task, after = command(0), command(1)
    with bench.running():
        bench.ask(task, after)
        bench.until_states("DONE", [task, after])
    assert len(pm.sent) == 2
    told = [event for event in bench.events() if event.type in ("work.task.created", "hub.command.done")]
    assert [event.causationid for event in told] == [task.id, after.id]


@pytest.mark.parametrize("once", list(Idempotency))
@pytest.mark.parametrize("error", [RejectedError("ACME-1"), UncertainError("ACME-2"), FatalError("ACME-3")])
def test_a_connector_from_elsewhere_may_have_codes_that_we_have_no_words_for(
    bench: Bench, once: Idempotency, error: Exception
) -> None:
    pm = bench.system("pm", class_=once)
    pm.before = [error]
    with bench.running():
        bench.ask(command())
        bench.until(lambda: {row.state for row in bench.rows().values()} & {"DONE", "PARKED"} != set())
        if bench.row(command()).state == "PARKED":
            assert "ACME" in bench.row(command()).reason
            bench.ledger.writer.run(lambda conn: parked_work.retry(conn, command().id, NOW))
        bench.until_states("DONE", [command()])


@pytest.mark.parametrize("reason", ["\x00", "\ud800", "x" * 100_000])
def test_an_odd_reason_can_be_parked(bench: Bench, reason: str) -> None:
    bench.system("pm").refuse = lambda _asked: RejectedError("HUB-E4006", instance="pm", reason=reason)
    with bench.running():
        bench.ask(command())
        bench.until_states("PARKED", [command()])
    assert len(_open(bench)) == 1
    assert len(bench.row(command()).reason) <= 2000


def _open(bench: Bench) -> list[AnyRow]:
    with bench.ledger.reading() as conn:
        return list(parked.open_entries(conn))
