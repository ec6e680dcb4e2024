"""The hub's three programs, each made of the product's own parts, moved by hand one turn at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from hub.coordination import Lease
from hub.engine.step import StepRules
from hub.errors import FatalError, RetryableError
from hub.executor.calls import Calls
from hub.executor.command_consumer import CommandConsumer
from hub.executor.executor import Dispatcher
from hub.executor.housekeeper import Housekeeper
from hub.executor.instances import Instances, InstanceState
from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.intake import correlation
from hub.intake.deferred_intake import DeferredIntake, Redelivery
from hub.intake.intake import Intake
from hub.intake.poller import Poller, Stream
from hub.intake.relay import LEASE_S, Relay
from hub.intake.trimmer import Trimmer, TrimmingPace
from hub.kit.connector import Connector
from hub.kit.projection import Projection
from hub.log.event_log import Reader, StoredRecord
from hub.processor.app import Processor
from hub.processor.rules_in_force import FixedRules, RecordSpan
from hub.processor.source import Chunk
from hub.processor.source import PartitionThreads as Threads
from hub.processor.state import PartitionState, catch_up
from hub.projector.runner import BoardLease as BoardLease
from hub.projector.runner import Runner
from hub.runtime.clock import Clock
from schemas.topics import EVENTS
from tests.executor_bench import FakePeople
from tests.pushing import Staff
from tests.simulation.chance import Chance, CrashError
from tests.simulation.durable import PARTITIONS, SimLedger, SimLog, SimStore

Turn = Callable[[], None]


class Never(threading.Event):
    """An event that nobody waits for: in one thread, waiting is the scheduler's."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class Jobs:
    """An instance's crew without threads: each job is a turn of its own."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def do(self, job: Callable[[], None], at_once: int) -> None:
        self.waiting.append(job)

    def leave(self) -> None:
        """Nobody is left to end."""


class SimLanes(Instances):
    """Lanes whose calls wait to be moved."""

    def of(self, name: str) -> InstanceState:
        lane = super().of(name)
        if not isinstance(lane.workers, Jobs):
            lane.workers = Jobs()  # type: ignore[assignment]  # a crew without threads
        return lane


class ConnectorsProgram:
    """`hub.programs.connectors`: intake, relay, trimmer, executor, poller and second looks."""

    def __init__(
        self, ledger: SimLedger, log: SimLog, connectors: Mapping[str, Connector], owner: str, chance: Chance
    ) -> None:
        clock, self.chance, self.ledger = log.clock, chance, ledger
        self.intake = Intake(ledger, Staff(), clock, correlation.created_kinds(connectors))
        self.connectors = connectors
        self.relay = Relay(ledger, log, clock, Lease("relay", clock, LEASE_S, f"{owner}r"))
        self.relay._stopping = Never()
        self.lanes = SimLanes(connectors, FakePeople(), clock)
        calls = Calls(ledger, clock, lambda: None, Never())
        self.dispatcher = Dispatcher(ledger, self.lanes, calls, clock, owner, LedgerCatchUp(ledger, log, clock))
        self.rounds = Housekeeper(ledger, self.lanes, clock)
        self.commands_in = CommandConsumer(ledger, log, clock, owner, lambda: None)
        keep = timedelta(seconds=chance.random.choice((0, 3, 60)))
        lease = Lease("trim", clock, 60.0, f"{owner}t")
        pace = TrimmingPace(least=1, most=4, stuck=0.0)
        self.trimmer = Trimmer(ledger, log, clock, self.relay._catch_up, keep, pace=pace, lease=lease)
        self.trimmer._stopping = Never()
        redelivery = Redelivery(ledger, self.intake, connectors, clock)
        self.looks = DeferredIntake(ledger, redelivery, clock, Lease("second-looks", clock, owner=f"{owner}s"))
        erp = connectors["erp"].polls
        assert erp is not None
        lease = Lease("poll/erp/stock", clock, 60.0, f"{owner}p")
        self.poller = Poller(Stream("erp", "stock", erp), ledger, self.intake, clock, lease)

    def turns(self) -> list[Turn]:
        """What could move."""
        steady: list[Turn] = [
            self.take_in, self.dispatch, self.make_rounds, self.look, self.poll, self.send, self.trim
        ]  # fmt: skip
        return steady + [self.call] * bool(self.calling())

    def send(self) -> None:
        """The relay's turn."""
        try:
            while self.relay._relay_batch():
                pass
        except RetryableError:
            return

    def trim(self) -> None:
        """Rows of the outbox that the log has had for long enough."""
        self.trimmer.look()

    def take_in(self) -> None:
        """Commands from the log."""
        self.commands_in.turn()

    def dispatch(self) -> None:
        """Calls that may begin."""
        self.dispatcher.turn()

    def make_rounds(self) -> None:
        """Calls that nobody answers for."""
        self.rounds.run_once()

    def look(self) -> None:
        """What intake put off."""
        self.looks.look()

    def poll(self) -> None:
        """The inventory."""
        self.poller.turn()

    def call(self) -> None:
        """One call that was begun."""
        waiting = self.calling()
        if waiting:
            jobs = self.chance.random.choice(waiting)
            jobs.waiting.pop(self.chance.random.randrange(len(jobs.waiting)))()

    def calling(self) -> list[Jobs]:
        """The crews that have a call to make."""
        crews = [lane.workers for lane in sorted(self.lanes.all(), key=lambda lane: lane.name)]
        return [crew for crew in crews if isinstance(crew, Jobs) and crew.waiting]


def leave(code: int) -> None:
    """The worker's guard ends the process."""
    raise CrashError(f"worker leaves {code}")


class Inline(Threads):
    """The worker's lanes without threads."""

    async def run(self, partition: int | None, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)


@dataclass
class Group:
    """The consumer group of the workers, as the broker keeps it: who has which partition, and what was committed."""

    committed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    assigned: dict[int, object] = field(default_factory=dict)
    judged: dict[int, dict[int, set[bool]]] = field(default_factory=dict)
    """Partition → offset → whether mended rules have judged it, and whether others have."""

    def rebalance(self, among: Sequence[object], chance: Chance) -> None:
        """Deal the partitions out anew."""
        for partition in range(PARTITIONS):
            self.assigned[partition] = chance.random.choice(among)


@dataclass
class Remembering(FixedRules):
    """The rules of now, and by which rules each record was judged: in the log's stead, which tells it of the product's."""

    sets: Mapping[bool, StepRules]
    group: Group
    mended: bool

    def parts(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        known = self.group.judged.setdefault(partition, {})
        for record in records:
            known.setdefault(record.offset, set()).add(self.mended)
        return super().parts(partition, records)

    def again(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        known = self.group.judged[partition]
        return [RecordSpan([record], self.sets[min(known[record.offset])], False) for record in records]

    def are_sure(self, partition: int, first: int, last: int) -> bool:
        known = self.group.judged[partition]
        return all(len(known.get(offset, ())) < 2 for offset in range(first, last + 1))


@dataclass
class WorkerProgram:
    """`hub.programs.processor`: Faust's part is played by `Group`, all the rest is the product's."""

    log: SimLog
    group: Group
    rules: Mapping[bool, StepRules]
    mended: Callable[[], bool]
    chance: Chance
    forgets: timedelta | None
    processor: Processor = field(init=False)
    mine: set[int] = field(default_factory=set)
    read_to: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.processor = Processor(self.log, self._judged(), self.log.writer(), forgets=self.forgets, threads=Inline())

    def _judged(self) -> Remembering:
        mended = self.mended()
        return Remembering(self.rules[mended], self.rules, self.group, mended)

    def turns(self) -> list[Turn]:
        """What could move."""
        return [self.fold, self.fold]

    def fold(self) -> None:
        """A chunk of one partition."""
        self._rebalance()
        found = [p for p in sorted(self.mine) if self._records(p)]
        if not found:
            return
        partition = self.chance.random.choice(found)
        records = self._records(partition)[: self.chance.random.choice((1, 2, 5, 100))]
        self.processor.rules = self._judged()
        chunk = Chunk(partition, records, records[-1].offset + 1)
        done(self.processor.run(chunk))
        if chunk.finished and self.group.assigned.get(partition) is self:
            self.read_to[partition] = chunk.next_offset
            if self.chance.random.random() < 0.6:
                self.group.committed[partition] = chunk.next_offset

    def commit(self) -> None:
        """The timer's turn, as at the end of a history."""
        for partition, offset in self.read_to.items():
            if self.group.assigned.get(partition) is self:
                self.group.committed[partition] = offset

    def _rebalance(self) -> None:
        """See which partitions are ours now, and read the state of those, as `Processor.assigned` does."""
        mine = {p for p, worker in self.group.assigned.items() if worker is self}
        if mine == self.mine:
            return
        held = self.processor.states
        states = {p: held.get(p) or PartitionState(p) for p in mine}
        catch_up(self.log, states)
        self.processor.states, self.mine = states, mine
        self.read_to = {p: self.group.committed[p] for p in mine}

    def _records(self, partition: int) -> list[Any]:
        return self.log.log.records[EVENTS.name, partition][self.read_to.get(partition, 0) :]


def done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that never has to wait returns."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waits")


@dataclass
class BoardProgram:
    """`hub.programs.projector`, without its web: one runner for each board."""

    log: SimLog
    store: SimStore
    projections: tuple[Projection, ...]
    holder: str
    chance: Chance
    clock: Clock
    held: dict[str, tuple[BoardLease, Reader]] = field(default_factory=dict)
    runners: dict[str, Runner] = field(init=False)

    def __post_init__(self) -> None:
        self.runners = {
            projection.name: Runner(self.log, self.store, projection, self.clock, holder=self.holder)
            for projection in self.projections
        }

    def turns(self) -> list[Turn]:
        """What could move."""
        return [self.write, self.beat]

    def write(self) -> None:
        """One board takes a batch in."""
        self.write_board(self.chance.random.choice(self.projections).name)

    def write_all(self) -> None:
        """Every board takes a batch in."""
        for projection in self.projections:
            self.write_board(projection.name)

    def write_board(self, name: str) -> int:
        """As `Runner.run` does, one batch at a time; how many records."""
        runner = self.runners[name]
        if name not in self.held and not self._claim(name, runner):
            return 0
        lease, reader = self.held[name]
        try:
            batch = reader.read(self.chance.random.choice((1, 3, 100)), 0.0)
            return runner.fold(lease, batch) if batch else 0
        except (RetryableError, FatalError):
            del self.held[name]
            raise

    def behind(self) -> list[str]:
        """The boards that do not reflect all of the log, whoever writes them."""
        ends = {p: end for p, end in self.log.ends(EVENTS.name).items() if end}
        places = {name: self.store.places(name) for name in self.runners}
        return [
            name for name, at in places.items() if {p: a.next_offset for p, a in at.items() if a.next_offset} != ends
        ]

    def beat(self) -> None:
        """Signs of life of what it holds."""
        for name, (lease, _) in list(self.held.items()):
            try:
                self.runners[name]._beat(lease)
            except RetryableError:
                del self.held[name]
                raise

    def _claim(self, name: str, runner: Runner) -> bool:
        lease = runner.try_claim()
        if lease is None:
            return False
        offsets = {partition: place.next_offset for partition, place in lease.places.items()}
        self.held[name] = (lease, self.log.reader(EVENTS.name, offsets))
        return True
