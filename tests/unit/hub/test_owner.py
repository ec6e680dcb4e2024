"""Telling a dead predecessor from a living neighbour."""

from __future__ import annotations

import os
import subprocess
import sys

from hub.coordination import is_dead, new_owner

PRINT_OWNER = "from hub.coordination import new_owner; print(new_owner(), flush=True); input()"


def test_this_process_lives() -> None:
    assert not is_dead(new_owner())
    assert new_owner() != new_owner()


def test_a_process_that_was_killed_is_dead_even_before_it_is_waited_for() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", PRINT_OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        owner = child.stdout.readline().strip()
        assert not is_dead(owner)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(owner)
        child.wait()
    assert is_dead(owner)


def test_a_process_that_has_its_number_now_is_another() -> None:
    machine, pid, _, token = new_owner().split("/")
    assert is_dead(f"{machine}/{pid}/1/{token}")


def test_of_another_machine_nobody_can_say() -> None:
    _, pid, began, token = new_owner().split("/")
    assert not is_dead(f"elsewhere/{pid}/1{began}/{token}")
