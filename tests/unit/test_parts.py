"""`make test` gets what its tests need: by apt as root on Debian, PostgreSQL else by a wheel; what cannot be had is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import left_out, parts
from tests.parts import PARTS, Part, PartMissingError

ROOT = Path(__file__).parents[2]


class Machine:
    """What this machine is said to be: its programs write down how they were called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin, self.calls = folder / "bin", folder / "calls"
        self.bin.mkdir()
        self._patch = monkeypatch
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("HUB_LANG", "en")
        monkeypatch.delenv("CI", raising=False)
        for name in ("CHROMIUM", "POSTGRES_BIN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(parts, "NO_SERVICES", folder / "policy-rc.d")
        self.user(0)
        self.has()

    def user(self, number: int) -> None:
        self._patch.setattr("os.geteuid", lambda: number)

    def has(self, *names: str) -> None:
        """These parts are there, and no others, unless a program brings them."""
        found = {part.name: self.bin if part.name in names else None for part in PARTS}
        self.parts = tuple(
            Part(part.name, self._look(found, part.name), part.packages, part.lock, part.answers, part.for_root)
            for part in PARTS
        )
        self._patch.setattr(parts, "PARTS", self.parts)
        self.found = found

    def _look(self, found: dict[str, Path | None], name: str) -> Callable[[], Path | None]:
        return lambda: found[name] or (self.bin if (self.bin / f"brought {name}").exists() else None)

    def program(self, name: str, does: str = "") -> None:
        """A program of this name; `$1` and so on are its arguments."""
        file = self.bin / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{does}\n')
        file.chmod(0o755)

    def is_debian(self, installed: str = "", brings: str = "") -> None:
        """`installed`: packages that are there; `brings`: parts that apt-get install leads to."""
        known = "".join(f"{each}) echo install ok installed;;\n" for each in installed.split())
        self.program("dpkg-query", f'case "$3" in\n{known}*) exit 1;;\nesac')
        made = "".join(f': >"{self.bin}/brought {each}"\n' for each in brings.split(","))
        self.program("apt-get", f'if [ "$1" = install ]; then\n{made}:\nfi')
        self.program("debconf-set-selections")

    def called(self, program: str) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if line.startswith(program)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


ALL = " ".join(package for part in PARTS for package in part.packages)
NAMES = ",".join(part.name for part in PARTS)


def test_a_debian_that_has_all_is_left_alone(machine: Machine) -> None:
    machine.has(*NAMES.split(","))
    machine.is_debian(installed=ALL)
    assert parts.main() == 0
    assert machine.called("apt-get") == []


def test_root_on_debian_gets_by_apt_what_is_missing_and_no_service_starts(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.has("Chromium", "curl + openssl")
    machine.is_debian(installed="chromium fonts-noto-cjk curl openssl", brings="PostgreSQL,Redmine")
    machine.program("systemctl")
    assert parts.main() == 0
    installed = [line.split("recommends ")[1] for line in machine.called("apt-get install")]
    assert installed == ["postgresql", "redmine redmine-sqlite puma"]
    assert machine.called("debconf") != []
    assert machine.called("systemctl") == ["systemctl --quiet disable postgresql"]
    assert not parts.NO_SERVICES.exists()  # as it was before
    said = capfd.readouterr().out
    assert "by apt, once, for the tests: PostgreSQL, Redmine" in said
    assert "!" not in said


def test_one_package_that_cannot_be_had_keeps_no_other_away(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.is_debian(brings="PostgreSQL,Redmine,curl + openssl")
    assert parts.main() == 0
    assert len(machine.called("apt-get install")) == len(PARTS)
    assert "! Chromium is not here: its tests are left out" in capfd.readouterr().out


@pytest.mark.parametrize("debian", [True, False])
def test_who_is_not_root_gets_postgresql_by_a_wheel_and_is_told_of_the_rest(
    machine: Machine, debian: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.user(1000)
    if debian:
        machine.is_debian()
    machine.program("uv", f': >"{machine.bin}/brought PostgreSQL"')
    assert parts.main() == 0
    assert machine.called("apt-get") == []
    (line,) = machine.called("uv")
    assert line.endswith(f"--no-deps --require-hashes -r {parts.LOCK}")
    said = capfd.readouterr().out
    assert "! Chromium is not here" in said
    assert "on Debian: apt-get install redmine redmine-sqlite puma, and run the tests as root" in said
    assert "! PostgreSQL" not in said


def test_ci_fails_where_a_part_is_missing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    machine.program("uv")
    machine.user(1000)
    assert parts.main() == 1
    machine.has(*NAMES.split(","))
    assert parts.main() == 0


def test_a_machine_s_own_word_on_services_stays(machine: Machine) -> None:
    parts.NO_SERVICES.write_text("mine")
    with parts.no_services():
        assert parts.NO_SERVICES.read_text() == "mine"
    assert parts.NO_SERVICES.read_text() == "mine"


SAMPLE = """
import pytest
from tests.parts import PARTS, Part, PartMissingError
gone = Part("Chromium", lambda: None, ("chromium",))
@pytest.fixture(scope="session")
def browser():
    return gone.get()
def test_a(browser): pass
def test_b(browser): pass
def test_c(): pass
"""


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_tests_without_their_part_are_named_at_the_end_and_fail_ci(tmp_path: Path, ci: str, code: int) -> None:
    (tmp_path / "test_pages.py").write_text(SAMPLE)
    environ = {**os.environ, "HUB_LANG": "en", "CI": ci, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.left_out",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(tmp_path)], env=environ, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == code, done.stdout
    if ci:
        assert "1 passed, 2 errors" in done.stdout
    else:
        assert "Chromium: on Debian: apt-get install chromium  (2 tests left out)" in done.stdout
        assert "test_pages.py  2" in done.stdout
        assert "1 passed, 2 skipped" in done.stdout


def test_nothing_is_said_where_nothing_was_left_out() -> None:
    assert list(left_out.left_out([])) == []
    assert "x: y" in str(PartMissingError("x", "y"))
