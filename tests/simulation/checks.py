"""What must hold of a world that has come to rest, whatever went wrong in it (reliability.md, I1 to I7 and I12)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import orjson
from sqlalchemy import select

from hub.engine.case import Case
from hub.engine.parking import fold as fold_record
from hub.engine.step import EmitCommand
from hub.kit.connector import Idempotency
from hub.kit.projection import Projection, Row
from hub.kit.records import read_event
from hub.ledger import commands, outbox, parked
from hub.ledger.database import reading
from hub.log.event_log import Record
from hub.projector import registry
from hub.projector.folding import FoldPosition, fold, take, to_fold
from hub.projector.rows import all_rows
from hub.replay.audit.audit import audit
from hub.replay.audit.report import Report
from schemas.topics import EVENTS
from tests.simulation.durable import OUTBOX, PARTITIONS
from tests.simulation.systems import System
from tests.simulation.world import RULES, World


@dataclass(frozen=True)
class Broken:
    """A promise that did not hold, and of what."""

    promise: str
    of: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.of}"


def check(world: World) -> list[Broken]:
    """Everything that is not as promised."""
    return [*_accepted(world), *_sequences(world), *_effects(world), *_replay(world), *_boards(world), *_audited(world)]


def _accepted(world: World) -> Iterator[Broken]:
    """I1: every event that a sender was told of is in the log, or parked under its own name."""
    there = {_id(record) for record in records(world)}
    with reading(world.ledgers.engine) as conn:
        refs = set(conn.execute(select(parked.parked.c.ref)).scalars())
    for pushed, accepted in world.accepted:
        for at, event in enumerate(accepted.events, 1):
            ref = accepted.id if at == 1 else f"{accepted.id}#{at}"
            if event not in there and ref not in refs:
                yield Broken("accepted, neither in the log nor parked", f"{pushed.id} {event}")
    polled = len({_id(r) for r in records(world) if b'"erp.stock.ran_low"' in (r.value or b"")})
    if polled != len(world.stock.facts):
        yield Broken("polled, not in the log", f"{polled} of {len(world.stock.facts)}")


def _sequences(world: World) -> Iterator[Broken]:
    """I3: in each partition the sequences begin at 1, and none comes before the one below it has come."""
    for partition in range(PARTITIONS):
        last = 0
        for record in world.log.records[EVENTS.name, partition]:
            told = _value(record)
            if told.get("outbox") != OUTBOX:
                continue
            sequence = int(told["sequence"])
            if sequence > last + 1:
                yield Broken("gap in the sequence", f"partition {partition}: {last} → {sequence}")
            last = max(last, sequence)


def _effects(world: World) -> Iterator[Broken]:
    """I2: one effect for what is done, none for what is not and cannot be in doubt; in order per case."""
    with reading(world.ledgers.engine) as conn:
        rows = {row.id: row for row in conn.execute(select(commands.commands).order_by(commands.commands.c.seq))}
    for system in (world.pm, world.erp):
        for id_, times in system.effects.items():
            if id_ not in rows:
                yield Broken("an effect that nobody asked for", id_)
            elif times != 1 and not (system.class_ is Idempotency.NONE and world.settled):
                yield Broken("more than one effect", f"{rows[id_].type} {id_}: {times}, {system.class_}")
        yield from _in_order(system, list(rows))
    for row in rows.values():
        made = {"pm": world.pm, "erp": world.erp}.get(row.instance)
        if row.state == "DONE" and made is not None and made.effects.get(row.id, 0) == 0:
            yield Broken("done without an effect", f"{row.type} {row.id}")
        if row.state not in ("DONE", "PARKED", "DISCARDED", "NEW"):
            yield Broken("not at its end", f"{row.type} {row.id} {row.state}")


def _in_order(system: System, asked: list[str]) -> Iterator[Broken]:
    """The first effects of a case come in the order in which they were asked for."""
    last: dict[str, int] = {}
    for id_ in system.order:
        case = system.objects[id_][1].case
        at = asked.index(id_) if id_ in asked else -1
        if at < last.get(case, -1):
            yield Broken("effects out of order", f"{case} {id_}")
        last[case] = max(at, last.get(case, -1))


def _replay(world: World) -> Iterator[Broken]:
    """I4: one fold of the whole log asks for the very commands that are in the ledger, case by case."""
    wanted: dict[str, set[str]] = {}
    cases: dict[bytes, Case] = {}
    odd = set[str]()
    for record in records(world):
        key = record.key or b""
        folded = fold_record(cases.get(key), record, RULES[True], functools.partial(_reread, world, record))
        if folded.case is None:
            continue
        cases[key] = folded.case
        if folded.case.held or folded.failed:
            odd.add(folded.case.id)
        for output in folded.outputs:
            if isinstance(output, EmitCommand):
                wanted.setdefault(output.command.case, set()).add(output.command.id)
    with reading(world.ledgers.engine) as conn:
        odd |= set(conn.execute(select(parked.parked.c.case_id).where(parked.parked.c.kind == "event")).scalars())
        there: dict[str, set[str]] = {}
        for row in conn.execute(select(commands.commands.c.case_id, commands.commands.c.id)):
            there.setdefault(row.case_id, set()).add(row.id)
    for case in (wanted.keys() | there.keys()) - odd:
        if wanted.get(case, set()) != there.get(case, set()):
            yield Broken("commands that a replay would not ask for, or lacks", case)


def _reread(world: World, record: Record, offsets: Sequence[int]) -> list[bytes]:
    return [world.log.records[EVENTS.name, record.partition][offset].value or b"" for offset in offsets]


def _boards(world: World) -> Iterator[Broken]:
    """I4, I12: each board's rows are those that one fold of the log gives."""
    if list(_sequences(world)):
        return  # no board folds what lies behind a gap
    for projection in registry.projections().values():
        rows = folded_rows(world, projection)
        with reading(world.boards.engine) as conn:
            shown = dict(all_rows(conn, projection.table))
        differing = sorted(key for key in rows.keys() | shown.keys() if rows.get(key) != shown.get(key))
        if differing:
            yield Broken("a board that is not the fold of the log", f"{projection.name} {differing[:3]}")


def folded_rows(world: World, projection: Projection) -> dict[str, Row]:
    """The rows of a board, folded in one go."""
    places = {partition: FoldPosition() for partition in range(PARTITIONS)}
    changes = fold(projection, to_fold(take(records(world), places, projection.name, read_event).found), {})
    return {key: change.after for key, change in changes.items() if change.after is not None}


def _audited(world: World) -> Iterator[Broken]:
    """I6: what the users' own audit finds."""
    for finding in audited(world).findings:
        yield Broken(f"audit: {finding.what}", f"{finding.place} {finding.count} {', '.join(finding.examples[:3])}")


def audited(world: World) -> Report:
    """The users' own audit of a world, long after."""
    with reading(world.ledgers.engine) as conn, reading(world.boards.engine) as boards:
        given = outbox.sequence_ends(conn)
        return audit(world.log, conn, OUTBOX, world.clock.at + timedelta(hours=1), lambda: given, boards)


def records(world: World) -> list[Record]:
    """All of `hub.events`."""
    return [record for partition in range(PARTITIONS) for record in world.log.records[EVENTS.name, partition]]


def _value(record: Record) -> dict[str, str]:
    try:
        told = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def _id(record: Record) -> str:
    return str(_value(record).get("id"))
