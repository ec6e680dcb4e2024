"""`hub up` goes on without a reader, stops in order when told, and ends at once when told twice: nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from hub.cli.init import make
from tests.acceptance.running import HUB, until
from tests.ports import free_port
from tests.process_state import is_running

pytestmark = [pytest.mark.broker, pytest.mark.slow]


class PipedHub:
    """A hub whose words go into a pipe."""

    def __init__(self, folder: Path) -> None:
        make(folder / "home", "crm-to-project")
        self.notes = folder / "data" / "run" / "notes.json"
        told = {"HUB_DATA": str(folder / "data"), "HUB_WEB_PORT": str(free_port()), "HUB_LANG": "en"}
        command = [*HUB, "up", "--home", str(folder / "home"), "--json"]
        self.process = subprocess.Popen(
            command, env={**os.environ, **told}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if b'"what":"ready"' in line:
                return
        raise AssertionError("it did not become ready")

    def pids(self) -> dict[str, int | None]:
        found: dict[str, int | None] = orjson.loads(self.notes.read_bytes())["programs"]
        return found

    def leave_unread(self) -> None:
        """Its reader goes away; and then it has something to say."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        old = self.pids()["connectors"]
        assert old is not None
        os.kill(old, signal.SIGKILL)
        until(lambda: self.pids()["connectors"] not in (None, old), 30, "the connectors come again")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[PipedHub]:
    running = PipedHub(tmp_path)
    pids = [running.process.pid, *(pid for pid in running.pids().values() if pid is not None)]
    with running.process:  # closes the pipe, and waits
        yield running
        running.process.kill()
    until(lambda: not any(map(is_running, pids)), 30, "nothing of it is left")


def test_a_reader_that_goes_away_ends_nothing_and_the_stop_comes_to_its_end(hub: PipedHub) -> None:
    hub.leave_unread()
    assert hub.process.poll() is None
    found = [pid for pid in hub.pids().values() if pid is not None]
    hub.process.send_signal(signal.SIGINT)
    hub.process.send_signal(signal.SIGINT)  # as `timeout` does: to the program and to its group
    assert hub.process.wait(60) == 0
    until(lambda: not any(map(is_running, found)), 5, "its programs have ended")


def test_a_second_ctrl_c_ends_a_stop_that_hangs(hub: PipedHub) -> None:
    found = {name: pid for name, pid in hub.pids().items() if pid is not None}
    os.kill(found["connectors"], signal.SIGSTOP)  # deaf to SIGTERM
    hub.process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert hub.process.poll() is None
    hub.process.send_signal(signal.SIGINT)
    assert hub.process.wait(10) == 130  # the stop itself would wait for 20 s
    until(lambda: not any(map(is_running, found.values())), 5, "its programs have ended")
