"""The chain of one case as the ledger tells it: event → rule → command → effect → later events, as trees.

Needs neither log nor boards, so it can be told while everything else is down. What an event or command was caused by stands in
it (`causationid`); what was caused by nothing of this case begins a tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from hub.ledger import commands, links, outbox
from hub.ledger.links import links as links_table
from hub.ledger.metadata import AnyRow
from hub.ledger.outbox import outbox as outbox_table
from hub.rules.checking import short
from schemas.event import Command, Event

SHORTEST = 6
"""Characters of an id that may stand for the whole."""
MANY = 20
"""Candidates that are named."""


@dataclass
class Node:
    """An event or a command, and what it caused, in the order of the ledger."""

    id: str
    event: Event | None = None
    command: Command | None = None
    row: AnyRow | None = None
    """The command's row: its state, attempts, effect and reason."""
    causes: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """Itself and all that followed."""
        yield self
        for node in self.causes:
            yield from node.walk()

    def is_about(self, ref: str) -> bool:
        """Whether it tells of this object, or is it."""
        if self.event is not None:
            return ref in (self.event.id, self.event.subject)
        assert self.command is not None  # a node is one or the other
        names = (f"command/{self.command.instance}/{self.id}", f"request/{self.command.instance}/{self.id}")
        return ref == self.id or ref in names


@dataclass(frozen=True)
class Story:
    """All that the ledger knows of one case."""

    case: str
    roots: tuple[Node, ...]

    def nodes(self) -> Iterator[Node]:
        """Every node."""
        for root in self.roots:
            yield from root.walk()

    def about(self, ref: str) -> list[Node]:
        """The nodes that tell of this object, event or command."""
        return [node for node in self.nodes() if node.is_about(ref)]

    def around(self, targets: list[Node]) -> set[str]:
        """The ids that explain these: they themselves, what led to them, and all that followed."""
        wanted = {node.id for node in targets}
        kept = {node.id for target in targets for node in target.walk()}
        return kept | {node.id for node in self.nodes() if wanted & {below.id for below in node.walk()}}


def of_case(conn: Connection, case: str) -> Story:
    """The case's story."""
    nodes: dict[str, Node] = {}
    order: list[tuple[str, int, Node]] = []
    for row in outbox.of_case(conn, case):
        event = Event.from_json(row.body)
        nodes[event.id] = Node(event.id, event=event)
        order.append((row.recorded_at, row.id, nodes[event.id]))
    for row in commands.of_case(conn, case):
        nodes[row.id] = Node(row.id, command=Command.from_json(row.body), row=row)
        order.append((row.created_at, row.seq, nodes[row.id]))
    roots: list[Node] = []
    for _, _, node in sorted(order, key=lambda entry: entry[:2]):
        cause = node.event.causationid if node.event is not None else node.command.causationid if node.command else None
        parent = nodes.get(cause or "")
        (roots if parent is None or parent is node else parent.causes).append(node)
    return Story(case, tuple(roots))


@dataclass(frozen=True)
class Found:
    """What a reference means: the object, event or command, and its case."""

    ref: str
    case: str


def find(conn: Connection, ref: str) -> list[Found]:
    """What people may mean by `ref`: an id of an event or command or its start, an object, or the bare id of one.

    One answer is sure, several are candidates, none is nothing.
    """
    exact = _exact(conn, ref)
    if exact is not None:
        return [exact]
    return _bare(conn, ref) or starting_with(conn, ref)


def _exact(conn: Connection, ref: str) -> Found | None:
    event = outbox.find(conn, ref)
    if event is not None:
        return Found(ref, event.case_id or event.subject)
    command = commands.get(conn, ref.rpartition("/")[2] if ref.startswith(("command/", "request/")) else ref)
    if command is not None:
        return Found(command.id, command.case_id)
    case = links.case_of(conn, ref)
    if case is None:
        rows = outbox.of_subject(conn, ref)
        case = next((row.case_id for row in rows if row.case_id), None)
    return Found(ref, case) if case is not None else None


def _bare(conn: Connection, ref: str) -> list[Found]:
    """Objects whose id over there is this: `P-77` for `project/pm/P-77`."""
    of_links = select(links_table.c.object, links_table.c.case_id).where(
        links_table.c.object.endswith(f"/{ref}", autoescape=True)
    )
    of_events = select(outbox_table.c.subject, outbox_table.c.case_id).where(
        outbox_table.c.subject.endswith(f"/{ref}", autoescape=True), outbox_table.c.case_id.is_not(None)
    )
    found = {name: case for query in (of_links, of_events) for name, case in conn.execute(query.distinct().limit(MANY))}
    return [Found(name, found[name]) for name in sorted(found)]


def starting_with(conn: Connection, start: str) -> list[Found]:
    """Events and commands whose id starts so; none for a start that is too short to mean one."""
    if len(start) < SHORTEST:
        return []
    of_events = select(outbox_table.c.event_id, outbox_table.c.case_id).where(
        outbox_table.c.event_id.startswith(start, autoescape=True), outbox_table.c.case_id.is_not(None)
    )
    table = commands.commands
    of_commands = select(table.c.id, table.c.case_id).where(table.c.id.startswith(start, autoescape=True))
    found = [Found(*row) for query in (of_events, of_commands) for row in conn.execute(query.limit(MANY))]
    return sorted(found, key=lambda each: each.ref)


def as_value(node: Node, kept: set[str]) -> dict[str, Any]:
    """A node and what it caused, for machines; of what it caused only these."""
    below = [as_value(each, kept) for each in node.causes if each.id in kept]
    if node.event is not None:
        return {"event": node.event.model_dump(exclude_none=True), "caused": below}
    assert node.command is not None and node.row is not None  # a node is one or the other
    names = ("state", "attempts", "effect_id", "code", "reason", "due_at", "updated_at")
    return {"command": {**node.command.model_dump(), **{n: getattr(node.row, n) for n in names}}, "caused": below}


def in_short(values: dict[str, Any]) -> str:
    """Values on one line."""
    shown = {name: value if isinstance(value, str) else short(value) for name, value in values.items()}
    return "  ".join(f"{name} = {value}" for name, value in shown.items())
