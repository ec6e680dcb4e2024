"""One history: a company, its systems, the hub's programs in one or two copies each, and a scheduler that is not kind."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from unittest import mock

import structlog
from sqlalchemy import Connection

from hub.errors import FatalError, RetryableError
from hub.intake.intake import Accepted
from hub.kit.connector import Idempotency
from hub.ledger import commands, cursors, outbox, parked, parked_events, parked_work, positions
from hub.ledger.database import AnyRow
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.processor.halting import guard
from hub.projector import registry
from hub.runtime.failpoints import failpoint
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS
from tests.simulation import business
from tests.simulation.chance import Chance, CrashError, Rates, SimClock
from tests.simulation.durable import (
    PARTITIONS,
    Database,
    SimLedger,
    SimLog,
    SimStore,
    board_database,
    ledger_database,
    name_outbox,
)
from tests.simulation.programs import BoardProgram, ConnectorsProgram, Group, Turn, WorkerProgram, leave
from tests.simulation.systems import Pushed, Stock, System, connectors

Program = ConnectorsProgram | WorkerProgram | BoardProgram
ROUNDS = 400
"""Turns of all programs, each a few seconds, in which a healed world must come to rest."""
RULES = {False: business.rules(mended=False), True: business.rules(mended=True)}
POISON = (b"\xff\xfe", b"{}", b"", b"[1]", b'{"id":"x"}')


class StuckError(Exception):
    """Healed, and yet it does not come to rest."""


class BrokenError(Exception):
    """A part ended in a way that its program would not survive."""


@dataclass
class World:
    """Everything of one history. `run` plays it; what remains is for the checks."""

    seed: int
    ledgers: Database
    boards: Database
    log: MemoryLog = field(default_factory=lambda: MemoryLog(PARTITIONS))
    accepted: list[tuple[Pushed, Accepted]] = field(default_factory=list)
    group: Group = field(default_factory=Group)
    programs: list[Program] = field(default_factory=list)
    mended: bool = False
    poisoned: int = 0
    settled: int = 0
    """How often a person dealt with parked work."""
    turns: int = 0

    def __post_init__(self) -> None:
        random = self.random = Random(self.seed)
        self.clock = SimClock()
        level = random.choice((0.0, 0.01, 0.03, 0.1))
        rates = self.rates = Rates(
            crash=random.choice((0.0, level, level)),
            away=random.choice((0.0, level)),
            unknown=random.choice((0.0, level)),
            torn=random.choice((0.0, level)),
            preempt=random.choice((0.0, level, 3 * level)),
            misbehave=random.choice((0.0, 0.2, 0.6)),
            leap=random.choice((0.0, 0.0, 0.2)),
        )
        self.chance = Chance(random, rates, self.clock, interlude=self.others)
        self.pushes = business.pushes(random)
        self.coming: list[Pushed] = []
        class_ = random.choice((Idempotency.KEY, Idempotency.LOOKUP, Idempotency.LOOKUP, Idempotency.NONE))
        refused = random.choice((frozenset[str](), frozenset[str](), frozenset({"task.create"})))
        self.pm = System("pm", class_, self.chance, self.coming, refused=refused)
        self.erp = System("erp", Idempotency.LOOKUP, self.chance, self.coming)
        self.stock = Stock(self.chance, business.stock(random))
        # With a die of its own: the seeds that are kept tell the same histories as before.
        self.forgets = Random(self.seed).choice((None, timedelta(), timedelta(seconds=5), timedelta(minutes=2)))
        self.moving: list[Program] = []
        self.started = 0

    def run(self) -> None:
        """Play the history, heal the world, and let it come to rest."""
        self.ledgers.clear(self.clock)
        self.boards.clear(self.clock)
        name_outbox(self.ledgers)
        with self.played():
            for make in (self.new_connectors, self.new_worker, self.new_boards):
                for _ in range(self.random.choice((1, 1, 2))):
                    self.programs.append(make())
            self.rebalance()
            self.play()
            self.rest()

    @contextmanager
    def played(self) -> Iterator[None]:
        """The product's parts, held to this world's chance, and to its number of partitions."""
        ended = functools.partial(guard, leaving=leave)
        quiet = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)
        try:
            with (
                self.chance.at_failpoints(),
                mock.patch("hub.processor.app.guard", ended),
                mock.patch("hub.intake.relay.PARTITIONS", PARTITIONS),
            ):
                yield
        finally:
            structlog.configure(**quiet)

    def play(self) -> None:
        """Let things happen until all was told and some more."""
        left = self.random.randrange(60, 160)
        while left > 0 or self.pushes:
            left -= 1
            self.turn(self.random)
            self.chance.leap()

    def turn(self, random: Random) -> None:
        """One thing happens."""
        what = random.random()
        if what < 0.2 and (self.pushes or self.coming):
            self.move(self.a_connectors_program(), self.tell)
        elif what < 0.23:
            self.person()
        elif what < 0.24:
            self.rebalance()
        elif what < 0.245:
            self.poison()
        elif what < 0.25:
            self.mend()
        else:
            program = random.choice(self.programs)
            self.move(program, random.choice(program.turns()))

    def others(self) -> None:
        """While one program stands at a boundary, others move."""
        free = [program for program in self.programs if program not in self.moving]
        for _ in range(self.random.randrange(1, 8)):
            if free:
                program = self.random.choice(free)
                if program in self.programs:
                    self.move(program, self.random.choice(program.turns()))

    def move(self, program: Program, turn: Turn) -> None:
        """One turn of one program, which it may not survive."""
        self.turns += 1
        self.moving.append(program)
        self.chance.note(f"{self.name(program)}.{turn.__name__}")
        try:
            turn()
        except CrashError as crash:
            self.chance.note(f"† {self.name(program)} {crash}")
            self.replace(program)
        except RetryableError:
            pass
        except (FatalError, Exception) as error:
            raise BrokenError(f"{type(program).__name__}.{turn.__name__}: {type(error).__name__} {error}") from error
        finally:
            self.moving.remove(program)

    def name(self, program: Program) -> str:
        """Short, for the story."""
        at = self.programs.index(program) if program in self.programs else "x"
        return f"{type(program).__name__[0]}{at}"

    def replace(self, program: Program) -> None:
        """Its successor starts from what is durable."""
        if program not in self.programs:
            return
        made: Program
        match program:
            case ConnectorsProgram():
                made = self.new_connectors()
            case WorkerProgram():
                made = self.new_worker()
                for partition, worker in self.group.assigned.items():
                    if worker is program:
                        self.group.assigned[partition] = made
            case _:
                made = self.new_boards()
        self.programs[self.programs.index(program)] = made

    def new_connectors(self) -> ConnectorsProgram:
        self.started += 1
        ledger = SimLedger(self.ledgers.engine, self.chance)
        faces = connectors(self.pm, self.erp, self.stock, self.chance)
        return ConnectorsProgram(ledger, self.door(), faces, f"sim/{self.started}", self.chance)

    def new_worker(self) -> WorkerProgram:
        return WorkerProgram(self.door(), self.group, RULES, lambda: self.mended, self.chance, self.forgets)

    def new_boards(self) -> BoardProgram:
        self.started += 1
        store = SimStore(self.boards.engine, self.chance)
        return BoardProgram(
            self.door(), store, tuple(registry.projections().values()), f"sim:1:{self.started}", self.chance, self.clock
        )

    def door(self) -> SimLog:
        return SimLog(self.log, self.chance, self.clock)

    def rebalance(self) -> None:
        """Partitions move between workers."""
        self.group.rebalance([program for program in self.programs if isinstance(program, WorkerProgram)], self.chance)

    def a_connectors_program(self) -> ConnectorsProgram:
        return self.random.choice([p for p in self.programs if isinstance(p, ConnectorsProgram)])

    def tell(self) -> None:
        """A sender pushes, and pushes again until it hears that it was accepted; sometimes again after that."""
        program = self.moving[-1]
        assert isinstance(program, ConnectorsProgram)
        queue = self.random.choice([each for each in (self.pushes, self.coming) if each])
        told = [queue[0 if self.random.random() < 0.7 else self.random.randrange(len(queue))]]
        if self.random.random() < 0.4:
            told = self.random.sample(queue, self.random.randrange(1, min(len(queue), 6) + 1))
        with program.ledger.writer.one_commit():
            answers = [(each, self.push(program, each)) for each in told]
        for each, answer in answers:
            accepted = answer.result()
            failpoint("intake.committed")
            self.accepted.append((each, accepted))
            if self.random.random() < 0.85 and each in queue:
                queue.remove(each)

    def push(self, program: ConnectorsProgram, told: Pushed) -> Future[Accepted]:
        """As the front door hands it on."""
        receiver = program.connectors[told.instance].receives
        assert receiver is not None
        return program.intake.push(told.instance, receiver, told.delivery(self.clock))

    def poison(self) -> None:
        """Somebody who may not writes to the log."""
        value, topic = self.random.choice(POISON), self.random.choice((EVENTS.name, COMMANDS.name))
        key = self.random.choice((b"opportunity/crm/O-0", b"\xff", b"complaint/crm/C-0"))
        self.chance.note(f"poison {topic} {key!r} {value!r}")
        self.log.writer().append([Outgoing(topic, key, value)])
        self.poisoned += 1

    def mend(self) -> None:
        """The rule that fails, and the system that refuses, are mended."""
        self.chance.note("mended")
        self.mended, self.pm.refused = True, frozenset()

    def person(self) -> None:
        """Somebody takes parked work up again, or gives it up."""
        ledger = SimLedger(self.ledgers.engine, Chance(self.random, Rates(), self.clock))
        with ledger.reading() as conn:
            entries = parked.open_entries(conn)
        if entries:
            entry = self.random.choice(entries)
            discard = entry.ref.startswith("record/") or self.random.random() < 0.2
            self.chance.note(f"{'discard' if discard else 'retry'} {entry.ref[-40:]}")
            with contextlib.suppress(CrashError):
                ledger.writer.run(lambda conn: self._settle(conn, entry, discard))

    def _settle(self, conn: Connection, entry: AnyRow, discard: bool) -> None:
        """As `hub parked` does it."""
        asking = parked_events.OperatorRequest(self.clock.now(), "person/me", "because")
        self.settled += 1
        if entry.kind == "delivery":
            parked.request(conn, entry.id, "discard" if discard else "retry", "person/me", "because")
        elif entry.kind == "command" and not entry.ref.startswith("record/"):
            command = entry.ref.removeprefix("command/")
            if discard:
                parked_work.discard(conn, command, "because", self.clock.now())
            else:
                parked_work.retry(conn, command, self.clock.now())
        elif discard:
            parked_events.discard(conn, entry, asking)
        elif entry.ref.startswith("event/") and self.random.random() < 0.3:
            self.edit(conn, entry, asking)
        else:
            parked_events.retry(conn, entry, asking)

    def edit(self, conn: Connection, entry: AnyRow, asking: parked_events.OperatorRequest) -> None:
        """Somebody corrects what is parked; the next try reads that."""
        event = Event.from_json(entry.body)
        data = {**event.data, "severity": 9, "customer": f"corrected {self.settled}"}
        parked_events.edit(conn, entry, event.model_copy(update={"data": data}), asking)

    def rest(self) -> None:
        """Heal: nothing goes wrong any more, and everything that is due is done."""
        self.chance.rates = Rates()
        self.chance.note("healed")
        if self.random.random() < 0.7:
            self.mend()
        for _ in range(ROUNDS):
            before = self.marks()
            for program in list(self.programs):
                self.round(program)
            while self.coming or self.pushes:
                self.move(self.a_connectors_program(), self.tell)
            self.pm.settle()
            self.erp.settle()
            self.clock.at += timedelta(seconds=5)
            if self.marks() == before and not self.unfinished():
                return self.show()
        raise StuckError(f"after {ROUNDS} rounds: {self.unfinished()}")

    def show(self) -> None:
        """The boards come up with the log."""
        boards = [program for program in self.programs if isinstance(program, BoardProgram)]
        for _ in range(ROUNDS):
            for program in boards:
                self.move(program, program.write_all)
            if not boards[0].behind():
                return
            self.clock.at += timedelta(seconds=5)
        raise StuckError(f"boards after {ROUNDS} rounds: {boards[0].behind()}")

    def round(self, program: Program) -> None:
        """Every part of a program moves."""
        match program:
            case ConnectorsProgram():
                for turn in (program.take_in, program.dispatch):
                    self.move(program, turn)
                while program.calling():
                    self.move(program, program.call)
                for turn in (program.make_rounds, program.look, program.poll, program.send):
                    self.move(program, turn)
            case WorkerProgram():
                for _ in range(PARTITIONS):
                    self.move(program, program.fold)
                program.commit()

    def marks(self) -> Sequence[object]:
        """What changes when anything happens."""
        ends = [self.log.ends(topic) for topic in (EVENTS.name, COMMANDS.name)]
        return [ends, dict(self.group.committed), len(self.pm.order), len(self.erp.order)]

    def unfinished(self) -> list[str]:
        """What still has to be done."""
        with self.ledgers.engine.connect().execution_options(reading=True) as conn, conn.begin():
            states = commands.states(conn)
            cursor = cursors.get(conn, "erp", "stock")
            read = positions.of_reader(conn, "executor", COMMANDS.name)
            waiting = outbox.counts(conn)["unpublished"] + len(parked.pending_requests(conn, "delivery"))
        open_ = [f"{number} {state}" for state, number in states.items() if state in ("SENDING", "UNKNOWN", "RETRY")]
        ends = self.log.ends(EVENTS.name)
        behind = [f"partition {p}" for p, offset in self.group.committed.items() if offset < ends[p]]
        unread = ["stock"] if int(cursor or 0) < len(self.stock.facts) else []
        asked = [f"commands {p}" for p, end in self.log.ends(COMMANDS.name).items() if read.get(p, 0) < end]
        return open_ + behind + unread + asked + [f"{waiting} in the outbox"] * bool(waiting)


@functools.cache
def databases() -> tuple[Database, Database]:
    """The databases that all histories of this process use, one after the other."""
    return ledger_database(), board_database()


def history(seed: int) -> World:
    """A world that is ready to run."""
    return World(seed, *databases())
