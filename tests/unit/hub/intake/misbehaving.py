"""A real HTTP server on a socket that answers as it is told, rightly or wrongly, and remembers what it was sent."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

Behaviour = Callable[[socket.socket, threading.Event], None]
"""What becomes of a connection once a request was read; the event is set when the server stops."""


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Misbehaving:
    """Answers each request by `behaviour`, on a free port of the loopback."""

    behaviour: Behaviour
    received: list[Received] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Misbehaving:
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopped.is_set():
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            stream = self.tls.wrap_socket(connection, server_side=True) if self.tls else connection
            self._open.append(stream)
            with stream:
                for request in _requests(stream):
                    self.received.append(request)
                    self.behaviour(stream, self._stopped)


def _requests(connection: socket.socket) -> Iterator[Received]:
    with connection.makefile("rb") as stream:
        while line := stream.readline():
            method, target, _ = line.decode().split(" ")
            headers = {}
            while (header := stream.readline().strip()) != b"":
                name, _, value = header.decode().partition(":")
                headers[name.strip().lower()] = value.strip()
            yield Received(method, target, headers, stream.read(int(headers.get("content-length", "0"))))


def answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> Behaviour:
    """Answer with a status line, headers and a body; `length` lies about its length."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        told = f"Content-Length: {len(body) if length is None else length}"
        connection.sendall("\r\n".join([f"HTTP/1.1 {status}", told, *headers, "", ""]).encode() + body)
        if length is not None:
            connection.shutdown(socket.SHUT_RDWR)

    return behave


def raw(answered: bytes) -> Behaviour:
    """Send these bytes and close."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(answered)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


def reset(connection: socket.socket, stopped: threading.Event) -> None:
    """Do the work, then reset the connection without an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close(connection.detach())


def hang(connection: socket.socket, stopped: threading.Event) -> None:
    """Never answer."""
    stopped.wait(30)


def drip(prefix: bytes) -> Behaviour:
    """Send what is given, then one byte each tenth of a second, for ever."""

    def behave(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(prefix)
        while not stopped.wait(0.1):
            connection.sendall(b"x")

    return behave


def endless(connection: socket.socket, stopped: threading.Event) -> None:
    """A body that has no end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not stopped.is_set():
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
