"""Chooses the broker's ports: the wanted one, else a free one; and names the program that occupies a port."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hub.errors import FatalError
from hub.log.embedded_client import HOST
from hub.ops.embedded_kafka import wire

# Below Linux's ephemeral port range: otherwise a client that keeps trying a broker which is down could get the broker's own port
# as its source port, connect to itself and occupy it.
SPARE_PORTS = range(20_000, 32_000)
LISTENING = "0A"


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now. Connections in TIME_WAIT, left by a killed broker, don't count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return not wire.listens(port)


@dataclass(frozen=True)
class Hold:
    """A port that no other hub of this machine takes until `close`, or the end of this process, also while nothing listens there.

    Clients of a dead broker keep reconnecting to its port. If another hub's broker had taken it, they would write to that hub's
    log. The hold is a bound UDP port of the same number, which the system frees when the process dies.
    """

    port: int
    close: Callable[[], None]

    @classmethod
    def of(cls, port: int) -> Hold | None:
        """Hold a port; None when another hub holds it."""
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind((HOST, port))
        except OSError:
            mark.close()
            return None
        return cls(port, mark.close)


def choose(wanted: Iterable[int], avoid: Iterable[int] = ()) -> Hold:
    """Hold the first free port of `wanted`, else any spare one; never one of `avoid`."""
    excluded = set(avoid)
    spare = random.sample(SPARE_PORTS, 500)  # two hubs that start at once should not meet
    for port in [*wanted, *spare]:
        hold = Hold.of(port) if port not in excluded and is_free(port) else None
        if hold is not None:
            return hold
    raise FatalError("HUB-E2003", port=f"{SPARE_PORTS.start}-{SPARE_PORTS.stop}", by="?")


def any_free(wanted: Iterable[int], avoid: Iterable[int] = ()) -> int:
    """As `choose`, but not held: for a caller that listens on it at once."""
    hold = choose(wanted, avoid)
    hold.close()
    return hold.port


def occupant(port: int) -> str:
    """The program that listens on a port, as far as this user can see: `Kafka: java 4711`, `nginx 312`, `?`."""
    program = next((_program(pid) for inode in _listeners(port) for pid in _owners(inode)), "?")
    return f"Kafka: {program}" if wire.is_kafka(port) else program


def _listeners(port: int) -> list[str]:
    """The inodes of the sockets that listen on a port (Linux; elsewhere none)."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port]


def _owners(inode: str) -> Iterable[int]:
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(entry) == f"socket:[{inode}]":
                yield int(entry.parts[2])
        except OSError:  # it has just ended, or is another user's
            continue


def _program(pid: int) -> str:
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} {pid}"
    except OSError:
        return "?"
