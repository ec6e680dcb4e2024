"""`hub doctor`: passes on a sound home, fails with a line that mends, goes on as far as it can."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from hub.cli import doctor_checks, status
from hub.cli.doctor_fixes import apply_safe_fixes
from hub.cli.running_hub import RunningHub
from hub.runtime.run_folder import RunFolder
from tests.unit.hub.cli.conftest import Hub, Ran


def levels(ran: Ran) -> dict[str, Any]:
    return {check["check"]: check["level"] for check in ran.json["checks"]}


def test_a_new_home_has_no_failure(home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HUB_WEB_PORT", str(probe.getsockname()[1]))
    ran = hub("doctor", "--home", home, "--json")
    assert ran.code == 0
    found = levels(ran)
    assert found["settings"] == found["secrets"] == found["java"] == found["ledger"] == "PASS"
    assert not (home / ".hub").exists()


def test_a_folder_that_is_no_home_still_has_its_machine_looked_at(tmp_path: Path, hub: Hub) -> None:
    ran = hub("doctor", "--home", tmp_path, "--json")
    assert ran.code == 1
    assert levels(ran) == {"python": "PASS", "platform": "PASS", "clock": "PASS", "home": "FAIL"}
    assert ran.json["checks"][-1]["fix"].startswith("run hub init")


def test_secrets_that_lack_or_that_others_may_read(home: Path) -> None:
    (home / ".env").chmod(0o644)
    assert doctor_checks.secrets(RunningHub.of(home)).level == "WARN"
    (home / ".env").unlink()
    check = doctor_checks.secrets(RunningHub.of(home))
    assert (check.level, check.said) == ("FAIL", "not set: CRM_SECRET")


def test_a_port_that_another_has(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("HUB_WEB_PORT", str(other.getsockname()[1]))
        check = next(doctor_checks.ports(RunningHub.of(home)))
    assert check.level == "FAIL"
    assert "is taken by" in check.said


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((10 * 2**20, "FAIL"), (2**30, "WARN"), (2**40, "PASS")):
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, usage=usage: usage)
        assert doctor_checks.disk(tmp_path / "not" / "yet").level == level


def test_mistakes_in_the_home_are_counted(home: Path) -> None:
    (home / "rules" / "won_deal.yaml").write_text("rule: x\n")
    check = doctor_checks.settings(RunningHub.of(home))
    assert (check.level, check.fix) == ("FAIL", "hub validate")
    assert "rules/won_deal.yaml" in check.said


def test_a_broker_that_is_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "BROKER_TIMEOUT_S", 0.2)
    told = (home / "hub.yaml").read_text()
    (home / "hub.yaml").write_text(told.replace("{embedded: true}", '{bootstrap: "127.0.0.1:1"}'))
    (check,) = doctor_checks.broker(RunningHub.of(home))
    assert check.level == "FAIL"
    assert check.said.startswith("HUB-E2104")


def test_fix_mends_what_a_kill_left_and_what_others_may_read(home: Path, hub: Hub) -> None:
    run = home / ".hub" / "run"
    run.mkdir(parents=True)
    for name in ("processor.ready", "notes.json", "boards.sock"):
        (run / name).write_text("1")
    (home / ".env").chmod(0o644)
    run.parent.chmod(0o500)
    ran = hub("doctor", "--fix", "--home", home, "--json")
    assert [path.name for path in run.iterdir()] == []
    assert (home / ".env").stat().st_mode & 0o777 == 0o600
    assert run.parent.stat().st_mode & 0o700 == 0o700
    assert len(ran.json["fixed"]) == 5
    assert levels(ran)["secrets"] == "PASS"
    assert hub("doctor", "--fix", "--home", home, "--json").json["fixed"] == []


def test_fix_leaves_what_a_living_hub_uses(home: Path) -> None:
    folder = RunFolder(home / ".hub" / "run")
    with folder.claim():
        folder.note(pid=1, kafka="127.0.0.1:1", programs={})
        (folder.path / "processor.ready").write_text("1")
        assert list(apply_safe_fixes(RunningHub.of(home))) == []
        assert (folder.path / "processor.ready").exists()
