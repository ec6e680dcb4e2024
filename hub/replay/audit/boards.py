"""Compares the boards with the audit's own fold: `entities` row by row in full, the other boards by their set of keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError
from sqlalchemy import JSON, BigInteger, Column, Connection, Integer, MetaData, Table, Text, inspect, select

from hub.replay.audit.fold import digest, fold_entities
from hub.replay.audit.reading import AuditedRecord, correction_in
from hub.replay.audit.report import Report
from schemas.envelope import Event
from schemas.registry import EVENTS, event_spec

# Declared here, as an outside reader knows the tables: the audit imports none of the boards' code.
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
KEYED_BOARDS = ("tasks", "deals", "inbox")
_SKIPPED_KINDS = frozenset({"command", "request", "delivery", "timer"})
_RULE_EVENTS = frozenset({"hub.rule.changed", "hub.rule.suspended"})


@dataclass
class BoardAudit:
    """What the boards show and what they should show. Without a connection there are no boards, and nothing is expected."""

    next_offsets: dict[str, dict[int, int]] = field(default_factory=dict)
    """Board → partition → the next offset that it will fold."""
    shown: dict[str, set[str]] = field(default_factory=dict)
    wanted: dict[str, set[str]] = field(default_factory=dict)
    rows: dict[str, bytes] = field(default_factory=dict)
    expected: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, conn: Connection | None) -> BoardAudit:
        """Read the boards. `conn` is one snapshot, begun before the log is read."""
        boards = cls()
        if conn is None or not inspect(conn).has_table(POSITIONS):
            return boards
        for row in conn.execute(select(_positions)):
            boards.next_offsets.setdefault(row.projection, {})[row.partition] = row.next_offset
        if inspect(conn).has_table(_entities.name):
            rows = conn.execution_options(yield_per=1000).execute(select(_entities)).mappings()
            boards.rows = {_name(row["ref"], row["case_id"]): digest(dict(row)) for row in rows}
        for name in KEYED_BOARDS:
            if inspect(conn).has_table(f"{PREFIX}{name}"):
                table = Table(f"{PREFIX}{name}", MetaData(), Column("key", Text))
                boards.shown[name] = set(conn.execute(select(table.c.key)).scalars())
        return boards

    def expect(self, partition: int, case: str, records: Sequence[AuditedRecord]) -> None:
        """Add what the boards must show of a case, each up to its own position."""
        if not self.next_offsets:
            return
        # A board folds each event at its own offset, also one that the processor parks, and a correction at the correction's.
        folded = [
            (each.offset, event) for each in records if each.event for event in (each.event, correction_in(each.event))
        ]
        events = [(offset, event) for offset, event in folded if event is not None and _is_valid(event)]
        end = self._end(ENTITIES, partition)
        entities = fold_entities((event for offset, event in events if offset < end and is_object(event)), stored=True)
        self.expected |= {_name(ref, case): digest(entity) for ref, entity in entities.items()}
        for name in KEYED_BOARDS:
            end = self._end(name, partition)
            wanted = self.wanted.setdefault(name, set())
            wanted.update(key for offset, event in events if offset < end for key in keys_of(name, event))

    def compare(self, report: Report) -> None:
        """Report every difference."""
        report.counts["board_rows"] = len(self.rows) + sum(map(len, self.shown.values()))
        known = self.rows.keys() | self.expected.keys()
        wrong = [key for key in known if self.rows.get(key) != self.expected.get(key)]
        report.find("rows of a board that are not the fold of the log", wrong, f"boards: {ENTITIES}")
        for name in KEYED_BOARDS:
            shown, wanted = self.shown.get(name, set()), self.wanted.get(name, set())
            report.find("rows that a board lacks", wanted - shown, f"boards: {name}")
            report.find("rows of a board that the log does not tell of", shown - wanted, f"boards: {name}")

    def _end(self, board: str, partition: int) -> int:
        return self.next_offsets.get(board, {}).get(partition, 0)


def is_object(event: Event) -> bool:
    """Whether an event carries the state of an entity, and is not the hub's own bookkeeping."""
    if event.kind in _SKIPPED_KINDS:
        return False
    return not event.type.startswith("hub.") or event.type in _RULE_EVENTS or event.type.startswith("hub.connector.")


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
    """The key of a task's card, and of the card of the request that created the task."""
    _, instance, *rest = event.subject.split("/", 2)
    if event.type in ("hub.command.parked", "hub.command.failed") and event.kind == "command":
        if rest and rest[0] and event.data.get("type", "task.create") == "task.create":
            yield f"request/{instance}/{rest[0]}"
    elif event.type.startswith("work.task.") and event.type in EVENTS and event.kind in ("task", "request"):
        yield event.subject
        why = event.data.get("why")
        if event.kind == "task" and why:
            yield f"request/{instance}/{why['command']}"


def _is_valid(event: Event) -> bool:
    """Whether its data is valid for its type; boards skip invalid events, which only a foreign producer writes."""
    try:
        event_spec(event.type).model.model_validate(event.data)
    except ValidationError:
        return False
    return True


def _name(ref: str, case: str) -> str:
    return f"{ref} ({case})"
