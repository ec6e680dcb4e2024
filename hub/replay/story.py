"""The chain of one case as its history tells it: event → rule → command → effect → later events, as trees.

Of what the ledger has, it can be told while everything else is down. What an event or command was caused by stands in it
(`causationid`); what was caused by nothing of this case begins a tree.
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

SHORTEST = 6
"""Characters of an id that may stand for the whole."""
MANY = 20
"""Candidates that are named."""


@dataclass
class Node:
    """An event or a command, and what it caused, in the order of the history."""

    id: str
    kept: StoredEvent | None = None
    command: Command | None = None
    row: AnyRow | None = None
    """The command's row: its state, attempts, effect and reason."""
    causes: list[Node] = field(default_factory=list)

    @property
    def event(self) -> Event | None:
        """The event, where it is one."""
        return self.kept.event if self.kept is not None else None

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
class CaseStory:
    """All that is known of one case."""

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


def of_case(history: History, case: str) -> CaseStory:
    """The case's story."""
    nodes: dict[str, Node] = {}
    order: list[tuple[str, int, int, Node]] = []
    for at, kept in enumerate(history.of_case(case)):
        nodes[kept.event.id] = Node(kept.event.id, kept=kept)
        order.append((kept.event.recordedtime, 0, at, nodes[kept.event.id]))
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
    """What a reference means: the object, event or command, and its case."""

    ref: str
    case: str


def find(history: History, ref: str) -> list[ResolvedReference]:
    """What people may mean by `ref`: an id of an event or command or its start, an object, or the bare id of one.

    One answer is sure, several are candidates, none is nothing, as far as could be read: see the history's gaps.
    """
    exact = _exact(history, ref)
    if exact is not None:
        return [exact]
    return _named(history, ref) or starting_with(history, ref)


def _exact(history: History, ref: str) -> ResolvedReference | None:
    kept = history.event(ref)
    if kept is not None:
        return ResolvedReference(ref, kept.case or kept.event.subject)
    conn = history.ledger
    if conn is not None:
        command = commands.get(conn, ref.rpartition("/")[2] if ref.startswith(("command/", "request/")) else ref)
        if command is not None:
            return ResolvedReference(command.id, command.case_id)
    case = (links.case_of(conn, ref) if conn is not None else None) or history.case_of(ref)
    return ResolvedReference(ref, case) if case is not None else None


def _named(history: History, ref: str) -> list[ResolvedReference]:
    """Objects whose id over there is this: `P-77` for `project/pm/P-77`. Those in other letters only where none is in these."""
    found = history.named(ref)
    same = [each for each in found if each.ref.endswith(f"/{ref}")]
    linked = (
        links.cases_of(history.ledger, [each.ref for each in found]) if history.ledger is not None and found else {}
    )
    return [ResolvedReference(each.ref, linked.get(each.ref, each.case)) for each in (same or found)[:MANY]]


def starting_with(history: History, start: str) -> list[ResolvedReference]:
    """Events and commands whose id starts so; none for a start that is too short to mean one."""
    if len(start) < SHORTEST:
        return []
    found = [ResolvedReference(each.event.id, each.case) for each in history.starting(start) if each.case]
    if history.ledger is not None:
        found += [ResolvedReference(*row) for row in ids_starting(history.ledger, commands.commands, start)]
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
