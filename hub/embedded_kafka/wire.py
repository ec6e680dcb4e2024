"""The one question the broker must answer before it counts as up, asked in Kafka's own protocol over a plain socket.

A client library would do it too, but brings threads, log lines about refused connections, and a tenth of a second of import.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

HOST = "127.0.0.1"
METADATA, VERSION = 3, 4
# api key, version, correlation id, client id "hub", no topics, don't create any
REQUEST = struct.pack(">hhih3siB", METADATA, VERSION, 1, 3, b"hub", 0, 0)
LARGEST_ANSWER = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What a broker said of its cluster: its id, and the ports of its brokers that are in service."""

    cluster: str | None
    ports: tuple[int, ...]


def listens(port: int) -> bool:
    """Does any program accept connections there?"""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def ask(port: int, timeout: float = 1.0) -> Answer | None:
    """The metadata of the Kafka broker on that port; None when there is none, or what is there speaks something else."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(REQUEST)) + REQUEST)
            (size,) = struct.unpack(">i", _read(connection, 4))
            return parse(_read(connection, size)) if 0 < size <= LARGEST_ANSWER else None
    except (OSError, EOFError, struct.error, UnicodeDecodeError):
        return None


def parse(body: bytes) -> Answer:
    """Decode a Metadata answer, version 4, up to the cluster id. Raises struct.error when it is none."""
    _correlation, _throttle, brokers = struct.unpack_from(">iii", body)
    at, ports = 12, []
    for _ in range(brokers):
        _host, at = _string(body, at + 4)
        ports.append(struct.unpack_from(">i", body, at)[0])
        _rack, at = _string(body, at + 4)
    cluster, _ = _string(body, at)
    return Answer(cluster, tuple(ports))


def _string(body: bytes, at: int) -> tuple[str | None, int]:
    """A string with its length before it (-1: null), and where the next field starts."""
    (length,) = struct.unpack_from(">h", body, at)
    end = at + 2 + max(length, 0)
    (text,) = struct.unpack_from(f"{end - at - 2}s", body, at + 2)
    return (None if length < 0 else text.decode()), end


def _read(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        part = connection.recv(size - len(got))
        if not part:
            raise EOFError
        got += part
    return got
