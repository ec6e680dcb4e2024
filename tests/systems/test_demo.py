"""`hub demo` as a newcomer has it: its first minute ends with a task that fails on purpose, and what is printed mends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.acceptance.running import until
from tests.ports import free_port

pytestmark = [pytest.mark.systems, pytest.mark.broker, pytest.mark.slow]

HUB = [sys.executable, "-m", "hub.cli.main"]
TITLE = "Follow-up Smart campus"
LAST = "The task then appears on the board"


class Demo:
    """A demo that runs in a folder of its own, as far as its terminal shows the failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
        self.environment = {**kept, "HUB_LANG": "en", "HUB_WEB_PORT": str(port), "PYTHONUTF8": "1"}
        self.process = subprocess.Popen(
            [*HUB, "demo", "--pause", "0.1"],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        self.said = self._until(LAST)

    def _until(self, wanted: str) -> str:
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if wanted in line:
                return "".join(lines)
        raise AssertionError("".join(lines))

    def run(self, command: str) -> str:
        """A command of the hub, word for word as it was printed."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            input="y\n",
            capture_output=True,
            encoding="utf-8",
        )
        assert "Traceback" not in done.stderr
        return f"{done.returncode} {done.stdout}{done.stderr}"

    def task(self) -> dict[str, Any]:
        """The card of the task that fails."""
        cards = requests.get(f"{self.url}/api/tasks?limit=500", timeout=30).json()["items"]
        found: dict[str, Any] = next(card for card in cards if card["title"] == TITLE)
        return found

    def stop(self) -> str:
        """Ctrl-C: a terminal tells the whole group. What it says from then on."""
        os.killpg(self.process.pid, signal.SIGINT)
        said, _ = self.process.communicate(timeout=120)
        return said


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.communicate()


@pytest.mark.nightly
def test_what_fails_on_purpose_is_mended_by_what_is_printed(demo: Demo) -> None:
    look, edit, retry = re.findall(r"\S+ -m hub\.cli\.main parked.*", demo.said)[-3:]
    assert "HUB-E3143" in demo.run(look)
    assert demo.task()["state"] == "parked"
    assert demo.run(edit).startswith("0 ")
    assert demo.run(retry).startswith("0 ")
    until(lambda: demo.task()["state"] not in ("parked", "requested"), 60, "the task is on the board")
    assert demo.task()["assignee"] == "person/lin.tao"
    assert demo.run(look).startswith("0 ")
    said = demo.stop()
    assert demo.process.returncode == 0
    assert "Traceback" not in said
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert [line for line in (demo.said + said).splitlines() if chinese.search(line)] == []
