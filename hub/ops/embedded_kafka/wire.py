"""What the broker must answer before it counts as up, asked in Kafka's own protocol over a plain socket.

A client library would do it too, but brings threads, log lines about refused connections, and a tenth of a second of import.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

HOST = "127.0.0.1"
METADATA, HANDSHAKE, API_VERSIONS, AUTHENTICATE = 3, 17, 18, 36
LARGEST_ANSWER = 1 << 20


@dataclass(frozen=True)
class ClusterInfo:
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


def is_kafka(port: int, timeout: float = 1.0) -> bool:
    """Does a Kafka broker listen there? Asked by the one question that it answers before anyone has signed in."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            correlation, error = struct.unpack_from(">ih", _call(connection, API_VERSIONS, 0, b""))
    except (OSError, EOFError, struct.error):
        return False
    return bool((correlation, error) == (1, 0))


def ask(port: int, user: str, password: str, timeout: float = 1.0) -> ClusterInfo | None:
    """The metadata of the Kafka broker on that port, to who signs in by PLAIN.

    None when there is none, what is there speaks something else, or it does not let that user in.
    """
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            _call(connection, HANDSHAKE, 1, _sized(">h", b"PLAIN"))
            said = _call(connection, AUTHENTICATE, 0, _sized(">i", f"\0{user}\0{password}".encode()))
            if struct.unpack_from(">ih", said)[1] != 0:
                return None
            # no topics, and don't create any
            return parse(_call(connection, METADATA, 4, struct.pack(">iB", 0, 0)))
    except (OSError, EOFError, struct.error, UnicodeDecodeError):
        return None


def _call(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """Ask one thing, as client `hub` with 1 as correlation id; the answer."""
    request = struct.pack(">hhi", api, version, 1) + _sized(">h", b"hub") + body
    connection.sendall(_sized(">i", request))
    (size,) = struct.unpack(">i", _read(connection, 4))
    if not 0 < size <= LARGEST_ANSWER:
        raise EOFError
    return _read(connection, size)


def _sized(length: str, content: bytes) -> bytes:
    return struct.pack(length, len(content)) + content


def parse(body: bytes) -> ClusterInfo:
    """Decode a Metadata answer, version 4, up to the cluster id. Raises struct.error when it is none."""
    _correlation, _throttle, brokers = struct.unpack_from(">iii", body)
    at, ports = 12, []
    for _ in range(brokers):
        _host, at = _string(body, at + 4)
        ports.append(struct.unpack_from(">i", body, at)[0])
        _rack, at = _string(body, at + 4)
    cluster, _ = _string(body, at)
    return ClusterInfo(cluster, tuple(ports))


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
