"""Telling open pages what to fetch again: one stream a tab, carrying the names of parts and never their content."""

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

GAP = 0.1
"""Seconds between two messages of one stream: what changes meanwhile goes out together."""
REFRESH = "refresh"
BEAT = 5.0
"""Seconds of silence after which a stream says that it lives: a page whose stream falls silent takes it for lost."""


def part_event(board: str, part: str) -> str:
    """The name under which a part is told to be stale."""
    return f"part-{board}-{part}"


def fresh_event(board: str) -> str:
    """The name under which a board's "data as of" is told to have changed."""
    return f"fresh-{board}"


@dataclass(eq=False)
class Listener:
    """One open page. Only touched on the event loop."""

    stale: set[str] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Live:
    """Knows which parts changed. Runners, in their threads, tell it what they wrote; streams live on one event loop.

    `head` says how much of the log each board reflects. A page at another state must fetch everything.
    """

    def __init__(self, boards: Mapping[str, Board]) -> None:
        self.boards = boards
        self.closed = False
        self.head = ""
        """The state that pages can be at; equal only for equal states."""
        self._heads: dict[str, int] = {}
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def tabs(self) -> int:
        """How many streams are open."""
        return len(self._listeners)

    def bind(self, loop: asyncio.AbstractEventLoop, heads: Mapping[str, int]) -> None:
        """Begin on this loop, with the boards as they stand."""
        self._loop = loop
        self._heads = dict(heads)
        self._spread(set())

    def told(self, name: str, changes: Sequence[RowChange], at: int) -> None:
        """A board was written up to `at` records of the log."""
        board = self.boards.get(name)
        if board is None:
            return
        touched = {part for change in changes for row in (change.before, change.after) for part in board.parts_of(row)}
        with self._lock:
            self._heads[name] = at
        self._announce({part_event(name, part) for part in touched} | {fresh_event(name)})

    def seen(self, heads: Mapping[str, int]) -> None:
        """What the store says now: a board that another program has written changed everywhere, as far as we know."""
        with self._lock:
            moved = [name for name, at in heads.items() if at != self._heads.get(name)]
            self._heads.update({name: heads[name] for name in moved})
        parts = {part_event(name, part) for name in moved for part in self.boards[name].parts}
        self._announce(parts | {fresh_event(name) for name in moved})

    def tell(self, events: set[str]) -> None:
        """Parts that are no board's are stale."""
        self._announce(events)

    def freshness(self, names: Sequence[str]) -> None:
        """These boards became late, or are no longer."""
        self._announce({fresh_event(name) for name in names})

    def _announce(self, events: set[str]) -> None:
        if events and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._spread, events)

    def _spread(self, events: set[str]) -> None:
        """On the loop, so that a stream never gives a head out before what changed up to it."""
        with self._lock:
            self.head = ".".join(f"{name}-{at}" for name, at in sorted(self._heads.items()))
        for listener in self._listeners:
            listener.stale |= events
            listener.woken.set()

    def close(self) -> None:
        """End every stream; may be called from any thread."""
        self.closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._spread, set())

    async def stream(self, after: str | None) -> AsyncIterator[ServerSentEvent]:
        """Names of stale parts, as they become so. A page at another state than ours is first told to refresh."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield _message(REFRESH if after != self.head else None, self.head)
            while not self.closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(listener.woken.wait(), BEAT)
                if not listener.woken.is_set():
                    yield _message("beat", self.head)
                    continue
                listener.woken.clear()
                stale, listener.stale = sorted(listener.stale), set()
                head = self.head
                for name in stale:
                    yield _message(name, head)
                await asyncio.sleep(GAP)
        finally:
            self._listeners.discard(listener)


def _message(name: str | None, head: str) -> ServerSentEvent:
    if name is None:
        return ServerSentEvent(id=head)
    return ServerSentEvent(event=name, raw_data="1", id=head)


def heads_of(store: BoardStore, names: Sequence[str]) -> dict[str, int]:
    """How much of the log each board reflects."""
    return {name: sum(place.next_offset for place in store.places(name).values()) for name in names}
