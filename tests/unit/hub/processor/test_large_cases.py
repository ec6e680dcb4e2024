"""Cases however large: the same as one fold of the log, in records that stay small, whatever crashes between any two of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from unittest.mock import patch

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.engine.case import Case, to_json
from hub.engine.parking import MAX_RETRIED_EVENTS, fold
from hub.engine.step import EmitCommand, EmitEvent, ParkedEvent, SettledEvent, StepRules
from hub.log.event_log import Outgoing, Record
from hub.processor.folding import fold_chunk
from hub.processor.source import Chunk
from hub.processor.state import PART_SEPARATOR, PartitionState
from schemas.decoding import AnyEvent
from schemas.envelope import Command, Event
from schemas.topics import COMMANDS, EVENTS, STATE
from tests.events import Decisions, ProjectRules, event, record, result, won
from tests.unit.hub.rules.homes import HEAD, rules
from tests.unit.hub.rules.homes import event as told

BIG, CHUNK = "project/pm/P1", 800


@dataclass
class Worker:
    """What a worker keeps of one partition, and the log that it reads and writes."""

    rules: StepRules = field(default_factory=ProjectRules)
    log: list[Record] = field(default_factory=list)
    state: PartitionState = field(default_factory=lambda: PartitionState(0))
    topic: list[Record] = field(default_factory=list)
    sent: list[Outgoing] = field(default_factory=list)
    folded: int = 0

    def tell(self, *events: Event | Record) -> Worker:
        for each in events:
            at = len(self.log)
            self.log.append(each._replace(offset=at) if isinstance(each, Record) else record(each, at))
        return self

    def fold(self, chunk: int = CHUNK) -> list[Outgoing]:
        """Fold what is there; the records of state that were written."""
        written = list[Outgoing]()
        while self.folded < len(self.log):
            records = self.log[self.folded : self.folded + chunk]
            done = fold_chunk(Chunk(0, records, 0), self.state, self.rules, self.reread)
            self.folded += len(records)
            self.sent += done.outputs
            written += done.states
        self.topic += [
            Record(STATE.name, 0, at, each.key, each.value) for at, each in enumerate(written, len(self.topic))
        ]
        return written

    def reread(self, offsets: Sequence[int]) -> list[bytes]:
        return [self.log[offset].value or b"" for offset in offsets]

    def restarted(self, topic: Sequence[Record] | None = None) -> Worker:
        """Another worker, on what lies in the topic."""
        other = Worker(self.rules, self.log)
        other.topic = list(self.topic if topic is None else topic)
        other.state.take(other.topic)
        return other

    def commands(self) -> list[str]:
        values = [orjson.loads(each.value or b"") for each in self.sent if each.topic == COMMANDS.name]
        return [value["id"] for value in values if "record" not in value]

    def records_of_commands(self, kind: str) -> list[dict[str, str]]:
        values = [orjson.loads(each.value or b"") for each in self.sent if each.topic == COMMANDS.name]
        return [value for value in values if value.get("record") == kind]


def whole(case: Case | None) -> Case | None:
    """A case with all of it in one value, wherever it was."""
    if case is None:
        return None
    commands = {*case.requested, *(() if case.apart is msgspec.UNSET else _asked_apart(case))}
    return Case(
        case.id,
        case.opened_by,
        {ref: entity for ref in sorted(case.refs()) if (entity := case.entity(ref))},
        {command: asked for command in sorted(commands) if (asked := case.requested_work(command))},
        tuple(case.waiting()),
        case.outbox,
        case.sequence,
        case.recent,
        count=case.count,
    )


def _asked_apart(case: Case) -> Iterator[str]:
    names = case.apart.state.names.get(case.id.encode(), ())  # type: ignore[union-attr]
    return (name[1:].decode() for name in names if name.startswith(b"#"))


def task(number: int, type_: str = "created", **more: str) -> Event:
    ref = f"task/pm/{number}"
    return event(
        f"work.task.{type_}", ref, case=BIG, id=f"{type_}-{number}-{more}", data={"title": f"任务 {number}"}, **more
    )


def test_thousands_of_tasks_in_one_project_make_small_records_and_other_cases_go_on() -> None:
    worker = Worker()
    for number in range(4000):
        worker.tell(task(number), *([won(f"O-{number}")] if number % 40 == 0 else []))
    written = worker.fold()
    assert max(len(each.value or b"") for each in written) < 256 * 1024
    assert len(set(worker.commands())) == 300
    case = worker.state.get(BIG.encode())
    assert case is not None
    assert (case.count, len(case.refs())) == (4000, 4000)
    again = worker.restarted()
    assert whole(again.state.get(BIG.encode())) == whole(case)
    one = again.tell(task(4001)).fold()
    assert sum(len(each.value or b"") for each in one) < sum(len(each.value or b"") for each in written) / 10


def test_an_event_of_a_large_case_writes_no_more_than_what_it_and_the_one_before_have_changed() -> None:
    worker = Worker()
    worker.tell(*(task(number) for number in range(2000))).fold()
    worker.tell(task(1, "started")).fold()
    for number in (7, 1500, 7):
        written = worker.tell(task(number, "started", version=str(len(worker.log)))).fold()
        assert len(written) == 2
        assert sum(len(each.value or b"") for each in written) < 3000


@pytest.mark.parametrize("count", [10, 1000])
def test_state_of_before_is_read_and_put_apart_as_it_is_touched(count: int) -> None:
    case = Case(BIG, BIG)
    for number in range(count):
        case = case.after(task(number))
    plain = msgspec.json.decode(to_json(case, 7))["case"]
    old = orjson.dumps({"offset": 7, "case": {"asked": {}, "held": [], "outbox": None, "sequence": 0, **plain}})
    worker = Worker()
    worker.state.take([Record(STATE.name, 0, 0, BIG.encode(), old)])
    worker.tell(*([event("crm.account.changed", "account/crm/A-1")] * 8), task(1, "started")).fold()
    (mine, *apart) = [each for each in worker.topic[::-1] if each.key and each.key.startswith(BIG.encode())]
    assert len(apart) == (0 if count == 10 else count - 1)
    assert len(mine.value or b"") < 16 * 1024
    found = worker.restarted().state.get(BIG.encode())
    assert found is not None
    assert found.count == len(found.refs()) == count
    assert [entity.stage for ref in ("task/pm/1", "task/pm/2") if (entity := found.entity(ref))] == ["started", "open"]


class TaskRules(ProjectRules):
    """A won deal makes a project with as many tasks as it says."""

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
        made = super().commands_for(case, event, occurrence)
        if not made.live:
            return made
        project, task, _ = made.live
        tasks = [task.model_copy(update={"id": f"task-{n}"}) for n in range(int(event.data["tasks"]))]
        return Decisions((project, *tasks), fired=made.fired)


def test_a_project_of_many_tasks_is_completed_with_the_last_of_them() -> None:
    worker = Worker(TaskRules())
    worker.tell(won(data={"tasks": 900})).fold()
    asked = step_commands(worker)
    for number, command in enumerate(asked):
        worker.tell(result(command, str(number)))
    done = [event("work.task.completed", f"task/pm/{n}", case=won().case, version="1") for n in range(1, 901)]
    worker.tell(*done[:-1]).fold()
    assert worker.records_of_commands("event") == []
    worker = worker.restarted()
    worker.folded = len(worker.log)
    worker.tell(done[-1]).fold()
    (completed,) = worker.records_of_commands("event")
    assert orjson.loads(orjson.dumps(completed["event"]))["subject"] == "project/pm/0"


def step_commands(worker: Worker) -> list[Command]:
    folded = fold(None, worker.log[0], worker.rules, worker.reread)
    return [output.command for output in folded.outputs if isinstance(output, EmitCommand)]


@pytest.mark.parametrize("count", [30, 3 * MAX_RETRIED_EVENTS])
def test_what_waits_behind_a_parked_event_is_bounded_in_each_record_and_all_of_it_is_taken_up(count: int) -> None:
    broken = {"task/pm/0"}
    worker = Worker(ProjectRules(lambda e: ValueError("no") if e.subject in broken else None))
    worker.tell(*(task(number) for number in range(count))).fold(7)
    case = worker.state.get(BIG.encode())
    assert case is not None
    assert [entry.offset for entry in case.waiting()] == list(range(count))
    assert max(len(each.value or b"") for each in worker.topic) < 20_000
    broken.clear()
    worker = worker.restarted()
    worker.folded = count
    worker.tell(event("hub.parked.retried", BIG, id="r", data={"parked": worker_first(case)})).fold()
    while any(worker.state.get(BIG.encode()).held for _ in (1,)):  # type: ignore[union-attr]
        *_, last = worker.records_of_commands("event")
        worker.tell(Event.model_validate(last["event"])).fold()
    settled = [value["ref"] for value in worker.records_of_commands("settled")]
    assert settled == [f"event/{task(number).id}" for number in range(count)]
    found = worker.restarted().state.get(BIG.encode())
    assert found is not None
    assert (found.count, found.held, found.numbers[0]) == (count, (), found.numbers[1])
    assert not [name for name in worker.restarted().state.names.get(BIG.encode(), ()) if name.startswith(b"!")]


def worker_first(case: Case) -> str:
    return case.held[0].event


def test_one_that_is_far_behind_is_discarded_or_corrected_all_the_same() -> None:
    broken = {"task/pm/0"}
    worker = Worker(ProjectRules(lambda e: ValueError("no") if e.subject in broken else None))
    worker.tell(*(task(number) for number in range(100))).fold(10)
    mended = task(90, "created").model_copy(update={"data": {"title": "neu"}})
    notes = [
        event("hub.parked.discarded", BIG, id="d", data={"parked": task(80).id}),
        event("hub.parked.edited", BIG, id="e", data={"parked": task(90).id, "event": mended.model_dump()}),
    ]
    worker.tell(*notes).fold()
    worker.tell(*(task(number) for number in range(100, 130))).fold(5)
    broken.clear()
    worker.tell(event("hub.parked.retried", BIG, id="r", data={"parked": task(0).id})).fold()
    case = worker.restarted().state.get(BIG.encode())
    assert case is not None
    assert case.entity("task/pm/80") is None
    assert [entity.data["title"] for ref in (90, 129) if (entity := case.entity(f"task/pm/{ref}"))] == [
        "neu",
        "任务 129",
    ]


def test_an_object_that_grows_too_large_and_a_case_with_too_many_park_what_would_make_them_so() -> None:
    worker = Worker()
    fields = [
        event("work.task.changed", "task/pm/1", case=BIG, id=f"f{n}", data={f"f{n}": "x" * 200_000}) for n in range(9)
    ]
    worker.tell(*fields, won("O-1")).fold()
    case = worker.state.get(BIG.encode())
    assert case is not None
    assert [entry.code for entry in case.waiting()] == ["HUB-E6025", *["HUB-E6010"] * 3]
    assert len(worker.commands()) == 3
    with patch("hub.engine.step.MAX_ENTITIES", 3):
        other = Worker().tell(*(task(number) for number in range(5)), won("O-1"))
        other.fold()
    found = other.state.get(BIG.encode())
    assert found is not None
    assert [entry.code for entry in found.waiting()] == ["HUB-E6024", "HUB-E6010"]
    assert len(other.commands()) == 3


def test_a_push_that_matched_nothing_opens_no_case() -> None:
    ignored = event("hub.delivery.ignored", "delivery/pm/d1", data={"body": "{}"})
    worker = Worker().tell(ignored, ignored, won("O-1"))
    assert [each.key for each in worker.fold()] == [b"opportunity/crm/O-1"]


# -- anything, anywhere cut, and a crash between any two records

SMALL = {
    "hub.processor.state.LARGE_CASE_BYTES": 200,
    "hub.engine.case.MAX_HELD_INLINE": 2,
    "hub.engine.parking.MAX_RETRIED_EVENTS": 3,
}
moves = st.lists(
    st.tuples(
        st.sampled_from(["task", "task", "won", "lost", "result", "done", "bad", "retry", "discard", "mend"]),
        st.integers(0, 5),
    ),
    max_size=25,
)


class Stage(Worker):
    """Moves as records: some events fail until they are mended."""

    def play(self, told: Sequence[tuple[str, int]]) -> None:
        asked = [step_of(won(case=BIG, version=str(n))) for n in range(6)]
        for at, (move, n) in enumerate(told):
            match move:
                case "task":
                    self.tell(task(n, "changed", version=str(at)))
                case "won" | "lost":
                    self.tell(
                        event(f"crm.opportunity.{move}", "opportunity/crm/O-1", case=BIG, version=str(at), id=f"w{at}")
                    )
                case "result":
                    self.tell(result(asked[0][n % 3], f"R{n}"))
                case "done":
                    self.tell(event("work.task.completed", f"task/pm/R{n}", case=BIG, version=str(at), id=f"c{at}"))
                case "bad":
                    self.tell(task(n, "started", version=f"{at}").model_copy(update={"data": {"bad": True}}))
                case _:
                    waiting = [e for e in self.log if b'"bad":true' in (e.value or b"")]
                    wanted = orjson.loads(waiting[n % len(waiting)].value or b"")["id"] if waiting else "x"
                    kind = {"retry": "retried", "discard": "discarded", "mend": "edited"}[move]
                    data = {"parked": wanted}
                    if kind == "edited":
                        data["event"] = task(n, "started").model_dump()
                    self.tell(event(f"hub.parked.{kind}", BIG, id=f"p{at}", data=data))


def step_of(opened: Event) -> list[Command]:
    folded = fold(None, record(opened), ProjectRules(), lambda _: [])
    return [output.command for output in folded.outputs if isinstance(output, EmitCommand)]


def bad_rules() -> ProjectRules:
    return ProjectRules(lambda e: ValueError("bad") if e.data.get("bad") else None)


def pure(log: Sequence[Record]) -> tuple[Case | None, list[bytes]]:
    """One fold of the log, in one value, and all that it sends."""
    case, sent = None, list[bytes]()
    for each in log:
        folded = fold(case, each, bad_rules(), lambda at: [log[offset].value or b"" for offset in at])
        case = folded.case
        sent += [
            r.value or b""
            for output in folded.outputs
            if isinstance(output, EmitCommand | EmitEvent) and (r := output.record())
        ]
    return case, sent


@settings(max_examples=150, deadline=None)
@given(
    told=moves,
    chunk=st.integers(1, 9),
    room=st.sampled_from([0, 1500, 10**6]),
    crash=st.integers(0, 60),
    zombie=st.booleans(),
)
def test_any_case_is_one_fold_of_the_log_whatever_is_put_apart_and_wherever_it_crashes(
    told: list[tuple[str, int]], chunk: int, room: int, crash: int, zombie: bool
) -> None:
    with patch("hub.processor.folding.MAX_CASE_BYTES", room):
        patches = [patch(name, value) for name, value in SMALL.items()]
        for each in patches:
            each.start()
        try:
            worker = Stage(bad_rules())
            worker.play(told)
            worker.fold(chunk)
            expected, sent = pure(worker.log)
            assert whole(worker.state.get(BIG.encode())) == whole(expected)
            assert {each.value for each in worker.sent if each.topic == COMMANDS.name} >= set(sent)
            # A crash between any two records of state; the log is read again from its start, cut otherwise.
            half = worker.restarted(worker.topic[:crash])
            half.fold(chunk + 1)
            assert whole(half.state.get(BIG.encode())) == whole(expected)
            assert {value for value in half.commands()} <= set(worker.commands())
            # What a worker that slept still writes: the higher offsets hold, whatever the order.
            late = half.topic + (worker.topic[crash:] if zombie else [])
            assert whole(half.restarted(late).state.get(BIG.encode())) == whole(expected)
        finally:
            for each in patches:
                each.stop()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    told=st.lists(
        st.tuples(st.sampled_from(["task", "bad", "bad", "retry", "discard", "mend"]), st.integers(0, 5)), min_size=4
    )
)
def test_what_is_told_of_as_parked_is_what_the_case_holds(told: list[tuple[str, int]]) -> None:
    with patch("hub.engine.case.MAX_HELD_INLINE", 2), patch("hub.engine.parking.MAX_RETRIED_EVENTS", 3):
        stage, case, open_ = Stage(bad_rules()), None, set[str]()
        stage.play(told)
        for at, each in enumerate(stage.log):
            folded = fold(
                case, each, bad_rules(), lambda offsets: [stage.log[offset].value or b"" for offset in offsets]
            )
            case, ends = folded.case, list[str]()
            for output in folded.outputs:
                if isinstance(output, ParkedEvent):
                    open_.add(output.ref)
                elif isinstance(output, SettledEvent):
                    open_.discard(output.ref)
                    ends.append(output.ref)
            assert open_ == {f"event/{entry.event}" for entry in (case.waiting() if case else ())}, at
            assert len(ends) == len(set(ends)), "each has one end"


# -- rules read what they name


def test_rules_read_the_objects_of_a_large_case_that_they_name_and_no_others() -> None:
    title = "${case.entities[event.data.project].data.name} ${case.entities[case.opened_by].stage}"
    text = HEAD + f'do:\n  - task.create: {{in: pm, title: "{title}"}}\n'
    case = "opportunity/crm/O-1"
    worker = Worker(rules(text))
    worker.tell(told("crm.opportunity.created", id="o", partitionkey=case, correlationid=case))
    worker.tell(event("work.project.created", "project/pm/7", case=case, data={"name": "网关"}))
    worker.tell(
        *(event("work.task.created", f"task/pm/{n}", case=case, data={"title": "x" * 50}) for n in range(1500))
    ).fold()
    found = worker.state.get(case.encode())
    assert found is not None
    assert found.is_apart
    worker.tell(told(id="w", data={**told().data, "project": "project/pm/7"})).fold()
    (asked,) = [orjson.loads(each.value or b"") for each in worker.sent if each.topic == COMMANDS.name]
    assert asked["arguments"]["title"] == "网关 won"


@pytest.mark.parametrize(("count", "parked"), [(600, []), (1500, ["HUB-E6028"])])
def test_a_rule_that_reads_all_of_a_case_reads_as_many_as_are_sensible(count: int, parked: list[str]) -> None:
    case = "opportunity/crm/O-1"
    worker = Worker(
        rules(HEAD + 'if: case.entities.exists(ref, ref == "task/pm/3")\ndo:\n  - task.create: {in: pm, title: a}\n')
    )
    worker.tell(
        *(event("work.task.created", f"task/pm/{n}", case=case, data={"title": "x" * 50}) for n in range(count))
    )
    worker.tell(told(id="w")).fold()
    found = worker.state.get(case.encode())
    assert found is not None
    assert [entry.code for entry in found.waiting()] == parked
    assert len(worker.commands()) == (0 if parked else 1)


def test_keys_that_are_no_text_belong_to_no_case_and_are_taken_for_no_part_of_one() -> None:
    worker = Worker().tell(*(task(number) for number in range(200)))
    hostile = [BIG.encode() + PART_SEPARATOR + name for name in (b"task/pm/1", b"#x", b"!0", b"")]
    worker.tell(
        *(Record(EVENTS.name, 0, 0, key, value) for key, value in itertools.product(hostile, (b"{", task(1).to_json())))
    )
    worker.fold()
    found = worker.restarted().state.get(BIG.encode())
    assert found is not None
    assert (found.count, found.held) == (200, ())
