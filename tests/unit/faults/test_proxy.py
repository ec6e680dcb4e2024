"""The fault proxy spoils what it is told to spoil, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy, Weather


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says again what it is told; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(caller: socket.socket) -> None:
        with contextlib.suppress(OSError), caller:
            while said := caller.recv(1000):
                caller.sendall(said)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    made = Proxy(echo)
    yield made
    made.close()


def caller(proxy: Proxy) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", proxy.port), 10)
    made.settimeout(10)
    return made


def says(made: socket.socket, text: bytes) -> bytes:
    made.sendall(text)
    return made.recv(1000)


def test_in_fine_weather_everything_passes(proxy: Proxy) -> None:
    with caller(proxy) as made:
        assert says(made, b"one") == b"one"
        assert says(made, b"two") == b"two"


@pytest.mark.parametrize("way", ["to", "back"])
def test_silence_is_no_end_of_the_connection(proxy: Proxy, way: str) -> None:
    with caller(proxy) as made:
        assert says(made, b"one") == b"one"
        proxy.weather = Weather(mute=frozenset({way}))
        made.settimeout(0.3)
        with pytest.raises(TimeoutError):
            says(made, b"two")
        proxy.weather = Weather()
        made.settimeout(10)
        assert says(made, b"three") == b"three"


def test_a_reset_is_seen_at_once(proxy: Proxy) -> None:
    with caller(proxy) as made:
        assert says(made, b"one") == b"one"
        assert proxy.reset_all() == 1
        with pytest.raises(ConnectionResetError):
            made.recv(1000)
    with caller(proxy) as made:
        proxy.weather = Weather(reset_share=1.0)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            says(made, b"two")
