"""The causal trees of one case: event → rule → command → effect → later events.

The part that the ledger holds is available while everything else is down. Every event and command names its cause in
`causationid`; one whose cause is outside of the case is the root of a tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hub.config.validation import short
from hub.ledger import commands, links
from hub.ledger.database import AnyRow
from hub.replay.history import History, StoredEvent, ids_starting
from schemas.envelope import Command, Event

MIN_ID_PREFIX = 6
"""Characters that a prefix of an id must have to be looked up."""
MAX_CANDIDATES = 20
"""Candidates returned for one ambiguous reference."""


@dataclass
class Node:
    """An event or a command, and what it caused, in the order of the history."""

    id: str
    stored: StoredEvent | None = None
    command: Command | None = None
    row: AnyRow | None = None
    """The command's row: its state, attempts, effect and reason."""
    causes: list[Node] = field(default_factory=list)

    @property
    def event(self) -> Event | None:
        """The event; None for a command."""
        return self.stored.event if self.stored is not None else None

    def walk(self) -> Iterator[Node]:
        """The node and all its descendants."""
        yield self
        for node in self.causes:
            yield from node.walk()

    def is_about(self, ref: str) -> bool:
        """Whether the node has this id, or is about the entity `ref`."""
        if self.event is not None:
            return ref in (self.event.id, self.event.subject)
        assert self.command is not None  # a node is one or the other
        names = (f"command/{self.command.instance}/{self.id}", f"request/{self.command.instance}/{self.id}")
        return ref == self.id or ref in names


@dataclass(frozen=True)
class CaseStory:
    """The causal trees of one case."""

    case: str
    roots: tuple[Node, ...]

    def nodes(self) -> Iterator[Node]:
        """Every node."""
        for root in self.roots:
            yield from root.walk()

    def about(self, ref: str) -> list[Node]:
        """The nodes that have this id, or are about this entity."""
        return [node for node in self.nodes() if node.is_about(ref)]

    def around(self, targets: list[Node]) -> set[str]:
        """The ids of these nodes, their ancestors and their descendants."""
        wanted = {node.id for node in targets}
        descendants = {node.id for target in targets for node in target.walk()}
        return descendants | {node.id for node in self.nodes() if wanted & {below.id for below in node.walk()}}


def of_case(history: History, case: str) -> CaseStory:
    """The story of one case."""
    nodes: dict[str, Node] = {}
    order: list[tuple[str, int, int, Node]] = []
    for at, stored in enumerate(history.of_case(case)):
        nodes[stored.event.id] = Node(stored.event.id, stored=stored)
        order.append((stored.event.recordedtime, 0, at, nodes[stored.event.id]))
    for row in commands.of_case(history.ledger, case) if history.ledger is not None else ():
        nodes[row.id] = Node(row.id, command=Command.from_json(row.body), row=row)
        order.append((row.created_at, 1, row.seq, nodes[row.id]))
    roots: list[Node] = []
    for *_, node in sorted(order, key=lambda entry: entry[:3]):
        cause = node.event.causationid if node.event is not None else node.command.causationid if node.command else None
        parent = nodes.get(cause or "")
        (roots if parent is None or parent is node else parent.causes).append(node)
    return CaseStory(case, tuple(roots))


@dataclass(frozen=True)
class ResolvedReference:
    """The entity, event or command that a reference means, and its case."""

    ref: str
    case: str


def resolve(history: History, ref: str) -> list[ResolvedReference]:
    """Resolve what a person typed: the id of an event or command or a prefix of it, an entity, or an entity's bare id.

    One result is certain, several are candidates. No result means no match in what could be read: see the history's gaps.
    """
    exact = _exact(history, ref)
    if exact is not None:
        return [exact]
    return _named(history, ref) or starting_with(history, ref)


def _exact(history: History, ref: str) -> ResolvedReference | None:
    stored = history.event(ref)
    if stored is not None:
        return ResolvedReference(ref, stored.case or stored.event.subject)
    conn = history.ledger
    if conn is not None:
        command = commands.get(conn, ref.rpartition("/")[2] if ref.startswith(("command/", "request/")) else ref)
        if command is not None:
            return ResolvedReference(command.id, command.case_id)
    case = (links.case_of(conn, ref) if conn is not None else None) or history.case_of(ref)
    return ResolvedReference(ref, case) if case is not None else None


def _named(history: History, ref: str) -> list[ResolvedReference]:
    """Entities with this id in their system: `P-77` for `project/pm/P-77`. Ignores case only when no id matches exactly."""
    found = history.named(ref)
    same = [each for each in found if each.ref.endswith(f"/{ref}")]
    linked = (
        links.cases_of(history.ledger, [each.ref for each in found]) if history.ledger is not None and found else {}
    )
    return [ResolvedReference(each.ref, linked.get(each.ref, each.case)) for each in (same or found)[:MAX_CANDIDATES]]


def starting_with(history: History, start: str) -> list[ResolvedReference]:
    """Events and commands whose id has this prefix; none for a prefix shorter than `MIN_ID_PREFIX`."""
    if len(start) < MIN_ID_PREFIX:
        return []
    found = [ResolvedReference(each.event.id, each.case) for each in history.starting(start) if each.case]
    if history.ledger is not None:
        found += [ResolvedReference(*row) for row in ids_starting(history.ledger, commands.commands, start)]
    return sorted(found, key=lambda each: each.ref)


def as_value(node: Node, shown: set[str]) -> dict[str, Any]:
    """A node and its descendants as JSON, limited to the ids in `shown`."""
    below = [as_value(each, shown) for each in node.causes if each.id in shown]
    if node.event is not None:
        return {"event": node.event.model_dump(exclude_none=True), "caused": below}
    assert node.command is not None and node.row is not None  # a node is one or the other
    names = ("state", "attempts", "effect_id", "code", "reason", "due_at", "updated_at")
    return {"command": {**node.command.model_dump(), **{n: getattr(node.row, n) for n in names}}, "caused": below}


def one_line(values: dict[str, Any]) -> str:
    """Values on one line."""
    shown = {name: value if isinstance(value, str) else short(value) for name, value in values.items()}
    return "  ".join(f"{name} = {value}" for name, value in shown.items())
