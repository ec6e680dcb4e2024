"""A whole hub under load, with its outside systems and every handle that a fault needs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson

from tests.acceptance.acme import environment
from tests.acceptance.outside import Mischief, Outside
from tests.acceptance.running import RunningHub, running_hub, until
from tests.faults.growth import Growth
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.surroundings import own_disk, turnable
from tests.postgres_server import PostgresServer
from tests.process_state import is_running

ACME = Path(__file__).parents[2] / "hub" / "templates" / "acme"
PROGRAMS = ("processor", "connectors", "projector", "broker")
HUB = (sys.executable, "-m", "tests.faults.impatient")
POSTGRESQL = 0.6
"""The share of the load that two cores carry beside outages when the database server and the proxy before it run on them too."""
RECOVERY = 60.0
"""Seconds within which a hub is well again after a fault, by itself; more counts as stuck."""
LONGEST = 240.0
"""Seconds after which a stuck hub is given up."""


class Plan(Protocol):
    """What a row says of the load and of the outside systems."""

    @property
    def mischief(self) -> Callable[[int], Mischief]: ...
    @property
    def per_second(self) -> float: ...
    @property
    def repeats(self) -> Sequence[int]: ...
    @property
    def shuffled(self) -> bool: ...
    @property
    def dated(self) -> bool: ...
    @property
    def passing(self) -> int: ...


@dataclass
class Stage:
    """What a row plays on."""

    hub: RunningHub
    outside: Outside
    load: Load
    folder: Path
    postgres: PostgresServer | None = None
    proxies: dict[str, Proxy] = field(default_factory=dict)
    """`target` and `database`: the hub reaches these through proxies."""
    poisoned: int = 0
    """How many bad records a foreign hand has written, all rows together, and how many entries must come of them."""
    must_be_parked: int = 0
    faults: int = 0
    recoveries: list[float] = field(default_factory=list)
    growth: Growth = field(default_factory=Growth)

    def begin(self, row: Plan, seed: int) -> None:
        """Set load and outside systems as a row wants them, and count its faults and recoveries from nothing."""
        self.outside.mischief, self.outside.lag = row.mischief(seed), 0.0
        self.load.per_second = row.per_second * (POSTGRESQL if self.postgres is not None else 1.0)
        self.load.repeats, self.load.shuffled = row.repeats, row.shuffled
        self.load.dated, self.load.passing = row.dated, row.passing
        self.load.repeated = self.load.out_of_order = self.load.odd_dates = self.faults = 0
        self.outside.calls.clear()
        self.recoveries = []

    def kill(self, program: str) -> None:
        """kill -9 one that runs."""
        until(lambda: self.hub.kill(program), LONGEST, f"{program} runs, so that it can be killed")
        self.faults += 1

    def pause(self, program: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while, when it is still there."""
        pid = self.pid(program)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.faults += 1
            time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def ended(self, pids: list[int]) -> None:
        """Make sure that these are gone."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), LONGEST, "all programs are gone")

    def pid(self, program: str) -> int:
        """The process of a program that runs."""
        until(lambda: self.hub.pids().get(program) is not None, LONGEST, f"{program} runs")
        found = self.hub.pids()[program]
        assert found is not None
        return found

    @property
    def ledger(self) -> str:
        """The ledger's URL."""
        told = self.environment_of("connectors")
        return told.get("HUB_LEDGER") or f"sqlite:///{self.folder}/data/ledger.sqlite"

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """The supervisor stands still for the time of the block: it ends and starts nothing, as on a machine without one."""
        assert self.hub.process is not None
        self.hub.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.hub.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def without(self, program: str) -> Iterator[None]:
        """A program is killed, and its supervisor stands still so that it does not come again before the end of the block."""
        pid = self.pid(program)
        with self.unwatched():
            os.kill(pid, signal.SIGKILL)
            until(lambda: not is_running(pid), LONGEST, f"{program} is gone")
            yield

    def environment_of(self, program: str) -> dict[str, str]:
        """The environment that a program was started in."""
        entries = Path(f"/proc/{self.pid(program)}/environ").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def fail_at(self, failpoint: str, nth: int, seconds: float = 30.0, how: str = "exit") -> bool:
        """End, or stop, the program that passes this place for the nth time from now; False when none has within the time."""
        self.arm(failpoint, nth, how)
        return self.fails(seconds)

    def arm(self, failpoint: str, nth: int, how: str = "exit") -> None:
        """The program is to end, or to stop, that passes this place for the nth time from now."""
        (self.folder / "fail").write_text(f"{failpoint}:{nth}:{how}")

    def fails(self, seconds: float = 30.0) -> bool:
        """Wait until it has; False when none has within the time."""
        plan = self.folder / "fail"
        deadline = time.monotonic() + seconds
        while plan.read_text():
            if time.monotonic() > deadline:
                plan.write_text("")
                return False
            time.sleep(0.02)
        self.faults += 1
        return True

    def recovers(self) -> None:
        """Wait until a deal that is pushed now has its project over there, and note how long that took."""
        began = time.monotonic()
        number = self.load.push()
        until(
            lambda: self.has_project(number), LONGEST, lambda: f"deal {number} has a project: {self.hub.last_words()}"
        )
        self.recoveries.append(time.monotonic() - began)
        self.measure()

    def frozen(self) -> list[str]:
        """The programs that the supervisor has seen to stand still."""
        told: list[str] = orjson.loads((self.hub.data / "run" / "notes.json").read_bytes()).get("frozen", [])
        return told

    def has_project(self, number: int) -> bool:
        """Whether a deal has come out at the other end."""
        name = f"交付 网关项目 {number}"
        return any(made.body["name"] == name for made in self.outside.of("projects"))

    def measure(self) -> None:
        """Note the size of every process now."""
        running = {program: pid for program, pid in self.hub.pids().items() if pid is not None}
        for program, pid in running.items():
            with contextlib.suppress(OSError, IndexError, ValueError):
                self.growth.note(program, pid, time.monotonic())


@contextlib.contextmanager
def stage(folder: Path, store: str, seed: int, needs: str = "") -> Iterator[Stage]:
    """Boot everything, and end it all afterwards."""
    with contextlib.ExitStack() as ending:
        if needs == "disk":
            ending.enter_context(own_disk(folder))
        outside = Outside()
        ending.callback(outside.stop)
        postgres = _postgres(folder, ending) if store == "postgresql" else None
        proxies = _proxies(outside, postgres, seed, ending)
        target = f"http://127.0.0.1:{proxies['target'].port}"
        told = {**environment(target), **_databases(postgres, proxies), "HUB_FAIL": f"@{folder / 'fail'}"}
        (folder / "fail").write_text("")
        if needs == "clock":
            told |= turnable(folder / "clock")
        home = shutil.copytree(ACME, folder / "home")  # rows write into it
        if needs == "haste":
            with (home / "hub.yaml").open("a", encoding="utf-8") as config:
                config.write("\ncases: {forget_after: 1s}\nledger_history: 1s\n")
        hub = ending.enter_context(running_hub(home, folder / "data", told, HUB))
        yield Stage(hub, outside, Load(hub.url, seed), folder, postgres, proxies)


def _postgres(folder: Path, ending: contextlib.ExitStack) -> PostgresServer:
    (folder / "postgres").mkdir(parents=True)
    server = PostgresServer(folder / "postgres", durable=True)
    server.start()
    ending.callback(server.stop)
    return server


def _proxies(
    outside: Outside, postgres: PostgresServer | None, seed: int, ending: contextlib.ExitStack
) -> dict[str, Proxy]:
    ports = {"target": int(outside.url.rpartition(":")[2])} | ({"database": postgres.port} if postgres else {})
    made = {name: Proxy(port, seed) for name, port in ports.items()}
    for proxy in made.values():
        ending.callback(proxy.close)
    return made


def _databases(server: PostgresServer | None, proxies: dict[str, Proxy]) -> dict[str, str]:
    if server is None:
        return {}
    urls = {"HUB_LEDGER": server.database(), "HUB_BOARDS": server.database()}
    return {name: url.replace(f":{server.port}/", f":{proxies['database'].port}/") for name, url in urls.items()}
