"""The hub's programs in several copies, each kept running as `hub up` keeps its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import hub
from hub.ops.programs import ProgramPlan, SupervisedProgram
from hub.runtime.program import is_ready
from tests.ports import free_port

ACME = Path(hub.__file__).parent / "templates" / "acme"
EMBEDDED = 'kafka: {embedded: true}          # or {bootstrap: "k1:9092,k2:9092", tls: …, sasl: …}'
CLUSTER = """kafka:
  bootstrap: "{bootstrap}"
  tls: {{ca: ca.pem}}
  sasl: {{mechanism: PLAIN, username: hub, password: "${{env:KAFKA_PASSWORD}}"}}"""
WORKERS = ("worker-1", "worker-2", "worker-3")
DOORS = ("1", "2")


def cluster_home(folder: Path, bootstrap: str, ca: Path) -> Path:
    """Acme's home, its log on a cluster."""
    shutil.copytree(ACME, folder)
    config = (folder / "hub.yaml").read_text("utf-8")
    assert EMBEDDED in config
    (folder / "hub.yaml").write_text(config.replace(EMBEDDED, CLUSTER.format(bootstrap=bootstrap)), "utf-8")
    shutil.copy(ca, folder / "ca.pem")
    return folder


class Copies:
    """Three workers, two connectors programs, two projections programs: each with data of its own, as on machines of their own."""

    def __init__(self, home: Path, data: Path, environment: Mapping[str, str]) -> None:
        self.home, self.data = home, data
        self.environment = {**os.environ, **environment, "HUB_LANG": "en", "PYTHONUNBUFFERED": "1"}
        self.ended: list[tuple[str, int | None, list[str]]] = []
        self.programs: dict[str, SupervisedProgram] = {}
        self.ports = {door: free_port() for door in DOORS}
        for name in WORKERS:
            self._add(name, "hub.programs.processor", [], {"HUB_COPY": name})
        for door, port in self.ports.items():
            socket = str(data / f"boards-{door}.sock")
            self._add(
                f"connectors-{door}",
                "hub.programs.connectors",
                ["--boards-socket", socket],
                {"HUB_WEB_PORT": str(port)},
            )
            self._add(f"projections-{door}", "hub.programs.projector", ["--socket", socket], {})

    def _add(self, name: str, module: str, arguments: Sequence[str], more: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", module, "--home", str(self.home), *arguments]
        environment = {**self.environment, **more, "HUB_DATA": str(self.data / name)}
        self.programs[name] = SupervisedProgram(
            ProgramPlan(name, command, Path.cwd(), environment, self.data / f"{name}.log"), self._told
        )

    def _told(self, name: str, what: str, code: int | None, last: Sequence[str]) -> None:
        if what == "ended":
            self.ended.append((name, code, list(last)[-4:]))

    @property
    def urls(self) -> list[str]:
        """Both front doors."""
        return [f"http://127.0.0.1:{port}" for port in self.ports.values()]

    def start(self, prefix: str) -> None:
        """Start those whose names begin so."""
        for name, program in self.programs.items():
            if name.startswith(prefix):
                program.start()

    def ready(self, name: str) -> bool:
        """Whether the process that runs now has said that it is ready."""
        kind = name.partition("-")[0]
        note = {"worker": "processor", "projections": "projector"}.get(kind, kind)
        return is_ready(self.data / name, note, self.programs[name].pid)

    def kill(self, name: str) -> int:
        """kill -9; it is started again at once, as a container would be. Which process it was."""
        pid = self.programs[name].pid
        assert pid is not None, f"{name} does not run"
        os.kill(pid, signal.SIGKILL)
        return pid

    def pids(self) -> dict[str, int]:
        """Name → its process."""
        return {name: program.pid for name, program in self.programs.items() if program.pid is not None}

    def named(self, pid: int) -> str | None:
        """Which copy a process is."""
        return next((name for name, one in self.pids().items() if one == pid), None)

    def stop(self) -> None:
        """Connectors first, as `hub up` stops them."""
        for name in sorted(self.programs, key=lambda name: not name.startswith("connectors")):
            self.programs[name].stop()
