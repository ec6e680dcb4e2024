"""The connectors of one home: everything between the outside systems and the log, joined, watched and stopped in order.

`python -m hub.programs.connectors --home DIR [--boards-socket PATH]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from aiohttp import web

from hub.config.home import Home
from hub.config.settings import Quota
from hub.errors import FatalError, HubError, RetryableError
from hub.executor import Executor
from hub.health.watch import watch_of
from hub.intake import correlation
from hub.intake.deferred_intake import Redelivery, SecondLooks
from hub.intake.intake import Intake
from hub.intake.poller import Poller, Stream
from hub.intake.relay import Relay
from hub.intake.trimmer import Trimmer
from hub.kit import registry
from hub.kit.connector import Connector
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog
from hub.log.kafka_log import KafkaLog
from hub.people import PeopleWatcher
from hub.runtime import logs, watchdog
from hub.runtime.clock import Clock, SystemClock
from hub.runtime.program import begin, collect_seldom, keep_private, raise_file_limit, say_ready
from hub.runtime.watchdog import PATIENCE, Heart
from hub.web.bodies import Bodies
from hub.web.health import PATHS, ProgramHealth
from hub.web.passage import Passage
from hub.web.refusals import Refusals
from hub.web.webhooks import FrontDoor, ListenAddress, Pushes

NAME = "connectors"
REFRESH = 2.0
"""Seconds between looks at people.yaml and at the program's own threads."""
AGAIN = 1.0
"""Seconds until a ledger that is away at the start is tried again."""
TURN = 0.0005
"""Seconds that a thread may keep the interpreter while another waits. A command passes through ten threads on its way."""
FIRST_ANSWER = 3.0
"""Seconds that the log gets to say whether the ledger is behind it."""
DRAIN = 5.0
"""Seconds that the relay gets to send what was committed before the program ends; the rest waits in the ledger."""

log = structlog.get_logger(__name__)


@dataclass
class Threads:
    """The program's threads. One that ends by an error ends the program."""

    failed: Callable[[BaseException], None]
    running: list[threading.Thread] = field(default_factory=list)
    broken: bool = False

    def start(self, name: str, run: Callable[[], None]) -> None:
        """Run something in a thread of its own."""

        def guarded() -> None:
            try:
                run()
            except BaseException as error:
                self.broken = True
                self.failed(error)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self.running.append(thread)

    def join(self, seconds: float) -> None:
        """Wait for all to end, at most so long together: one that waits for an outside system may take longer."""
        until = time.monotonic() + seconds
        for thread in self.running:
            thread.join(max(0.0, until - time.monotonic()))


class ConnectorsProgram:
    """One running program. `run` returns when it was told to stop; raises what it cannot go on with."""

    def __init__(
        self, home: Home, boards: Path, listening: int | None = None, patience: float = watchdog.PATIENCE
    ) -> None:
        self._home, self._boards, self._listening, self._patience = home, boards, listening, patience
        self._stop = asyncio.Event()
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Start everything, wait for SIGTERM or SIGINT, stop everything."""
        self._loop = asyncio.get_running_loop()
        Heart.of_environment().follow(self._loop)
        watchdog.follow(self._loop, self._patience)
        for signal_ in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signal_, self._stop.set)
        clock = SystemClock()
        connectors = {name: registry.connect(instance) for name, instance in self._home.instances.items()}
        staff = PeopleWatcher(self._home)
        ledger = await self._opened()
        if ledger is None:
            return
        try:
            await self._work(
                RunningParts(self._home, ledger, connectors, staff, clock, self._failed, self._boards, self._listening)
            )
        finally:
            ledger.close()
        if self._error is not None:
            raise self._error

    def _failed(self, error: BaseException) -> None:
        """Told by any thread: the program cannot go on."""
        self._error = self._error or error
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _opened(self) -> Ledger | None:
        """The ledger, once it is there; None when the program is told to stop before."""
        away = False
        while not self._stop.is_set():
            try:
                return await asyncio.to_thread(Ledger, self._home.ledger_url)
            except RetryableError as error:
                if not away:
                    log.warning("ledger.away", **error.fields())
                away = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), AGAIN)
        return None

    async def _work(self, parts: RunningParts) -> None:
        try:
            port = await parts.start()
            _prefer_short_waits()
            say_ready(self._home.data, NAME)
            log.info("ready", port=port, instances=sorted(parts.connectors))
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), REFRESH)
                await asyncio.to_thread(parts.refresh)
                if not parts.executor.healthy():
                    self._failed(parts.executor.failed or FatalError("HUB-E7013"))
        finally:
            await parts.stop()
            log.info("stopped")


class RunningParts:
    """The parts of a running program, and the order in which they start and stop."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        connectors: Mapping[str, Connector],
        staff: PeopleWatcher,
        clock: Clock,
        failed: Callable[[BaseException], None],
        boards: Path,
        listening: int | None = None,
    ) -> None:
        self.connectors, self.staff = connectors, staff
        events: EventLog = KafkaLog({**home.kafka_client(), "reconnect.backoff.max.ms": 1000})
        intake = Intake(ledger, staff, clock, correlation.creates(connectors), _quotas(connectors))
        bodies = Bodies()
        self.refusals = Refusals(ledger, clock)
        self.threads = Threads(failed)
        self._sums: asyncio.Task[None] | None = None
        self.executor = Executor(ledger, events, connectors, staff, clock)
        self.relay = Relay(ledger, events, clock, recall=self.executor.recall)
        self.trimmer = _trimmer(home, ledger, events, clock, self.executor)
        self.looks = SecondLooks(ledger, Redelivery(ledger, intake, connectors, clock), clock)
        self.pollers = [Poller(stream, ledger, intake, clock) for stream in _streams(connectors)]
        self.passage = Passage(boards, bodies)
        self.watch = watch_of(home, ledger)
        self.health = ProgramHealth(self.relay, self.pollers, self._working, self.passage, self.watch.verdict)
        receivers = {name: one.receives for name, one in connectors.items() if one.receives is not None}
        self.pushes = Pushes(intake, receivers, bodies, clock, self.refusals)
        self.door = FrontDoor(ListenAddress(*home.web_address, listening), self.pushes, self._rest)

    async def start(self) -> int:
        """Start: what carries on first, what takes in last. The front door's port."""
        await self._recalled()
        self.threads.start("relay", self.relay.run)
        self.threads.start("second-looks", self.looks.run)
        if self.trimmer is not None:
            self.threads.start("trim", self.trimmer.run)
        await asyncio.to_thread(self.executor.start)
        for poller in self.pollers:
            self.threads.start(f"poll-{poller.stream.instance}-{poller.stream.name}", poller.run)
        self.watch.start()
        await self.passage.open()
        self._sums = asyncio.create_task(self.refusals.run(), name="refusals")
        return await self.door.open()

    async def stop(self) -> None:
        """Take no more in, finish what was begun, then send what is committed."""
        self.watch.stop()
        await self.door.turn_away()
        await self.passage.close()  # ends the boards' streams, which the door would wait for
        await self.door.close()
        if self._sums is not None:
            self._sums.cancel()
        self.refusals.flush()
        self.looks.stop()
        if self.trimmer is not None:
            self.trimmer.stop()
        for poller in self.pollers:
            poller.stop()
        await asyncio.to_thread(self.executor.stop)
        await asyncio.to_thread(self._drain)
        await asyncio.to_thread(self.threads.join, 2.0)

    async def _recalled(self) -> None:
        """Have the ledger know what the log holds of it before the door opens. With the log away pushes are taken all the same."""
        looking = threading.Thread(target=self._recall, name="recall", daemon=True)
        looking.start()
        until = time.monotonic() + FIRST_ANSWER
        while looking.is_alive() and (self.executor.recall.is_behind or time.monotonic() < until):
            await asyncio.to_thread(looking.join, 0.1)

    def _recall(self) -> None:
        try:
            self.executor.recall.make_sure()
        except RetryableError as error:
            log.warning("ledger.unsure", **error.fields())

    def refresh(self) -> None:
        """Look for other people."""
        if self.staff.refresh():
            self.executor.wake()

    def _drain(self) -> None:
        if not self.threads.broken and not self.relay.drained(DRAIN):
            log.warning("relay.left_some", why="the log or the ledger is away; the rest is sent after the next start")
        self.relay.stop()

    def _working(self) -> bool:
        return not self.threads.broken and self.executor.healthy()

    async def _rest(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in PATHS and request.method in ("GET", "HEAD"):
            return await self.health.answer(request)
        return await self.passage.answer(request)


def _prefer_short_waits() -> None:
    """Set the interpreter for many threads that each have little to do, and others that wait for it."""
    sys.setswitchinterval(TURN)
    collect_seldom()


def _trimmer(home: Home, ledger: Ledger, events: EventLog, clock: Clock, executor: Executor) -> Trimmer | None:
    """What keeps the ledger from growing; None where `hub.yaml` has it keep everything."""
    keep = home.config.history
    return None if keep is None else Trimmer(ledger, events, clock, executor.recall, keep)


def _quotas(connectors: Mapping[str, Connector]) -> Mapping[str, Quota]:
    return {name: connector.quota for name, connector in connectors.items()}


def _streams(connectors: Mapping[str, Connector]) -> list[Stream]:
    return [
        Stream(name, stream, connector.polls)
        for name, connector in connectors.items()
        if connector.polls is not None
        for stream in connector.polls.streams
    ]


def main() -> int:
    """Run until told to stop; 0 then, 1 after saying in one line why it cannot go on."""
    begin()
    asked = _arguments()
    raise_file_limit()
    logs.configure("connectors")
    try:
        home = Home.load(asked.home)
        logs.configure("connectors", home.secrets)
        keep_private(home.data)
        boards = asked.boards_socket or home.data / "run" / "boards.sock"
        asyncio.run(ConnectorsProgram(home, boards, asked.listen_fd, asked.patience).run())
    except HubError as error:
        where = f" {error.place}" if error.place else ""
        sys.stderr.write(f"{error.code}{where} {error.message()} → {error.fix()}\n")
        return 1
    except Exception:
        structlog.get_logger(__name__).exception("ended")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.programs.connectors")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--boards-socket", type=Path, help="where the boards' server listens")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds for one piece of a thread's work, after which it hangs",
    )
    parser.add_argument("--listen-fd", type=int, help="the open socket to take pushes from, instead of one of its own")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
