"""Parts of the hub that run in a thread, run for as long as a test needs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Runs(Protocol):
    """What has a thread of its own."""

    def run(self) -> None:
        """Work until stopped."""

    def stop(self) -> None:
        """End `run` soon."""


Part = TypeVar("Part", bound=Runs)


@contextmanager
def background(part: Part) -> Iterator[Part]:
    """Run a part beside the test; an error in its thread is the test's."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            part.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield part
    finally:
        part.stop()
        thread.join(10)
    assert not thread.is_alive()
    if errors:
        raise errors[0]
