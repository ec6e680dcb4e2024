from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hub.ops.embedded_kafka import ports


@pytest.fixture(params=["127.0.0.1", "0.0.0.0"])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    with socket.create_server((request.param, 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_not_free(taken: int) -> None:
    assert not ports.is_free(taken)


def test_a_port_with_old_connections_only_is_free() -> None:
    """What a killed broker leaves behind: its side closed first and waits."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            assert client.recv(1) == b""
    assert ports.is_free(port)


@pytest.fixture
def held() -> Iterator[ports.Hold]:
    hold = ports.choose([])
    yield hold
    hold.close()


def test_takes_the_first_free_one(taken: int) -> None:
    free = ports.any_free([])
    assert ports.any_free([taken, free]) == free


def test_takes_a_spare_one_when_none_is_free(taken: int) -> None:
    assert ports.any_free([taken]) in ports.SPARE_PORTS


def test_avoids() -> None:
    free = ports.any_free([])
    assert ports.any_free([free], avoid=[free]) != free


def test_what_is_held_is_given_to_nobody_else_and_is_free_to_listen_on(held: ports.Hold) -> None:
    assert ports.Hold.of(held.port) is None
    assert ports.any_free([held.port]) != held.port
    assert ports.is_free(held.port)
    with socket.create_server(("127.0.0.1", held.port)):
        assert not ports.is_free(held.port)
    held.close()
    assert ports.any_free([held.port]) == held.port


def test_who_is_killed_holds_nothing() -> None:
    code = "import time; from hub.ops.embedded_kafka.ports import choose; h = choose([]); print(h.port, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    port = int(holder.stdout.readline())
    assert ports.Hold.of(port) is None
    holder.kill()
    holder.communicate()
    hold = ports.Hold.of(port)
    assert hold is not None
    hold.close()


def test_no_spare_port_is_one_that_the_system_gives_to_outgoing_connections() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first = int(file.read().split()[0])
    assert ports.SPARE_PORTS.stop <= first


def test_names_who_has_it(taken: int) -> None:
    assert str(os.getpid()) in ports.occupant(taken)


def test_nobody_has_it() -> None:
    assert ports.occupant(ports.any_free([])) == "?"
