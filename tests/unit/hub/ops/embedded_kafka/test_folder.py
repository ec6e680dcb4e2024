from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import FatalError
from hub.ops.embedded_kafka import folder
from hub.ops.embedded_kafka.folder import Folder


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Folder]:
    claimed = Folder(tmp_path / "kafka")
    claimed.claim()
    yield claimed
    claimed.release()


def test_only_its_owner_may_enter_even_if_it_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir(mode=0o755)
    claimed = Folder(tmp_path / "kafka")
    claimed.claim()
    claimed.release()
    assert claimed.path.stat().st_mode & 0o777 == 0o700


def test_one_holder_at_a_time(ours: Folder) -> None:
    other = Folder(ours.path)
    with pytest.raises(FatalError, match=rf"HUB-E2005.*process {os.getpid()}"):
        other.claim()
    ours.release()
    other.claim()
    other.release()


def test_claiming_and_releasing_twice_is_once(ours: Folder) -> None:
    ours.claim()
    ours.release()
    ours.release()


def test_a_path_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FatalError, match=r"HUB-E2009.*Not a directory"):
        Folder(tmp_path / "file" / "kafka").claim()


def test_too_little_space(ours: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    ours.check_space()
    monkeypatch.setattr(folder, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(FatalError, match="HUB-E2006"):
        ours.check_space()


def test_the_cluster_id_is_made_once(ours: Folder, tmp_path: Path) -> None:
    made = ours.cluster()
    assert Folder(ours.path).cluster() == made
    assert len(made) == 22
    (tmp_path / "b").mkdir()
    assert Folder(tmp_path / "b").cluster() != made


def test_notes_what_runs(ours: Folder) -> None:
    assert ours.noted_port() is None
    ours.note(4711, 19092)
    assert Folder(ours.path).noted_port() == 19092
    ours.forget()
    ours.forget()
    assert ours.noted_port() is None


def test_a_note_that_was_cut_short_is_no_note(ours: Folder) -> None:
    ours.note(4711, 19092)
    (ours.path / "port").write_text("")
    (ours.path / "pid").write_text("")
    assert ours.noted_port() is None
    assert ours.orphan() is None


def test_another_program_with_the_noted_number_is_left_alone(ours: Folder) -> None:
    ours.note(os.getpid(), 19092)
    assert ours.orphan() is None


@pytest.mark.parametrize("heeds", [True, False])
def test_an_orphan_is_found_and_stopped(ours: Folder, heeds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "STOP_GRACE_S", 20.0 if heeds else 0.1)
    deaf = "" if heeds else "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    script = f"import signal, time; {deaf}print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, ours.mark], stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        ours.note(orphan.pid, 19092)
        assert ours.orphan() == orphan.pid
        ours.stop_orphan(orphan.pid)
        assert orphan.wait() == (-15 if heeds else -9)
    assert ours.orphan() is None


def test_an_orphan_that_ends_by_itself(ours: Folder) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    ours.stop_orphan(gone.pid)


def test_sweeping_leaves_an_empty_folder(ours: Folder) -> None:
    (ours.tmp / "libzstd.so").touch()
    ours.sweep()
    assert list(ours.tmp.iterdir()) == []
