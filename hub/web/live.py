"""Live updates by server-sent events: one stream per tab, with the names of stale parts and never their content."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from fastapi.sse import ServerSentEvent

from hub.kit.projection import Board
from hub.projector.folding import RowChange
from hub.projector.store import BoardStore

BATCH_PAUSE_S = 0.1
"""Seconds between two batches of one stream: changes in between are sent together."""
REFRESH = "refresh"
HEARTBEAT_INTERVAL_S = 5.0
"""Seconds without a message after which a stream sends a heartbeat: a page treats a silent stream as lost."""


def part_event(board: str, part: str) -> str:
    """The event name for a stale part of a board."""
    return f"part-{board}-{part}"


def fresh_event(board: str) -> str:
    """The event name for a change of a board's freshness ("data as of")."""
    return f"fresh-{board}"


@dataclass(eq=False)
class Listener:
    """The stream of one open page. Used on the event loop only."""

    stale: set[str] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """Broadcasts which parts changed. Runners report commits from their threads; the streams run on one event loop.

    `head` is the version of all boards: how much of the log each reflects. A page with another head must fetch everything.
    """

    def __init__(self, boards: Mapping[str, Board]) -> None:
        self.boards = boards
        self.closed = False
        self.head = ""
        """The current version; equal only for equal board states."""
        self._heads: dict[str, int] = {}
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def tabs(self) -> int:
        """The number of open streams."""
        return len(self._listeners)

    def bind(self, loop: asyncio.AbstractEventLoop, heads: Mapping[str, int]) -> None:
        """Start on this loop, with the boards' current heads."""
        self._loop = loop
        self._heads = dict(heads)
        self._publish(set())

    def on_commit(self, name: str, changes: Sequence[RowChange], at: int) -> None:
        """Announce a commit of a board, which now reflects `at` records of the log."""
        board = self.boards.get(name)
        if board is None:
            return
        touched = {part for change in changes for row in (change.before, change.after) for part in board.parts_of(row)}
        with self._lock:
            self._heads[name] = at
        self._announce({part_event(name, part) for part in touched} | {fresh_event(name)})

    def update_heads(self, heads: Mapping[str, int]) -> None:
        """Compare with the heads in the store: a board that another program wrote may have changed in every part."""
        with self._lock:
            moved = [name for name, at in heads.items() if at != self._heads.get(name)]
            self._heads.update({name: heads[name] for name in moved})
        parts = {part_event(name, part) for name in moved for part in self.boards[name].parts}
        self._announce(parts | {fresh_event(name) for name in moved})

    def announce_stale(self, events: set[str]) -> None:
        """Announce stale parts that belong to no board."""
        self._announce(events)

    def announce_freshness(self, names: Sequence[str]) -> None:
        """Announce boards that became late or caught up."""
        self._announce({fresh_event(name) for name in names})

    def _announce(self, events: set[str]) -> None:
        if events and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, events)

    def _publish(self, events: set[str]) -> None:
        """Runs on the loop, so that a stream never sends a head before the changes that it includes."""
        with self._lock:
            self.head = ".".join(f"{name}-{at}" for name, at in sorted(self._heads.items()))
        for listener in self._listeners:
            listener.stale |= events
            listener.woken.set()

    def close(self) -> None:
        """End every stream; may be called from any thread."""
        self.closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, set())

    async def stream(self, after: str | None) -> AsyncIterator[ServerSentEvent]:
        """Yield the names of parts as they become stale. A page with another head first gets a refresh message."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield _message(REFRESH if after != self.head else None, self.head)
            while not self.closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(listener.woken.wait(), HEARTBEAT_INTERVAL_S)
                if not listener.woken.is_set():
                    yield _message("beat", self.head)
                    continue
                listener.woken.clear()
                stale, listener.stale = sorted(listener.stale), set()
                head = self.head
                for name in stale:
                    yield _message(name, head)
                await asyncio.sleep(BATCH_PAUSE_S)
        finally:
            self._listeners.discard(listener)


def _message(name: str | None, head: str) -> ServerSentEvent:
    if name is None:
        return ServerSentEvent(id=head)
    return ServerSentEvent(event=name, raw_data="1", id=head)


def heads_of(store: BoardStore, names: Sequence[str]) -> dict[str, int]:
    """How much of the log each board reflects."""
    return {name: sum(place.next_offset for place in store.places(name).values()) for name in names}
