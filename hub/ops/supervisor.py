"""Everything that `hub up` runs, started in order, watched, and stopped in the opposite order."""

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

from hub.config.home import Home
from hub.errors import FatalError, HubError, RetryableError
from hub.log.kafka_log import KafkaLog
from hub.ops.embedded_kafka import BrokerPlan, EmbeddedKafka, ports, wire
from hub.ops.programs import BROKER, LOOK, Alarms, BackOff, Finding, ProgramPlan, Stillness, SupervisedProgram, plain
from hub.runtime import files
from hub.runtime.process import stands_still
from hub.runtime.program import is_ready, keep_private, raise_file_limit
from hub.runtime.run_folder import RunFolder

MODULES = {
    "worker": "hub.programs.processor",
    "connectors": "hub.programs.connectors",
    "projections": "hub.programs.projector",
}
PROGRAMS = tuple(MODULES)
READY_SECONDS = 90.0
WAITING = 1024
"""Connections that may wait while the program which takes them in restarts."""
NOTE_AGAIN = 1.0
"""Seconds until notes that could not be written are tried again."""

Say = Callable[[str, Mapping[str, object]], None]
"""Told (what, facts): `broker`, `topics`, `ready`, `restarted`, `ended`, `alarm`, …"""


@dataclass
class Supervisor:
    """One running hub. `start` returns once it takes pushes and shows boards; `stop` once nothing of it runs."""

    home: Home
    say: Say
    only: Sequence[str] = PROGRAMS
    broker: EmbeddedKafka | None = None
    programs: list[SupervisedProgram] = field(default_factory=list)
    bootstrap: str = ""
    _stopping: threading.Event = field(default_factory=threading.Event)
    _noting: threading.Lock = field(default_factory=threading.Lock)
    _alarms: Alarms = field(default_factory=Alarms)
    _frozen: set[str] = field(default_factory=set)
    _broker_run: tuple[int, Stillness] | None = None
    _door: socket.socket | None = None
    """Where pushes arrive. It stays open while the program behind it restarts: who comes meanwhile waits, and is not refused."""

    @property
    def run(self) -> RunFolder:
        """Where its notes are."""
        return RunFolder(self.home.data / "run")

    def start(self) -> None:
        """Start the broker, make the topics, start the programs, wait until they are ready."""
        from hub.log.topics import ensure_topics

        raise_file_limit()  # the broker and every program inherit it
        keep_private(self.home.data)
        files.check(self.run.socket)
        self._open_door()
        if self.home.config.kafka.embedded:
            self._start_broker()
        client = self.home.kafka_client(self.bootstrap or None)
        self.bootstrap = str(client["bootstrap.servers"])
        made = ensure_topics(client, replication=self.home.config.kafka.replication)
        self.say("topics", {"made": len(made)})
        self._refuse_strangers()
        for name in self.only:
            program = SupervisedProgram(self._plan(name), self._told, self._heard)
            self.programs.append(program)
            program.start()
        self._note()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._until_ready()

    def _refuse_strangers(self) -> None:
        """Raise FatalError when log, ledger and boards are not of one hub: its programs could only restart for ever."""
        from hub.ops.recovery import survey

        if not self.only:
            return
        with contextlib.suppress(RetryableError):  # a database that is away: the programs wait for it
            survey(self.log(), self.home.ledger_url, self.home.boards_url).refuse()

    def _open_door(self) -> None:
        """Take the pages' port, or say who has it, before anything is started."""
        host, port = self.home.web_address
        if "connectors" not in self.only:
            return
        if not ports.is_free(port):
            raise FatalError("HUB-E1016", port=port, by=ports.occupant(port))
        self._door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._door.bind((host, port))
        self._door.listen(WAITING)

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
        """Start the broker again, on its old port, whenever it ends without being told to."""
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
        """Look for programs that stand still: say so, and end those that go on with it, as their keepers start them again."""
        while not self._stopping.wait(LOOK):
            found: dict[str, Finding] = {program.plan.name: program.look(time.monotonic()) for program in self.programs}
            found["broker"] = self._look_at_broker()
            frozen = {name for name, finding in found.items() if finding != "well"}
            for name in frozen - self._frozen:
                self.say("frozen", {"program": name})
            for name, finding in found.items():
                if finding == "dead":
                    self.say("ending", {"program": name})
            if frozen != self._frozen:
                self._frozen = frozen
                self._note()

    def _look_at_broker(self) -> Finding:
        """As `SupervisedProgram.look`; the broker beats by answering."""
        broker = self.broker
        if broker is None or not broker.running:
            return "well"
        pid = broker.pid
        if self._broker_run is None or self._broker_run[0] != pid:
            self._broker_run = (pid, Stillness(BROKER))
        answered = wire.is_kafka(int(self.bootstrap.rpartition(":")[2]))
        found = self._broker_run[1].look(time.monotonic(), beaten=answered, is_stopped=stands_still(pid))
        if found == "dead" and broker.running and not self._stopping.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def _plan(self, name: str) -> ProgramPlan:
        command = [sys.executable, "-m", MODULES[name], "--home", str(self.home.path)]
        if name == "projections":
            command += ["--socket", str(self.run.socket)]
        if name == "connectors":
            command += ["--boards-socket", str(self.run.socket)]
            command += ["--listen-fd", str(self._door.fileno())] if self._door is not None else []
        environment = {
            **os.environ,
            "HUB_KAFKA": self.bootstrap,
            "HUB_DATA": str(self.home.data),
            "PYTHONUNBUFFERED": "1",
        }
        inherits = [self._door.fileno()] if name == "connectors" and self._door is not None else []
        return ProgramPlan(name, command, Path.cwd(), environment, Path(self._log_of(name)), inherits)

    def _told(self, program: str, what: str, number: int | None, last: Sequence[str]) -> None:
        self._note()
        if what == "ended":
            self.say("ended", {"program": program, "code": number, "last": plain(last), "log": self._log_of(program)})

    def _heard(self, line: str) -> None:
        alarm = self._alarms.of(line)
        if alarm is not None:
            self.say("alarm", alarm)

    def _log_of(self, program: str) -> str:
        return str(self.home.data / "logs" / f"{program}.log")

    def _note(self) -> None:
        """Tell others what runs now. Each program's keeper calls it, from a thread of its own.

        A disk that is full must not take a keeper with it: the notes are written once there is room.
        """
        with self._noting:
            try:
                self._write_note()
            except OSError:
                if not self._stopping.is_set():
                    later = threading.Timer(NOTE_AGAIN, self._note)
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
        """Where its pages are."""
        return self.home.web_url

    def _until_ready(self) -> None:
        """Wait for the programs' ready notes; raises RetryableError with the last lines of one that does not come up."""
        deadline = time.monotonic() + READY_SECONDS
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
        """Stop what takes work in, then the other programs at once, then the broker; one that fails to stop leaves none running."""
        self._stopping.set()
        with contextlib.ExitStack() as rest:  # its callbacks are called whatever the ones before raise
            if self.broker is not None:
                rest.callback(self.broker.stop)
            rest.callback(_at_once, [program.stop for program in self.programs])
            rest.callback(_at_once, [p.stop for p in self.programs if p.plan.name == "connectors"])
            if self._door is not None:
                self._door.close()

    def kill(self) -> None:
        """SIGKILL to everything, at once and without waiting. Only for who leaves right after it."""
        self._stopping.set()
        for program in self.programs:
            if program.process is not None and program.process.running:
                with contextlib.suppress(OSError, RuntimeError):
                    program.process.kill()
        if self.broker is not None and self.broker.running:
            with contextlib.suppress(OSError, RuntimeError):
                os.kill(self.broker.pid, signal.SIGKILL)


def _at_once(stops: Sequence[Callable[[], None]]) -> None:
    """Call all beside each other, and wait for all."""
    threads = [threading.Thread(target=stop, daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
