"""The rules are part of the log: whoever folds it anew decides as the first one did, whatever lies on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from hub.engine.step import EmitEvent
from hub.errors import FatalError
from hub.home import RULES_BROKEN
from hub.log.event_log import Outgoing, Record
from hub.log.partitioner import partition_of
from hub.processor.rules_in_force import InForceRules, RulesTarget, _Partition, in_force
from hub.rules.book import RuleBook
from hub.rules.history import RULES_KEY, RuleTimeline, Sets, Span
from hub.rules.reload import broken_files
from hub.runtime import failpoints
from schemas.envelope import Event, derived_id
from schemas.registry import COMMANDS as TYPES
from schemas.topics import COMMANDS, EVENTS
from tests.events import AT, ProjectRules, event, won
from tests.unit.hub.processor.rule_stage import TASK, Stage, write

N = 30


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def deals(first: int = 0, count: int = N) -> list[Event]:
    return [won(f"O-{number}") for number in range(first, first + count)]


def asked(stage: Stage, rule: str | None = None) -> set[str]:
    return {id_ for id_, told in stage.commands().items() if rule is None or told["rule"] == rule}


def test_a_rule_that_was_added_asks_for_nothing_when_old_events_are_folded_anew(stage: Stage) -> None:
    home = stage.home(won=TASK % "a")
    stage.append(deals())
    stage.worker(home).fold()
    stage.relay()
    before = asked(stage)
    assert len(before) == N
    stage.home(more=TASK % "b")
    stage.forget()
    stage.worker(home).fold()
    assert asked(stage) == before, "what was not asked for then is not asked for now"
    stage.append(deals(100, 5))
    stage.worker(home).fold()
    assert len(asked(stage, "more")) == 5, "what comes now is judged by today's rules"
    assert len(asked(stage, "won")) == N + 5
    stage.relay()
    stage.forget()
    everything = asked(stage)
    stage.worker(home).fold(7)
    assert asked(stage) == everything


def test_rules_that_were_changed_and_removed_are_as_they_were(stage: Stage) -> None:
    home = stage.home(won=TASK % "a", gone=TASK % "g")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.home(won="if: event.subject.endsWith('7')\n" + TASK % "c")
    (home / "rules" / "gone.yaml").unlink()
    worker.look()
    stage.append(deals(100))
    worker.fold()
    stage.relay()
    before = stage.commands()
    assert len(before) == 2 * N + 3
    stage.forget()
    ends = {key: len(found) for key, found in stage.log.records.items()}
    stage.worker(home).fold()
    said = [r for key, found in stage.log.records.items() if key[0] == COMMANDS.name for r in found[ends.get(key, 0) :]]
    assert said, "a refold says again what it said"
    assert {id_: told["arguments"]["title"] for id_, told in stage.commands().items()} == {
        id_: told["arguments"]["title"] for id_, told in before.items()
    }


def test_people_and_calendar_are_those_of_then(stage: Stage) -> None:
    home = stage.home(
        won=TASK % "a" + '  - message.send: {in: im, to: "${role(\'lead\')}", text: "${workdays(event.time, 1)}"}\n'
    )
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.relay()
    before = stage.commands()
    write(home / "people.yaml", "people:\n  han.mei: {name: 韩梅, roles: [lead]}\n")
    write(home / "calendar.yaml", "days: {2026-11-23: off}\n")
    stage.forget()
    worker = stage.worker(home)
    worker.fold()
    again = {id_: told["arguments"] for id_, told in stage.commands().items()}
    assert again == {id_: told["arguments"] for id_, told in before.items()}
    stage.append(deals(100, 1))
    worker.fold()
    task, message = sorted(
        (told for id_, told in stage.commands().items() if id_ not in before), key=lambda t: t["position"]
    )
    assert task["arguments"]["assignee"] == "person/han.mei"
    assert message["arguments"]["text"] == "2026-11-24"


def test_no_account_and_no_secret_lies_in_the_log(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    home = stage.home(won=TASK % "a")
    write(home / ".env", "PM_ROOM=very-secret\n")
    stage.home(told="do:\n  - message.send: {in: im, to: person/li.lei, text: '${env:PM_ROOM}'}\n")
    worker = stage.worker(home)
    stage.append(deals(0, 1))
    worker.fold()
    stage.relay()
    said = b"".join(r.value or b"" for r in stage.log.records[EVENTS.name, stage_partition()] if r.key == RULES_KEY)
    assert b"env:PM_ROOM" in said
    assert b"very-secret" not in said
    assert b"accounts" not in said


def stage_partition() -> int:
    return partition_of(RULES_KEY, 12)


@pytest.mark.parametrize(
    "place", ["worker.before-in-force", "worker.in-force", "worker.outputs-delivered", "worker.states-delivered"]
)
def test_a_crash_round_the_change_of_a_set_changes_nothing_of_the_rest(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.home(more=TASK % "b")
    worker.look()
    stage.append(deals(100))
    with crashing(monkeypatch, place), pytest.raises(failpoints.FailpointError):
        worker.fold()
    worker = stage.worker(home)  # reads what is on its way: nothing was relayed
    worker.fold()
    stage.relay()
    first = asked(stage)
    assert len(asked(stage, "more")) == N
    stage.forget()
    stage.worker(home).fold()
    assert asked(stage) == first


def test_a_crash_amid_a_refold_makes_nothing_of_the_past_new(stage: Stage) -> None:
    home = stage.home(won=TASK % "a")
    stage.append(deals())
    stage.worker(home).fold()
    stage.relay()
    before = asked(stage)
    stage.forget()
    worker = stage.worker(home)
    worker.mine = {p for p in worker.mine if p < 6}
    worker.fold(1)  # half of the partitions, and the next worker finds states that know of no end
    stage.home(more=TASK % "b")
    stage.worker(home).fold()
    assert asked(stage) == before


def crashing(monkeypatch: pytest.MonkeyPatch, place: str) -> AbstractContextManager[None]:
    def reach(name: str) -> None:
        if name == place:
            raise failpoints.FailpointError(name)

    @contextmanager
    def arranged() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr("hub.processor.app.failpoint", reach)
            patched.setattr("hub.processor.halting.exit_now", lambda code: None)
            patched.setattr("hub.processor.app.guard", lambda chunk: unguarded())
            yield

    @contextmanager
    def unguarded() -> Iterator[None]:
        yield

    return arranged()


def test_the_word_of_a_set_said_twice_is_one(stage: Stage) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.relay()
    entries = stage.history().in_force()
    records = [r for r in stage.log.records[COMMANDS.name, stage_partition()] if b"in_force" in (r.value or b"")]
    stage.log.writer().append([Outgoing(r.topic, r.key or b"", r.value) for r in records])
    stage.relay()
    assert stage.history().in_force() == entries
    stage.forget()
    before = asked(stage)
    stage.worker(home).fold()
    assert asked(stage) == before


def test_two_workers_with_different_files_decide_alike(stage: Stage) -> None:
    old, new = stage.home("old", won=TASK % "a"), stage.home("new", won=TASK % "a")
    first = stage.worker(old, range(6))
    second = stage.worker(new, range(6, 12))
    stage.append(deals())
    first.fold()
    second.fold()
    stage.home("new", more=TASK % "b")  # deployed on one of the two machines
    second.look()
    first.look()
    stage.append(deals(100))
    first.fold()
    second.fold()
    assert len(asked(stage, "more")) == N, "the other one takes the set from the log"
    assert first.judged.target.sets == second.judged.target.sets
    stage.relay()
    # One that starts with the old files does not put them in force by that.
    third = stage.worker(old, range(12))
    assert third.judged.target.sets == second.judged.target.sets
    (old / ".hub" / "rules-told.json").unlink()
    assert stage.worker(old).judged.target.sets == second.judged.target.sets
    stage.append(deals(200, 5))
    third.fold()
    assert len(asked(stage, "more")) == N + 5
    before = asked(stage)
    stage.forget()
    stage.worker(old).fold()
    assert asked(stage) == before


def test_a_set_that_comes_back_is_announced_again(stage: Stage) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    for title in ("b", "a", "b", "a"):
        stage.home(won=TASK % title)
        worker.look()
        stage.relay()
    assert [len(stage.history().announcements()), worker.judged.target.sets] == [5, worker.news._files.sets]


def test_of_a_log_without_texts_states_are_made_and_nothing_is_asked_for(stage: Stage) -> None:
    """As a version left it that wrote no texts: outputs are there, the state was forgotten."""
    home = stage.home(won=TASK % "a")
    stage.append(deals())
    old = Event(
        id=derived_id("rule", "won"), source="/hub/rules", type="hub.rule.changed", subject="rule/hub/won", time=AT,
        recordedtime=AT, dataschema="urn:hub:hub.rule.changed:1", partitionkey="rule/hub/won",
        correlationid="rule/hub/won", data={"digest": "abc"},
    )  # fmt: skip
    stage.log.writer().append(
        [Outgoing(COMMANDS.name, b"rule/hub/won", b'{"record":"event","event":%s}' % old.to_json())]
    )
    worker = stage.worker(home)
    worker.fold()
    assert asked(stage) == set()
    assert sum(len(state.cases) for state in worker.processor.states.values()) >= N
    stage.append(deals(100, 3))
    worker.fold()
    assert len(asked(stage)) == 3
    stage.relay()
    stage.forget()
    stage.home(more=TASK % "b")
    stage.worker(home).fold()
    assert len(asked(stage)) == 3


def test_an_old_hub_that_goes_on_judges_what_waits(stage: Stage) -> None:
    """Its state is there and tells how far it was folded: what lies behind that is new."""
    home = stage.home(won=TASK % "a")
    stage.append(deals())
    worker = stage.worker(home)
    worker.fold()
    forget_rules(stage)
    stage.append(deals(100, 4))
    (home / ".hub" / "rules-history.json").unlink(missing_ok=True)
    (home / ".hub" / "rules-told.json").unlink()
    stage.worker(home).fold()
    assert len(asked(stage)) == N + 4


def forget_rules(stage: Stage) -> None:
    """As if no version had ever written of rules: nothing was relayed."""
    there = stage.log.records[COMMANDS.name, stage_partition()]
    kept = [r for r in there if r.key != RULES_KEY]
    stage.log.records[COMMANDS.name, stage_partition()] = [r._replace(offset=at) for at, r in enumerate(kept)]


def test_a_rule_that_cannot_be_made_any_more_asks_for_nothing_and_parks_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = stage.home(won=TASK % "a", sent="do:\n  - message.send: {in: im, to: person/li.lei, text: a}\n")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.relay()
    before = asked(stage)
    (home / "rules" / "sent.yaml").unlink()
    monkeypatch.delitem(TYPES, "message.send")
    stage.forget()
    worker = stage.worker(home)
    worker.fold()
    assert asked(stage) == before
    assert stage.notes("parked") == []


def test_a_start_reads_only_what_is_new(stage: Stage) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.relay()
    stage.worker(home)
    cache = home / ".hub" / "rules-history.json"
    assert cache.exists()
    kept = cache.read_bytes()
    known = stage.history()
    again = stage.worker(home)
    assert again.news._history.history.spans(3) == known.spans(3)
    cache.write_bytes(kept[: len(kept) // 2])
    assert stage.worker(home).news._history.history.spans(3) == known.spans(3), "a torn cache is none"


def test_hostile_words_of_rules_change_nothing(stage: Stage) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    sets = worker.judged.target.sets
    for type_, data in (
        ("hub.rules.announced", {"ruleset": "x", "world": "y", "rules": {"a": "b"}, "people": "p", "calendar": "c"}),
        ("hub.rules.announced", {"ruleset": 5}),
        ("hub.rules.in_force", {"partition": "all"}),
        ("hub.rule.changed", {"digest": "d", "text": "rule: [", "part": -1, "parts": 10**9}),
        ("hub.world.changed", {"what": "people", "value": "v", "text": "[]"}),
    ):
        told = won("O-1").model_copy(
            update={
                "id": f"{type_}{data}"[:300],
                "type": type_,
                "partitionkey": "rules/hub",
                "correlationid": "rules/hub",
                "data": data,
            }
        )
        stage.append([told])
    worker.fold()
    assert stage.worker(home).judged.target.sets == sets


def test_large_texts_come_in_parts(stage: Stage) -> None:
    people = "people:\n" + "".join(f"  p{n}: {{name: 名字{n}, roles: [lead]}}\n" for n in range(3000))
    home = stage.home(won=TASK % ("长" * 300))
    write(home / "people.yaml", people)
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.relay()
    before = {id_: told["arguments"] for id_, told in stage.commands().items()}
    write(home / "people.yaml", "people:\n  li.lei: {name: 李雷, roles: [lead]}\n")
    stage.forget()
    stage.worker(home).fold()
    assert {id_: told["arguments"] for id_, told in stage.commands().items()} == before


PROJECT = """\
do:
  - project.create: {as: project, in: pm, name: a}
  - task.create: {in: pm, project: "${project}", title: one}
"""


def test_what_unknown_rules_asked_for_is_learnt_from_what_came_of_it(stage: Stage) -> None:
    """A project of then is completed when its tasks are, all of them, also those that were only asked for."""
    home = stage.home(won=PROJECT)
    case = "opportunity/crm/O-1"
    project, task, late = (derived_id("then", name) for name in ("project", "task", "late"))
    effects = [
        told("work.project.created", "project/pm/P-1", project, {"name": "a"}),
        *(
            told("work.task.requested", f"request/pm/{id_}", id_, {"title": "t", "project": project})
            for id_ in (task, late)
        ),
        told("work.task.created", "task/pm/T-1", task, {"title": "t", "project": "P-1"}),
    ]
    stage.append([won("O-1"), *effects, event("work.task.completed", "task/pm/T-1", case=case)])
    stage.log.writer().append([Outgoing(COMMANDS.name, b"x/y", b'{"record":"settled"}')])  # a version has been at work
    worker = stage.worker(home)
    worker.fold()
    assert asked(stage) == set()
    assert derived(stage, "work.project.completed") == []
    stage.append([told("work.task.created", "task/pm/T-2", late, {"title": "t", "project": "P-1"})])
    stage.append([event("work.task.completed", "task/pm/T-2", case=case)])
    worker.fold()
    assert derived(stage, "work.project.completed") == ["project/pm/P-1"]


def told(type_: str, subject: str, command: str, data: dict[str, object]) -> Event:
    why = {"command": command, "rule": "won", "digest": "d", "title": {}, "matched": {}, "event": "e", "subject": "s/s"}
    id_ = derived_id("result", command, type_)
    return event(type_, subject, case="opportunity/crm/O-1", id=id_, causationid=command, data={**data, "why": why})


def derived(stage: Stage, type_: str) -> list[str]:
    return [note["event"]["subject"] for note in stage.notes("event") if note["event"]["type"] == type_]


def test_in_a_log_made_anew_from_the_ledger_sequences_tell_where_a_set_began(stage: Stage) -> None:
    """It lacks what was written twice, so its offsets are others."""
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    last: dict[int, int] = {}
    stage.append(numbered(deals(), last) * 2)  # written again by a relay that had died
    worker.fold()
    stage.home(more=TASK % "b")
    worker.look()
    stage.append(numbered(deals(100), last))
    worker.fold()
    stage.relay()
    before = asked(stage)
    assert len(before) == 3 * N
    for partition in range(12):
        seen: dict[bytes, Record] = {}
        for record in stage.log.records[EVENTS.name, partition]:
            seen.setdefault(record.value or b"", record)
        stage.log.records[EVENTS.name, partition] = [r._replace(offset=at) for at, r in enumerate(seen.values())]
    stage.forget()
    (home / ".hub" / "rules-history.json").unlink(missing_ok=True)
    for log in [key for key in stage.log.records if key[0] == COMMANDS.name]:
        stage.log.records[log] = [Record(*log, 0, b"x/y", b'{"record":"settled"}')]
    stage.worker(home).fold(5)
    assert asked(stage) == before, "no more, and no less"


def numbered(events: list[Event], last: dict[int, int]) -> list[Event]:
    """With sequences of one outbox, gapless per partition, behind the `last` ones."""
    made = []
    for told in events:
        partition = partition_of(told.case.encode(), 12)
        last[partition] = last.get(partition, 0) + 1
        made.append(told.model_copy(update={"sequence": str(last[partition]), "outbox": "box"}))
    return made


def test_a_log_that_lost_an_announcement_is_told_again(stage: Stage) -> None:
    """It goes on from an older copy: what this home has announced since is not there, and its files count all the same."""
    home = stage.home(won=TASK % "a")
    stage.worker(home)
    stage.relay()
    ends = {key: len(found) for key, found in stage.log.records.items()}
    stage.home(more=TASK % "b")
    worker = stage.worker(home)
    for key, found in stage.log.records.items():
        del found[ends.get(key, 0) :]
    (home / ".hub" / "rules-history.json").unlink()
    again = stage.worker(home)
    assert again.judged.target.sets == worker.judged.target.sets
    stage.append(deals(0, 2))
    again.fold()
    assert len(asked(stage, "more")) == 2


def test_who_is_late_with_a_word_about_a_partition_is_overruled(stage: Stage) -> None:
    """A worker that slept says what judges a partition that another has by now, and has folded on."""
    home = stage.home(won=TASK % "a")
    stage.worker(home)
    stage.home(more=TASK % "b")
    worker = stage.worker(home)
    old, new = stage.history().announcements()
    stage.append(deals())
    worker.fold()
    late = [in_force(p, 1, old.sets, None, None, {}, AT) for p in range(12)]
    stage.log.writer().append([EmitEvent(word).record() for word in late])
    worker.look()
    stage.append(deals(100))
    worker.fold()
    stage.relay()
    for partition in range(12):
        spans = stage.history().spans(partition)
        assert all(span.sets == new.sets for span in spans), f"{partition}: {spans}"
    before = asked(stage)
    stage.forget()
    stage.worker(home).fold()
    assert asked(stage) == before


def test_news_of_rules_go_on_when_their_topic_was_made_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)

    class Gone:
        def read(self, limit: int, timeout: float) -> list[Record]:
            raise FatalError("HUB-E2105", topic=COMMANDS.name, partition=0, reason="out of range")

        def close(self) -> None:
            pass

    with monkeypatch.context() as patched:
        patched.setattr(stage.log, "reader", lambda *_, **_more: Gone())
        worker.look()
    stage.home(more=TASK % "b")
    stage.worker(home, ())
    worker.look()
    assert worker.judged.target.sets == stage.history().announcements()[-1].sets


def test_while_a_file_is_broken_whoever_asks_is_told_and_the_rules_of_before_judge(stage: Stage) -> None:
    home = stage.home(won=TASK % "a")
    worker, noted = stage.worker(home), home / ".hub" / RULES_BROKEN
    assert broken_files(noted) == ()
    stage.home(won="if: event.data.nothing == 3\n" + TASK % "b")
    worker.look()
    (told,) = broken_files(noted)
    assert told.place.startswith("rules/won.yaml:")
    stage.append(deals(count=1))
    worker.fold()
    assert [each["arguments"]["title"] for each in stage.commands().values()] == ["a"]
    again = stage.worker(home)
    assert broken_files(noted) == (told,)
    stage.home(won=TASK % "c")
    again.look()
    assert broken_files(noted) == ()


@pytest.mark.parametrize("left", [b"", b"{", b"[1]", b'[{"code": "x"}]'])
def test_a_note_of_what_is_broken_that_cannot_be_read_says_nothing(tmp_path: Path, left: bytes) -> None:
    (tmp_path / RULES_BROKEN).write_bytes(left)
    assert broken_files(tmp_path / RULES_BROKEN) == ()


# -- cases that were forgotten

LATER = "2027-11-20T02:00:00.000000Z"


def test_a_case_that_comes_back_is_judged_by_the_rules_of_then_and_its_news_by_todays(stage: Stage) -> None:
    home = stage.home(won="if: event.subject.endsWith('7')\n" + TASK % "a")
    worker = stage.worker(home, forgets=timedelta(days=180))
    stage.append([won("O-1"), event("crm.opportunity.lost", DEAL, version="8")])
    worker.fold()
    stage.home(won=TASK % "b")
    worker.look()
    stage.append([event("crm.opportunity.lost", other, version="9", recordedtime=LATER) for other in _beside()])
    worker.fold()
    stage.relay()
    (state,) = [state for state in worker.processor.states.values() if state.forgotten]
    assert list(state.forgotten) == [DEAL.encode()]
    assert asked(stage) == set()
    stage.append([event("crm.opportunity.changed", DEAL, version="10", recordedtime=LATER)])
    worker.fold()
    case = state.get(DEAL.encode())
    assert case is not None
    assert (case.entities[DEAL].entered, case.due) == ({"won": 1, "lost": 1}, 0)
    assert asked(stage) == set(), "that it was won is news for nobody"
    stage.append([event("crm.opportunity.won", DEAL, version="11", recordedtime=LATER)])
    worker.fold()
    assert [told["arguments"]["title"] for told in stage.commands().values()] == ["b"]


DEAL = "opportunity/crm/O-1"


def _beside() -> list[str]:
    """Another deal of the same partition."""
    mine = partition_of(DEAL.encode(), 12)
    others = (f"opportunity/crm/B-{number}" for number in range(1000))
    return [next(other for other in others if partition_of(other.encode(), 12) == mine)]


@pytest.mark.parametrize(
    ("first", "last", "sure"),
    [
        *[(0, 49, True), (10, 10, True), (49, 50, False), (0, 70, False), (55, 55, False), (59, 59, False)],
        *[(59, 60, False), (60, 60, True), (60, 10**6, True)],
    ],
)
def test_who_judged_what_lies_in_doubt_is_not_sure(first: int, last: int, sure: bool) -> None:
    old, new = Sets("1", "2"), Sets("3", "4")
    rules = InForceRules(RuleBook(RuleTimeline(), {}), RulesTarget(new, ProjectRules()))
    rules._partitions[3] = _Partition([Span(0, old), Span(50, new, doubt_to=60)], 100, new, "word", 100)
    assert rules.are_sure(3, first, last) is sure
