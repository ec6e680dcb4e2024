"""A look at a hub finds what waits and since when, stage by stage, on either store and without changing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Connection

from hub.errors import RetryableError
from hub.health.ledger_look import look
from hub.health.looking import BoardPlace, Looker
from hub.health.status import Facts, HealthLimits, HealthState, Queue, Stage
from hub.health.watch import BLIND_AFTER_S, Watch
from hub.health.words import DEAL_WON
from hub.ledger import commands, cursors, leases, outbox, parked
from hub.ledger.ledger import Ledger
from hub.log.memory_log import MemoryLog
from hub.runtime.clock import FixedClock
from schemas.envelope import format_time, parse_time
from schemas.topics import EVENTS
from tests.board_events import Relay
from tests.events import AT, command, event, won
from tests.memory_look import MemoryLook

NOW = parse_time(AT) + timedelta(seconds=100)
LATER = format_time(NOW + timedelta(hours=1))


def ago(seconds: float) -> str:
    return format_time(NOW - timedelta(seconds=seconds))


def found(ledger: Ledger, stage: Stage, where: str = "") -> Queue | None:
    with ledger.reading() as conn:
        queues = look(conn, NOW, {"crm": 2.0, "pm": 5.0}).queues
    return next((queue for queue in queues if queue.key == (stage, where)), None)


def test_an_empty_ledger_has_nothing_that_waits(ledger: Ledger) -> None:
    with ledger.reading() as conn:
        seen = look(conn, NOW, {"crm": 2.0})
    assert (seen.queues, seen.streams, seen.halted, seen.parked, seen.lease_expired_s) == ((), (), (), {}, None)
    assert seen.instances == {"crm": "ok"}


def test_accepted_events_wait_for_the_relay_until_they_are_published(ledger: Ledger) -> None:
    ledger.writer.run(lambda conn: outbox.record(conn, [won(), won("O-2", recordedtime=ago(5))], "crm"))
    waiting = found(ledger, "relay")
    assert waiting is not None
    assert (waiting.count, waiting.age(NOW), waiting.types) == (2, 100.0, {DEAL_WON: 2})

    def publish(conn: Connection) -> None:
        rows = outbox.take(conn, 10, 12)
        outbox.mark_published(conn, [row.id for row in rows], AT)

    ledger.writer.run(publish)
    assert found(ledger, "relay") is None


def test_held_news_are_late_only_when_no_call_is_under_way_that_may_have_made_their_object(ledger: Ledger) -> None:
    ledger.writer.run(lambda conn: outbox.hold(conn, won("O-2"), "pm", ago(40)))
    waiting = found(ledger, "held")
    assert waiting is not None
    assert (waiting.count, waiting.age(NOW)) == (1, 40.0)
    (call,) = accepted(ledger, 0)

    def begin(conn: Connection) -> None:
        row = commands.get(conn, call)
        assert row is not None
        commands.take(conn, [(row, LATER)], "me", AT)

    ledger.writer.run(begin)
    assert found(ledger, "held") is None


def accepted(ledger: Ledger, *positions: int, at: str = AT) -> list[str]:
    asked = [command(won(), position=position) for position in positions]
    ledger.writer.run(lambda conn: commands.accept_all(conn, [(one, one.to_json()) for one in asked], at))
    return [one.id for one in asked]


def test_a_command_that_nobody_begins_waits_since_it_could_have_been(ledger: Ledger) -> None:
    first, _ = accepted(ledger, 0, 1)
    waiting = found(ledger, "calls", "pm")
    assert waiting is not None
    assert (waiting.count, waiting.age(NOW), waiting.busy, waiting.code) == (2, 100.0, False, None)

    def done(conn: Connection) -> None:
        row = commands.get(conn, first)
        assert row is not None
        commands.take(conn, [(row, LATER)], "me", AT)

    ledger.writer.run(done)
    assert found(ledger, "calls", "pm") is None  # the second waits behind the first, as it should
    ledger.writer.run(lambda conn: commands.end(conn, first, "me", "DONE", ago(3)))
    behind = found(ledger, "calls", "pm")
    assert behind is not None
    assert (behind.count, behind.age(NOW)) == (1, 3.0)


def test_a_system_that_fails_is_told_by_the_code_of_its_failure(ledger: Ledger) -> None:
    (first,) = accepted(ledger, 0)

    def fails(conn: Connection) -> None:
        row = commands.get(conn, first)
        assert row is not None
        commands.take(conn, [(row, LATER)], "me", AT)
        commands.end(conn, first, "me", "RETRY", ago(1), due_at=LATER, code="HUB-E4001")

    ledger.writer.run(fails)
    waiting = found(ledger, "calls", "pm")
    assert waiting is not None
    assert (waiting.code, waiting.age(NOW)) == ("HUB-E4001", 100.0)


def test_streams_instances_and_parked_work_are_seen(ledger: Ledger) -> None:
    paused = event("hub.connector.paused", "connector/hub/crm", data={"reason": "no"})

    def work(conn: Connection) -> None:
        cursors.move(conn, "crm", "deals", "17", ago(600))
        cursors.move(conn, "gone", "deals", "17", AT)
        outbox.record(conn, [paused], "crm")
        row = {"ref": "event/e1", "kind": "event", "code": "HUB-E6001", "seen": {}, "body": b"{", "parked_at": AT}
        parked.park(conn, row)
        leases.acquire(conn, "commands", "me", 60.0)

    ledger.writer.run(work)
    with ledger.reading() as conn:
        seen = look(conn, NOW, {"crm": 2.0, "pm": 5.0})
    (stream,) = seen.streams
    assert (stream.instance, stream.stream, stream.interval) == ("crm", "deals", 2.0)
    assert seen.instances == {"crm": "paused", "pm": "ok"}
    assert (seen.parked, seen.lease_expired_s) == ({"event": 1}, 0.0)


class Scene:
    """A hub in memory, looked at as a whole."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.clock, self.relay = ledger, FixedClock(NOW), Relay(MemoryLog())
        self.log = MemoryLook(self.relay.log)  # type: ignore[arg-type]
        self.places: dict[str, BoardPlace] = {}
        self.away = False

    @contextmanager
    def reading(self) -> Iterator[Connection | None]:
        with self.ledger.reading() as conn:
            yield conn

    def boards(self) -> dict[str, BoardPlace]:
        if self.away:
            raise RetryableError("HUB-E5002", url="boards", reason="gone")
        return self.places

    def look(self) -> Facts:
        looker = Looker(self.reading, self.boards, lambda: self.log, lambda: (True, ()), {}, clock=self.clock)
        return looker.look()

    def all_folded(self) -> None:
        self.log.committed = self.relay.log.ends(EVENTS.name)

    def all_shown(self) -> None:
        self.places = {"tasks": BoardPlace(self.relay.log.ends(EVENTS.name), format_time(self.clock.now()))}


@pytest.fixture
def scene(ledger: Ledger) -> Scene:
    return Scene(ledger)


def test_what_lies_in_the_log_waits_for_the_rules_and_then_for_the_boards(scene: Scene) -> None:
    scene.all_shown()
    (sent,) = scene.relay.send([won()])
    rules, board = scene.look().queues
    assert (rules.stage, rules.count, rules.age(NOW), rules.types) == ("rules", 1, 100.0, {DEAL_WON: 1})
    assert (board.stage, board.where, board.count, board.age(NOW)) == ("boards", "tasks", 1, 100.0)
    assert sent.recordedtime == AT
    scene.all_folded()
    scene.all_shown()
    (board,) = scene.look().queues
    assert (board.count, board.age(NOW)) == (0, 0.0)


def test_a_board_whose_writer_has_gone_grows_old_without_news(scene: Scene) -> None:
    scene.all_shown()
    scene.clock.advance(30.0)
    (board,) = scene.look().queues
    assert (board.count, board.age(scene.clock.now())) == (0, 30.0)


def test_a_store_that_is_away_is_told_and_the_rest_is_looked_at(scene: Scene) -> None:
    scene.relay.send([won()])
    scene.away = True
    facts = scene.look()
    assert [away.store for away in facts.away] == ["boards"]
    assert [queue.stage for queue in facts.queues] == ["rules"]


def test_a_worker_that_stands_still_is_told_within_the_limit_and_one_that_moves_is_slow(scene: Scene) -> None:
    watch = Watch(scene.look, HealthLimits(), scene.clock)
    assert watch.status() is None
    scene.all_shown()
    assert watch.turn().ok
    scene.relay.send([won(recordedtime=format_time(scene.clock.now()))])
    for _ in range(7):
        scene.clock.advance(2.0)
        scene.all_shown()
        assert watch.turn().ok
    for _ in range(2):
        scene.clock.advance(2.0)
        scene.all_shown()
        watch.turn()
    told = watch.status()
    assert told is not None
    assert (told.state, [trouble.kind for trouble in told.troubles]) == (HealthState.STALLED, ["rules"])
    partition = next(p for p, end in scene.relay.log.ends(EVENTS.name).items() if end)
    scene.relay.send([won("O-1", version="8", recordedtime=format_time(scene.clock.now() - timedelta(minutes=2)))])
    scene.log.committed = {partition: 1}
    scene.all_shown()
    assert watch.turn().state is HealthState.DEGRADED
    scene.all_folded()
    assert watch.turn().ok


def test_a_watch_that_stands_still_itself_says_so(scene: Scene) -> None:
    scene.all_shown()
    watch = Watch(scene.look, HealthLimits(), scene.clock)
    watch.turn()
    scene.clock.advance(BLIND_AFTER_S + 1)
    told = watch.status()
    assert told is not None
    assert (told.state, told.troubles[0].kind) == (HealthState.STALLED, "blind")
