"""Which ports the broker gets: the wanted one, else one that is free."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

from hub.embedded_kafka import wire
from hub.errors import FatalError

# Below the range from which Linux gives outgoing connections theirs: a client that keeps trying a broker which is down
# could otherwise be given the broker's own port, connect to itself and hold it.
SPARE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Could a server listen there now? Connections in TIME_WAIT, left by a killed broker, don't count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wire.HOST, port))
        except OSError:
            return False
    return not wire.listens(port)


def occupant(port: int) -> str:
    """What holds a taken port, as far as one can tell from outside."""
    if wire.ask(port) is not None:
        return "Kafka"
    return "TCP" if wire.listens(port) else "?"


def require(port: int) -> int:
    """That port or none: raises FatalError HUB-E2003."""
    if not is_free(port):
        raise FatalError("HUB-E2003", port=port, by=occupant(port))
    return port


def choose(wanted: Iterable[int], avoid: Iterable[int] = ()) -> int:
    """The first free port of `wanted`, else any spare one; never one of `avoid`. 0 in `wanted` means any."""
    shunned = {0, *avoid}
    spare = random.sample(SPARE, 500)  # two hubs that start at once should not meet
    for port in [*wanted, *spare]:
        if port not in shunned and is_free(port):
            return port
    raise FatalError("HUB-E2003", port=f"{SPARE.start}-{SPARE.stop}", by="?")
