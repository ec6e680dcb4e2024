"""How far something long is, on a terminal; nothing where there is none."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Protocol


class Bar(Protocol):
    """Shows how far each of several things is."""

    def show(self, board: str, done: int, total: int) -> None:
        """So much of so much is done."""


class Silent:
    """For output that is no terminal."""

    def show(self, board: str, done: int, total: int) -> None:
        """Nothing."""


@contextlib.contextmanager
def bar(quiet: bool) -> Iterator[Bar]:
    """A bar on standard error for the time of the block."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Rich(progress)


class _Rich:
    """A bar for each thing."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def show(self, board: str, done: int, total: int) -> None:
        if board not in self._tasks:
            self._tasks[board] = self._progress.add_task(board, total=total)
        self._progress.update(self._tasks[board], completed=done, total=total)
