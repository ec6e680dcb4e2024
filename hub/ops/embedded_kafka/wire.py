"""Probes the broker in Kafka's own protocol over a plain socket: only an answer shows that it is up.

A client library would bring threads, log lines about refused connections, and 0.1 s of import time.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from hub.log.embedded_client import HOST

METADATA, HANDSHAKE, API_VERSIONS, AUTHENTICATE = 3, 17, 18, 36
MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True)
class ClusterInfo:
    """A broker's Metadata answer: the cluster id, and the ports of the brokers in service."""

    cluster: str | None
    ports: tuple[int, ...]


def listens(port: int) -> bool:
    """Whether a program accepts connections on the port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def is_kafka(port: int, timeout: float = 1.0) -> bool:
    """Whether a Kafka broker listens on the port. Sends ApiVersions, which needs no sign-in."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            correlation, error = struct.unpack_from(">ih", _call(connection, API_VERSIONS, 0, b""))
    except (OSError, EOFError, struct.error):
        return False
    return bool((correlation, error) == (1, 0))


def ask(port: int, user: str, password: str, timeout: float = 1.0) -> ClusterInfo | None:
    """The metadata of the Kafka broker on the port, read after a PLAIN sign-in.

    None when nothing listens there, another protocol answers, or the sign-in is refused.
    """
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            _call(connection, HANDSHAKE, 1, _sized(">h", b"PLAIN"))
            answer = _call(connection, AUTHENTICATE, 0, _sized(">i", f"\0{user}\0{password}".encode()))
            if struct.unpack_from(">ih", answer)[1] != 0:
                return None
            # no topics, and create none
            return parse(_call(connection, METADATA, 4, struct.pack(">iB", 0, 0)))
    except (OSError, EOFError, struct.error, UnicodeDecodeError):
        return None


def _call(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """Send one request, as client `hub` with correlation id 1; returns the response body."""
    request = struct.pack(">hhi", api, version, 1) + _sized(">h", b"hub") + body
    connection.sendall(_sized(">i", request))
    (size,) = struct.unpack(">i", _read(connection, 4))
    if not 0 < size <= MAX_ANSWER_BYTES:
        raise EOFError
    return _read(connection, size)


def _sized(length: str, content: bytes) -> bytes:
    return struct.pack(length, len(content)) + content


def parse(body: bytes) -> ClusterInfo:
    """Decode a Metadata answer, version 4, up to the cluster id. Raises struct.error for any other body."""
    _correlation, _throttle, brokers = struct.unpack_from(">iii", body)
    at, ports = 12, []
    for _ in range(brokers):
        _host, at = _string(body, at + 4)
        ports.append(struct.unpack_from(">i", body, at)[0])
        _rack, at = _string(body, at + 4)
    cluster, _ = _string(body, at)
    return ClusterInfo(cluster, tuple(ports))


def _string(body: bytes, at: int) -> tuple[str | None, int]:
    """A length-prefixed string (-1: null), and the offset of the next field."""
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
