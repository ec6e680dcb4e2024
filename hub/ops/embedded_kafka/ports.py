"""Which ports the broker gets: the wanted one, else one that is free; and who has the wanted one."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hub.errors import FatalError
from hub.ops.embedded_kafka import wire

# Below the range from which Linux gives outgoing connections theirs: a client that keeps trying a broker which is down
# could otherwise be given the broker's own port, connect to itself and hold it.
SPARE = range(20_000, 32_000)
LISTENING = "0A"


def is_free(port: int) -> bool:
    """Could a server listen there now? Connections in TIME_WAIT, left by a killed broker, don't count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wire.HOST, port))
        except OSError:
            return False
    return not wire.listens(port)


@dataclass(frozen=True)
class Hold:
    """A port that no other hub of this machine takes until `close`, or the end of this process, also while nothing listens there.

    Clients of a broker that died go on looking for it where it was. Were another hub's broker there meanwhile, they would
    write to its log. What is held is the UDP port of the same number: the system itself frees it at any death.
    """

    port: int
    close: Callable[[], None]

    @classmethod
    def of(cls, port: int) -> Hold | None:
        """None when another has it."""
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind((wire.HOST, port))
        except OSError:
            mark.close()
            return None
        return cls(port, mark.close)


def choose(wanted: Iterable[int], avoid: Iterable[int] = ()) -> Hold:
    """Hold the first free port of `wanted`, else any spare one; never one of `avoid`."""
    shunned = set(avoid)
    spare = random.sample(SPARE, 500)  # two hubs that start at once should not meet
    for port in [*wanted, *spare]:
        hold = Hold.of(port) if port not in shunned and is_free(port) else None
        if hold is not None:
            return hold
    raise FatalError("HUB-E2003", port=f"{SPARE.start}-{SPARE.stop}", by="?")


def any_free(wanted: Iterable[int], avoid: Iterable[int] = ()) -> int:
    """As `choose`, and not held: for who will listen there at once."""
    hold = choose(wanted, avoid)
    hold.close()
    return hold.port


def occupant(port: int) -> str:
    """What listens on a taken port, as far as this user can see: `Kafka: java 4711`, `nginx 312`, `?`."""
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
        except OSError:  # it ended meanwhile, or is another user's
            continue


def _program(pid: int) -> str:
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} {pid}"
    except OSError:
        return "?"
