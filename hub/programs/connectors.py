"""The connectors program of one home: intake, outbox relay, executor, pollers and web server, started and stopped in order.

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

from hub.config.settings import Quota
from hub.errors import FatalError, HubError, RetryableError
from hub.executor import Executor
from hub.health.watch import watch_of
from hub.home import Home
from hub.intake import correlation
from hub.intake.deferred_intake import DeferredIntake, Redelivery
from hub.intake.intake import Intake
from hub.intake.poller import Poller, Stream
from hub.intake.relay import Relay
from hub.intake.trimmer import Trimmer
from hub.kit import registry
from hub.kit.connector import Connector
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog
from hub.log.kafka_log import KafkaLog
from hub.people_watcher import PeopleWatcher
from hub.programs.starting import open_home
from hub.runtime import logs, watchdog
from hub.runtime.clock import Clock, SystemClock
from hub.runtime.program import begin, mark_ready, raise_file_limit, tune_gc
from hub.runtime.watchdog import HANG_TIMEOUT_S, Heartbeat
from hub.web.bodies import Bodies
from hub.web.health import PATHS, ProgramHealth
from hub.web.proxy import BoardsProxy
from hub.web.refusals import Refusals
from hub.web.webhooks import ListenAddress, Pushes, WebServer

NAME = "connectors"
REFRESH_INTERVAL_S = 2.0
"""Seconds between checks of people.yaml and of the program's own threads."""
LEDGER_RETRY_S = 1.0
"""Seconds until a ledger that is unavailable at startup is retried."""
SWITCH_INTERVAL_S = 0.0005
"""Seconds that a thread may hold the GIL while another waits. A command passes through ten threads on its way."""
CATCH_UP_TIMEOUT_S = 3.0
"""Seconds that startup waits for the log to show whether the ledger is behind it."""
DRAIN_TIMEOUT_S = 5.0
"""Seconds that the relay gets to publish the outbox before the program ends; the rest waits in the ledger."""

log = structlog.get_logger("hub.connectors")  # __name__ is "__main__" here


@dataclass
class Threads:
    """The program's threads. An error in one of them ends the program."""

    failed: Callable[[BaseException], None]
    running: list[threading.Thread] = field(default_factory=list)
    broken: bool = False

    def start(self, name: str, run: Callable[[], None]) -> None:
        """Run a function in a new thread."""

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
        """Wait up to `seconds` in all for the threads to end: one that waits for an outside system may take longer."""
        until = time.monotonic() + seconds
        for thread in self.running:
            thread.join(max(0.0, until - time.monotonic()))


class ConnectorsProgram:
    """One running program. `run` returns after SIGTERM or SIGINT and raises an error that it cannot recover from."""

    def __init__(
        self, home: Home, boards: Path, listening: int | None = None, patience: float = watchdog.HANG_TIMEOUT_S
    ) -> None:
        self._home, self._boards, self._listening, self._patience = home, boards, listening, patience
        self._stop = asyncio.Event()
        self._error: BaseException | None = None

    async def run(self) -> None:
        """Start everything, wait for SIGTERM or SIGINT, stop everything."""
        self._loop = asyncio.get_running_loop()
        Heartbeat.of_environment().follow(self._loop)
        watchdog.follow(self._loop, self._patience)
        for signal_ in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signal_, self._stop.set)
        clock = SystemClock()
        connectors = {name: registry.connect(instance) for name, instance in self._home.instances.items()}
        people = PeopleWatcher(self._home)
        ledger = await self._open_ledger()
        if ledger is None:
            return
        try:
            await self._work(
                RunningParts(self._home, ledger, connectors, people, clock, self._fail, self._boards, self._listening)
            )
        finally:
            ledger.close()
        if self._error is not None:
            raise self._error

    def _fail(self, error: BaseException) -> None:
        """Record a fatal error and stop the program; may be called from any thread."""
        self._error = self._error or error
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _open_ledger(self) -> Ledger | None:
        """The ledger, once it is available; None when the program is stopped before."""
        is_logged = False
        while not self._stop.is_set():
            try:
                return await asyncio.to_thread(Ledger, self._home.ledger_url)
            except RetryableError as error:
                if not is_logged:
                    log.warning("ledger.away", **error.fields())
                is_logged = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), LEDGER_RETRY_S)
        return None

    async def _work(self, parts: RunningParts) -> None:
        try:
            port = await parts.start()
            _prefer_short_waits()
            mark_ready(self._home.data, NAME)
            log.info("ready", port=port, instances=sorted(parts.connectors))
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), REFRESH_INTERVAL_S)
                await asyncio.to_thread(parts.refresh)
                if not parts.executor.healthy():
                    self._fail(parts.executor.failed or FatalError("HUB-E7013"))
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
        people: PeopleWatcher,
        clock: Clock,
        failed: Callable[[BaseException], None],
        boards: Path,
        listening: int | None = None,
    ) -> None:
        self.connectors, self.people = connectors, people
        events: EventLog = KafkaLog({**home.kafka_client(), "reconnect.backoff.max.ms": 1000})
        intake = Intake(ledger, people, clock, correlation.created_kinds(connectors), _quotas(connectors))
        bodies = Bodies()
        self.refusals = Refusals(ledger, clock)
        self.threads = Threads(failed)
        self._refusal_counts: asyncio.Task[None] | None = None
        self.executor = Executor(ledger, events, connectors, people, clock)
        self.relay = Relay(ledger, events, clock, catch_up=self.executor.catch_up)
        self.trimmer = _trimmer(home, ledger, events, clock, self.executor)
        self.deferred_intake = DeferredIntake(ledger, Redelivery(ledger, intake, connectors, clock), clock)
        self.pollers = [Poller(stream, ledger, intake, clock) for stream in _streams(connectors)]
        self.boards_proxy = BoardsProxy(boards, bodies)
        self.watch = watch_of(home, ledger)
        self.health = ProgramHealth(self.relay, self.pollers, self._is_healthy, self.boards_proxy, self.watch.status)
        receivers = {
            name: connector.receives for name, connector in connectors.items() if connector.receives is not None
        }
        self.pushes = Pushes(intake, receivers, bodies, clock, self.refusals)
        self.web_server = WebServer(ListenAddress(*home.web_address, listening), self.pushes, self._answer_other)

    async def start(self) -> int:
        """Start consumers of existing work first, intake last. Returns the web server's port."""
        await self._catch_up_ledger()
        self.threads.start("relay", self.relay.run)
        self.threads.start("second-looks", self.deferred_intake.run)
        if self.trimmer is not None:
            self.threads.start("trim", self.trimmer.run)
        await asyncio.to_thread(self.executor.start)
        for poller in self.pollers:
            self.threads.start(f"poll-{poller.stream.instance}-{poller.stream.name}", poller.run)
        self.watch.start()
        await self.boards_proxy.open()
        self._refusal_counts = asyncio.create_task(self.refusals.run(), name="refusals")
        return await self.web_server.open()

    async def stop(self) -> None:
        """Stop intake, finish the work in progress, then publish what is committed to the outbox."""
        self.watch.stop()
        await self.web_server.drain()
        await self.boards_proxy.close()  # ends the boards' streams, which the web server would wait for
        await self.web_server.close()
        if self._refusal_counts is not None:
            self._refusal_counts.cancel()
        self.refusals.flush()
        self.deferred_intake.stop()
        if self.trimmer is not None:
            self.trimmer.stop()
        for poller in self.pollers:
            poller.stop()
        await asyncio.to_thread(self.executor.stop)
        await asyncio.to_thread(self._drain)
        await asyncio.to_thread(self.threads.join, 2.0)

    async def _catch_up_ledger(self) -> None:
        """Catch the ledger up from the log before the web server starts; with the log unavailable, accept webhooks anyway."""
        thread = threading.Thread(target=self._catch_up, name="catch-up", daemon=True)
        thread.start()
        deadline = time.monotonic() + CATCH_UP_TIMEOUT_S
        while thread.is_alive() and (self.executor.catch_up.is_behind or time.monotonic() < deadline):
            await asyncio.to_thread(thread.join, 0.1)

    def _catch_up(self) -> None:
        try:
            self.executor.catch_up.make_sure()
        except RetryableError as error:
            log.warning("ledger.unsure", **error.fields())

    def refresh(self) -> None:
        """Reload people.yaml when it changed."""
        if self.people.refresh():
            self.executor.wake()

    def _drain(self) -> None:
        if not self.threads.broken and not self.relay.drained(DRAIN_TIMEOUT_S):
            log.warning("relay.left_some", why="the log or the ledger is away; the rest is sent after the next start")
        self.relay.stop()

    def _is_healthy(self) -> bool:
        return not self.threads.broken and self.executor.healthy()

    async def _answer_other(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in PATHS and request.method in ("GET", "HEAD"):
            return await self.health.answer(request)
        return await self.boards_proxy.answer(request)


def _prefer_short_waits() -> None:
    """Tune the interpreter for many threads with short work that wait for each other."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tune_gc()


def _trimmer(home: Home, ledger: Ledger, events: EventLog, clock: Clock, executor: Executor) -> Trimmer | None:
    """The trimmer that bounds the ledger's size; None where `hub.yaml` retains everything."""
    keep = home.config.history
    return None if keep is None else Trimmer(ledger, events, clock, executor.catch_up, keep)


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
    """Run until SIGTERM or SIGINT; the exit code: 0, or 1 after one line on stderr with the error."""
    begin()
    arguments = _arguments()
    raise_file_limit()
    logs.configure(NAME)
    try:
        home = open_home(NAME, arguments.home)
        boards = arguments.boards_socket or home.data / "run" / "boards.sock"
        asyncio.run(ConnectorsProgram(home, boards, arguments.listen_fd, arguments.patience).run())
    except HubError as error:
        where = f" {error.place}" if error.place else ""
        sys.stderr.write(f"{error.code}{where} {error.message()} → {error.fix()}\n")
        return 1
    except Exception:
        log.exception("ended")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.programs.connectors")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--boards-socket", type=Path, help="where the boards' server listens")
    parser.add_argument(
        "--patience",
        type=float,
        default=HANG_TIMEOUT_S,
        help="seconds for one piece of a thread's work, after which it counts as hung",
    )
    parser.add_argument("--listen-fd", type=int, help="the open socket to accept webhooks on, instead of a new one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
