"""The supervisor of `hub up`: starts the broker and the programs in order, watches them, and stops them in reverse order."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hub.errors import FatalError, HubError, RetryableError
from hub.home import Home
from hub.log.kafka_log import KafkaLog
from hub.ops.embedded_kafka import BrokerPlan, EmbeddedKafka, ports, wire
from hub.ops.programs import (
    BROKER_STALL_LIMITS,
    POLL_INTERVAL_S,
    Alarms,
    BackOff,
    Liveness,
    ProgramPlan,
    StallDetector,
    SupervisedProgram,
    plain_lines,
)
from hub.runtime import files
from hub.runtime.process import is_suspended
from hub.runtime.program import is_ready, keep_private, raise_file_limit
from hub.runtime.run_folder import RunFolder

MODULES = {
    "processor": "hub.programs.processor",
    "connectors": "hub.programs.connectors",
    "projector": "hub.programs.projector",
}
PROGRAMS = tuple(MODULES)
READY_TIMEOUT_S = 90.0
LISTEN_BACKLOG = 1024
"""Connections that may queue while the program that accepts them restarts."""
NOTE_RETRY_DELAY_S = 1.0
"""Until run notes that could not be written are tried again."""

SupervisorListener = Callable[[str, Mapping[str, object]], None]
"""Called with (what, facts): `broker`, `topics`, `ready`, `restarted`, `ended`, `alarm`, …"""


@dataclass
class Supervisor:
    """One running hub. `start` returns once it accepts deliveries and serves boards; `stop` once all its processes have ended."""

    home: Home
    say: SupervisorListener
    only: Sequence[str] = PROGRAMS
    broker: EmbeddedKafka | None = None
    programs: list[SupervisedProgram] = field(default_factory=list)
    bootstrap: str = ""
    _stopping: threading.Event = field(default_factory=threading.Event)
    _note_lock: threading.Lock = field(default_factory=threading.Lock)
    _alarms: Alarms = field(default_factory=Alarms)
    _frozen: set[str] = field(default_factory=set)
    _broker_run: tuple[int, StallDetector] | None = None
    _listener: socket.socket | None = None
    """The web port's socket. It stays open while the program behind it restarts: new connections queue and are not refused."""

    @property
    def run(self) -> RunFolder:
        """The folder with the run notes."""
        return RunFolder(self.home.data / "run")

    def start(self) -> None:
        """Start the broker, create the topics, start the programs, and wait until they are ready."""
        from hub.log.topics import ensure_topics

        raise_file_limit()  # the broker and every program inherit it
        keep_private(self.home.data)
        files.check_socket_path(self.run.socket)
        self._open_listener()
        if self.home.config.kafka.embedded:
            self._start_broker()
        client = self.home.kafka_client(self.bootstrap or None)
        self.bootstrap = str(client["bootstrap.servers"])
        made = ensure_topics(client, replication=self.home.config.kafka.replication)
        self.say("topics", {"made": len(made)})
        self._refuse_foreign_stores()
        for name in self.only:
            program = SupervisedProgram(self._plan(name), self._on_program_event, self._on_log_line)
            self.programs.append(program)
            program.start()
        self._note()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._until_ready()

    def _refuse_foreign_stores(self) -> None:
        """Raise FatalError when log, ledger and boards do not belong to one hub: its programs would restart without end."""
        from hub.ops.recovery import survey

        if not self.only:
            return
        with contextlib.suppress(RetryableError):  # a database is unreachable: the programs wait for it
            survey(self.log(), self.home.ledger_url, self.home.boards_url).refuse()

    def _open_listener(self) -> None:
        """Listen on the web port before anything starts; raises FatalError that names the program which has the port."""
        host, port = self.home.web_address
        if "connectors" not in self.only:
            return
        if not ports.is_free(port):
            raise FatalError("HUB-E1016", port=port, by=ports.occupant(port))
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(LISTEN_BACKLOG)

    def log(self) -> KafkaLog:
        """The log of the running hub."""
        return KafkaLog(self.home.kafka_client(self.bootstrap))

    def _start_broker(self) -> None:
        plan = BrokerPlan(self.home.data / "kafka", port=self.home.config.kafka.port)
        self.broker = EmbeddedKafka(plan, lambda line, done: self.say("broker.progress", {"line": line, "done": done}))
        began = time.monotonic()
        self.bootstrap = self.broker.start()
        self.say("broker", {"at": self.bootstrap, "seconds": round(time.monotonic() - began, 1)})
        threading.Thread(target=self._keep_broker, name="keep-broker", daemon=True).start()

    def _keep_broker(self) -> None:
        """Restart the broker, on its old port, whenever it ends without `stop`."""
        broker, back_off = self.broker, BackOff()
        assert broker is not None
        while not self._stopping.is_set():
            began = time.monotonic()
            code = broker.wait()
            if self._stopping.is_set():
                return
            why = broker.failure()
            self.say("ended", {"program": "broker", "code": code, "last": [why.message()] if why else [], "log": ""})
            self._stopping.wait(back_off.after(time.monotonic() - began))
            self._restart_broker(broker, back_off)

    def _restart_broker(self, broker: EmbeddedKafka, back_off: BackOff) -> None:
        while not self._stopping.is_set():
            try:
                broker.start()
            except HubError as error:
                self.say("broker.failed", error.fields())
                self._stopping.wait(back_off.after(0))
            else:
                self._note()
                self.say("restarted", {"program": "broker"})
                return

    def _watch(self) -> None:
        """Poll for stalled programs: report each, and kill those that stay stalled, so that their keepers restart them."""
        while not self._stopping.wait(POLL_INTERVAL_S):
            states: dict[str, Liveness] = {
                program.plan.name: program.poll(time.monotonic()) for program in self.programs
            }
            states["broker"] = self._poll_broker()
            frozen = {name for name, liveness in states.items() if liveness != "well"}
            for name in frozen - self._frozen:
                self.say("frozen", {"program": name})
            for name, liveness in states.items():
                if liveness == "dead":
                    self.say("ending", {"program": name})
            if frozen != self._frozen:
                self._frozen = frozen
                self._note()

    def _poll_broker(self) -> Liveness:
        """As `SupervisedProgram.poll`; an answer counts as the broker's heartbeat."""
        broker = self.broker
        if broker is None or not broker.running:
            return "well"
        pid = broker.pid
        if self._broker_run is None or self._broker_run[0] != pid:
            self._broker_run = (pid, StallDetector(BROKER_STALL_LIMITS))
        answered = wire.is_kafka(int(self.bootstrap.rpartition(":")[2]))
        liveness = self._broker_run[1].poll(time.monotonic(), beaten=answered, is_stopped=is_suspended(pid))
        if liveness == "dead" and broker.running and not self._stopping.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return liveness

    def _plan(self, name: str) -> ProgramPlan:
        command = [sys.executable, "-m", MODULES[name], "--home", str(self.home.path)]
        if name == "projector":
            command += ["--socket", str(self.run.socket)]
        if name == "connectors":
            command += ["--boards-socket", str(self.run.socket)]
            command += ["--listen-fd", str(self._listener.fileno())] if self._listener is not None else []
        environment = {
            **os.environ,
            "HUB_KAFKA": self.bootstrap,
            "HUB_DATA": str(self.home.data),
            "PYTHONUNBUFFERED": "1",
        }
        inherits = [self._listener.fileno()] if name == "connectors" and self._listener is not None else []
        return ProgramPlan(name, command, Path.cwd(), environment, Path(self._log_of(name)), inherits)

    def _on_program_event(self, program: str, what: str, number: int | None, last: Sequence[str]) -> None:
        self._note()
        if what == "ended":
            self.say(
                "ended", {"program": program, "code": number, "last": plain_lines(last), "log": self._log_of(program)}
            )

    def _on_log_line(self, line: str) -> None:
        alarm = self._alarms.of(line)
        if alarm is not None:
            self.say("alarm", alarm)

    def _log_of(self, program: str) -> str:
        return str(self.home.data / "logs" / f"{program}.log")

    def _note(self) -> None:
        """Write the run notes: what runs now. Each program's keeper thread calls it.

        A full disk must not end a keeper thread: the notes are written again later.
        """
        with self._note_lock:
            try:
                self._write_note()
            except OSError:
                if not self._stopping.is_set():
                    later = threading.Timer(NOTE_RETRY_DELAY_S, self._note)
                    later.daemon = True
                    later.start()

    def _write_note(self) -> None:
        pids: dict[str, int | None] = {program.plan.name: program.pid for program in self.programs}
        if self.broker is not None:
            pids["broker"] = self.broker.pid if self.broker.running else None
        self.run.note(
            pid=os.getpid(),
            kafka=self.bootstrap,
            web=self.url,
            programs=pids,
            frozen=sorted(self._frozen),
            restarts={program.plan.name: program.restarts for program in self.programs},
        )

    @property
    def url(self) -> str:
        """The address of the hub's pages."""
        return self.home.web_url

    def _until_ready(self) -> None:
        """Wait for the programs' ready notes; raises RetryableError HUB-E1011 that names the log of one that does not come up."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        missing = list(self.only)
        while missing:
            missing = [name for name in missing if not is_ready(self.home.data, name, self._pid(name))]
            if missing and time.monotonic() > deadline:
                program = next(p for p in self.programs if p.plan.name == missing[0])
                raise RetryableError("HUB-E1011", program=missing[0], log=program.plan.log)
            if missing:
                time.sleep(0.05)
        self.say("ready", {"url": self.url})

    def _pid(self, name: str) -> int | None:
        return next(program.pid for program in self.programs if program.plan.name == name)

    def stop(self) -> None:
        """Stop the intake, then the other programs in parallel, then the broker. A failing stop does not skip the others."""
        self._stopping.set()
        with contextlib.ExitStack() as rest:  # runs every callback, even when an earlier one raises
            if self.broker is not None:
                rest.callback(self.broker.stop)
            rest.callback(_in_parallel, [program.stop for program in self.programs])
            rest.callback(_in_parallel, [p.stop for p in self.programs if p.plan.name == "connectors"])
            if self._listener is not None:
                self._listener.close()

    def kill(self) -> None:
        """SIGKILL every process without waiting. Only for a caller that exits right after it."""
        self._stopping.set()
        for program in self.programs:
            if program.process is not None and program.process.running:
                with contextlib.suppress(OSError, RuntimeError):
                    program.process.kill()
        if self.broker is not None and self.broker.running:
            with contextlib.suppress(OSError, RuntimeError):
                os.kill(self.broker.pid, signal.SIGKILL)


def _in_parallel(stops: Sequence[Callable[[], None]]) -> None:
    """Call all in parallel, and wait for all."""
    threads = [threading.Thread(target=stop, daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
