from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hub.ops.embedded_kafka import wire


def answer(cluster: bytes, *ports: int) -> bytes:
    """A Metadata answer, version 4, as Kafka writes it: brokers with a host and no rack, the cluster's id, the controller."""
    brokers = b"".join(struct.pack(">ih9sih", 1, 9, b"127.0.0.1", port, -1) for port in ports)
    return (
        struct.pack(">iii", 1, 0, len(ports)) + brokers + struct.pack(f">h{len(cluster)}si", len(cluster), cluster, 1)
    )


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


LETS_IN = (framed(struct.pack(">ihi", 1, 0, 0)), framed(struct.pack(">ihhi", 1, 0, -1, 0)))
REFUSES = (LETS_IN[0], framed(struct.pack(">ihhi", 1, 58, -1, 0)))


@contextmanager
def program_that_says(*replies: bytes) -> Iterator[int]:
    """Each of them to one thing that it is asked, then it closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for reply in replies:
                    connection.recv(1000)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_reads_the_cluster_and_its_brokers() -> None:
    assert wire.parse(answer(b"abc", 9092, 9093)) == wire.ClusterInfo("abc", (9092, 9093))


def test_a_cluster_without_brokers_in_service() -> None:
    assert wire.parse(answer(b"abc")) == wire.ClusterInfo("abc", ())


def test_a_cut_answer_is_an_error() -> None:
    with pytest.raises(struct.error):
        wire.parse(answer(b"abc", 9092)[:-8])


def test_signs_in_and_asks_over_a_socket() -> None:
    with program_that_says(*LETS_IN, framed(answer(b"abc", 9092))) as port:
        assert wire.ask(port, "broker", "word") == wire.ClusterInfo("abc", (9092,))


def test_who_is_not_let_in_learns_nothing() -> None:
    with program_that_says(*REFUSES, framed(answer(b"abc", 9092))) as port:
        assert wire.ask(port, "broker", "word") is None


STRANGE = [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", struct.pack(">i", 100) + b"cut", framed(b"abc")]


@pytest.mark.parametrize("reply", STRANGE)
def test_a_program_that_is_not_kafka(reply: bytes) -> None:
    with program_that_says(reply) as port:
        assert not wire.is_kafka(port)
    with program_that_says(reply) as port:
        assert wire.ask(port, "broker", "word") is None


def test_kafka_is_known_before_anyone_has_signed_in() -> None:
    with program_that_says(framed(struct.pack(">ihi", 1, 0, 0))) as port:
        assert wire.is_kafka(port)


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert wire.ask(port, "broker", "word") is None
        assert not wire.is_kafka(port)
        assert not wire.listens(port)
