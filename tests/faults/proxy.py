"""A TCP proxy that spoils connections: delay, resets, silence in one direction or both, a peer that is gone without a word."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

PIECE = 16_384
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


@dataclass
class Weather:
    """How connections fare just now. `mute` swallows bytes: `to` those on their way there, `back` the answers."""

    delay: float = 0.0
    reset_share: float = 0.0
    mute: frozenset[str] = frozenset()


@dataclass
class Proxy:
    """Listens on `port` and passes everything on to a port of this machine, through the weather of the moment."""

    target: int
    seed: int = 7
    weather: Weather = field(default_factory=Weather)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._server.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Let nobody in, and end what is open."""
        self._server.close()
        self.reset_all()

    def reset_all(self) -> int:
        """Reset every connection; how many there were."""
        with self._lock:
            ended, self._open = self._open, set()
        for each in ended:
            _reset(each)
        return len(ended) // 2

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._server.accept()
                threading.Thread(target=self._connect, args=(caller,), daemon=True).start()

    def _connect(self, caller: socket.socket) -> None:
        try:
            called = socket.create_connection(("127.0.0.1", self.target), 10)
        except OSError:
            _reset(caller)
            return
        called.settimeout(None)
        with self._lock:
            self._open |= {caller, called}
        there = threading.Thread(target=self._pass, args=(caller, called, "to"), daemon=True)
        there.start()
        self._pass(called, caller, "back")
        there.join()
        with self._lock:
            self._open -= {caller, called}
        caller.close()
        called.close()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                weather = self.weather
                if weather.reset_share and self._random.random() < weather.reset_share:
                    break
                if weather.delay:
                    time.sleep(self._random.uniform(0.0, 2 * weather.delay))
                if way not in weather.mute:
                    sink.sendall(piece)
            else:
                with self._lock:
                    is_open = source in self._open
                if is_open:
                    sink.shutdown(socket.SHUT_WR)
                    return
        _reset(source)
        _reset(sink)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RD)  # wakes who reads from it; a close alone would not
    connection.close()
