"""Who hangs is who was seen at the same piece of work for too long; time in which nobody looked is nobody's fault."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import structlog

from hub.runtime import watchdog
from hub.runtime.watchdog import EXIT_STALLED, ThreadWatch, at_work


def looked(watch: ThreadWatch, start: float, seconds: int) -> set[str]:
    """Who hangs after so many looks, one a second, with a patience of ten."""
    hung: dict[int, watchdog.ThreadWork] = {}
    for second in range(seconds + 1):
        hung = watch.look(start + second, 10.0)
    return {piece.name for piece in hung.values()}


def test_a_thread_that_stays_at_one_piece_hangs_and_one_that_takes_the_next_does_not() -> None:
    watch = ThreadWatch()
    with watch.at_work("relay"):
        assert looked(watch, 0, 9) == set()
        assert looked(watch, 10, 1) == {"relay"}
    assert looked(watch, 20, 100) == set()  # it waits for more
    for start in range(200, 260, 5):
        with watch.at_work("relay"):
            assert looked(watch, start, 4) == set()


def test_headway_within_a_piece_and_the_end_of_a_smaller_one_count() -> None:
    watch = ThreadWatch()
    with watch.at_work("relay"):
        for start in range(0, 60, 6):
            assert looked(watch, start, 5) == set()
            watch.beat()
        with watch.at_work("recall", times=3.0):
            assert looked(watch, 60, 25) == set()
            assert looked(watch, 86, 6) == {"recall"}
        assert looked(watch, 100, 7) == set()


def test_a_machine_that_slept_and_looks_that_came_late_blame_nobody() -> None:
    watch = ThreadWatch()
    with watch.at_work("relay"):
        assert looked(watch, 0, 1) == set()
        for day in range(1, 4):
            assert watch.look(86_400.0 * day, 10.0) == {}


def test_a_thread_that_has_ended_amid_its_work_does_not_hang() -> None:
    watch = ThreadWatch()

    def fails() -> None:
        with pytest.raises(KeyError, match="relay"), watch.at_work("relay"):
            raise KeyError("relay")

    thread = threading.Thread(target=fails)
    thread.start()
    thread.join()
    assert looked(watch, 0, 100) == set()


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """A thread that hangs until the event."""
    begun, over = threading.Event(), threading.Event()

    def hang() -> None:
        with at_work("relay"):
            begun.set()
            over.wait()

    thread = threading.Thread(target=hang)
    thread.start()
    begun.wait()
    yield over
    over.set()
    thread.join()


def test_the_program_says_who_hangs_and_where_and_leaves(stuck: threading.Event) -> None:
    left = list[int]()

    async def program() -> None:
        watchdog.follow(asyncio.get_running_loop(), 0.0, left.append)

    with structlog.testing.capture_logs() as lines:
        asyncio.run(program())
    assert left == [EXIT_STALLED]
    (told,) = lines
    assert (told["event"], told["code"], told["log_level"]) == ("thread.hangs", "HUB-E1017", "error")
    assert "relay" in told["reason"]
    assert any("hang" in place for place in told["stuck_at"])
