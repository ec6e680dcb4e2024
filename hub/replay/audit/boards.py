"""The boards beside the audit's own fold: every object's row whole; of the other boards, that all rows are there and none else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError
from sqlalchemy import JSON, BigInteger, Column, Connection, Integer, MetaData, Table, Text, inspect, select

from hub.replay.audit.fold import digest, things
from hub.replay.audit.reading import Filed, corrected
from hub.replay.audit.report import Report
from schemas.envelope import Event
from schemas.registry import EVENTS, event_spec

# As a reader from outside knows them: the boards' own code is not asked.
PREFIX = "board_"
POSITIONS = f"{PREFIX}positions"
_positions = Table(
    POSITIONS,
    MetaData(),
    Column("projection", Text),
    Column("partition", Integer),
    Column("next_offset", BigInteger),
)
ENTITIES = "entities"
_entities = Table(
    f"{PREFIX}{ENTITIES}",
    MetaData(),
    *(Column(name, Text) for name in ("ref", "case_id", "stage", "version", "time")),
    *(Column(name, JSON) for name in ("data", "sources", "entered")),
)
NAMED = ("tasks", "deals", "inbox")
_PASSED_OVER = frozenset({"command", "request", "delivery", "timer"})
_TOLD = frozenset({"hub.rule.changed", "hub.rule.suspended"})


@dataclass
class BoardAudit:
    """What the boards show, and what they should. Without a connection there are none, and nothing is expected."""

    places: dict[str, dict[int, int]] = field(default_factory=dict)
    """Board → partition → the next offset that it will fold."""
    shown: dict[str, set[str]] = field(default_factory=dict)
    wanted: dict[str, set[str]] = field(default_factory=dict)
    rows: dict[str, bytes] = field(default_factory=dict)
    expected: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, conn: Connection | None) -> BoardAudit:
        """Read them, in one consistent look that was begun before the log is read."""
        boards = cls()
        if conn is None or not inspect(conn).has_table(POSITIONS):
            return boards
        for row in conn.execute(select(_positions)):
            boards.places.setdefault(row.projection, {})[row.partition] = row.next_offset
        if inspect(conn).has_table(_entities.name):
            found = conn.execution_options(yield_per=1000).execute(select(_entities)).mappings()
            boards.rows = {_name(row["ref"], row["case_id"]): digest(dict(row)) for row in found}
        for name in NAMED:
            if inspect(conn).has_table(f"{PREFIX}{name}"):
                table = Table(f"{PREFIX}{name}", MetaData(), Column("key", Text))
                boards.shown[name] = set(conn.execute(select(table.c.key)).scalars())
        return boards

    def expect(self, partition: int, case: str, filed: Sequence[Filed]) -> None:
        """Note what the boards must show of a case, as far as each has come."""
        if not self.places:
            return
        # A board folds what came as soon as it came, and its correction where that lies.
        told = [(each.offset, event) for each in filed if each.event for event in (each.event, corrected(each.event))]
        events = [(offset, event) for offset, event in told if event is not None and _is_sound(event)]
        end = self._end(ENTITIES, partition)
        seen = things((event for offset, event in events if offset < end and is_object(event)), stored=True)
        self.expected |= {_name(ref, case): digest(thing) for ref, thing in seen.items()}
        for name in NAMED:
            end = self._end(name, partition)
            wanted = self.wanted.setdefault(name, set())
            wanted.update(key for offset, event in events if offset < end for key in keys_of(name, event))

    def compare(self, report: Report) -> None:
        """Note every difference."""
        report.counts["board_rows"] = len(self.rows) + sum(map(len, self.shown.values()))
        known = self.rows.keys() | self.expected.keys()
        wrong = [key for key in known if self.rows.get(key) != self.expected.get(key)]
        report.find("rows of a board that are not the fold of the log", wrong, f"boards: {ENTITIES}")
        for name in NAMED:
            shown, wanted = self.shown.get(name, set()), self.wanted.get(name, set())
            report.find("rows that a board lacks", wanted - shown, f"boards: {name}")
            report.find("rows of a board that the log does not tell of", shown - wanted, f"boards: {name}")

    def _end(self, board: str, partition: int) -> int:
        return self.places.get(board, {}).get(partition, 0)


def is_object(event: Event) -> bool:
    """Whether an event tells the state of an object, and is no bookkeeping of the hub's."""
    if event.kind in _PASSED_OVER:
        return False
    return not event.type.startswith("hub.") or event.type in _TOLD or event.type.startswith("hub.connector.")


def keys_of(board: str, event: Event) -> Iterator[str]:
    """The rows that exist on a board because of this event."""
    match board:
        case "deals" if event.type.startswith("crm.opportunity.") and event.type in EVENTS:
            yield event.subject
        case "inbox" if event.type == "hub.command.done" and event.kind == "command":
            if event.data.get("type") == "message.send":
                yield event.subject
        case "tasks":
            yield from _cards(event)


def _cards(event: Event) -> Iterator[str]:
    """A task's card, and the card of the request that it came of."""
    _, instance, *rest = event.subject.split("/", 2)
    if event.type in ("hub.command.parked", "hub.command.failed") and event.kind == "command":
        if rest and rest[0] and event.data.get("type", "task.create") == "task.create":
            yield f"request/{instance}/{rest[0]}"
    elif event.type.startswith("work.task.") and event.type in EVENTS and event.kind in ("task", "request"):
        yield event.subject
        why = event.data.get("why")
        if event.kind == "task" and why:
            yield f"request/{instance}/{why['command']}"


def _is_sound(event: Event) -> bool:
    """Whether its data is what its type allows; boards pass over what a foreign writer has put there."""
    try:
        event_spec(event.type).model.model_validate(event.data)
    except ValidationError:
        return False
    return True


def _name(ref: str, case: str) -> str:
    return f"{ref} ({case})"
