"""Fetching from a Maven repository on this machine that holds two small jars."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hub.errors import FatalError, RetryableError
from hub.ops.embedded_kafka import classpath
from hub.ops.embedded_kafka.classpath import Jar
from hub.ops.embedded_kafka.wording import quiet

CONTENT = {"a-1.jar": b"first" * 1000, "b-2.jar": b"second" * 1000}
LOCK = tuple(
    Jar(hashlib.sha256(CONTENT[name]).hexdigest(), len(CONTENT[name]), coordinate)
    for name, coordinate in (("a-1.jar", "org.x:a:1"), ("b-2.jar", "org.x:b:2"))
)


class Repository:
    """What it holds may be changed; what was asked for is kept. A file named in `cut` is cut short that many times."""

    def __init__(self) -> None:
        self.files = dict(CONTENT)
        self.asked: list[str] = []
        self.cut: dict[str, int] = {}

    def answer(self, name: str) -> tuple[int, bytes, int]:
        """Status, what is sent, and the length that is announced."""
        self.asked.append(name)
        if name not in self.files:
            return 404, b"", 0
        whole = self.files[name]
        if self.cut.get(name, 0) > 0:
            self.cut[name] -= 1
            return 200, whole[:100], len(whole)
        return 200, whole, len(whole)


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Repository]:
    held = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, length = held.answer(Path(self.path).name)
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not onto the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HUB_MAVEN_URL", f"http://127.0.0.1:{server.server_port}/maven2/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(classpath, "locked_jars", lambda: LOCK)
    yield held
    server.shutdown()
    thread.join()
    server.server_close()


def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from now on."""
    read, digest = list[str](), hashlib.file_digest

    def noted(file: Any, name: str) -> Any:
        read.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return read


def test_a_jar_of_the_cache_is_read_once_and_again_when_it_was_changed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit turned over in the cache was not noticed: jars were known by their size (A16)."""
    first, _second = classpath.jars(quiet)
    read = digests(monkeypatch)
    repository.asked.clear()
    classpath.jars(quiet)
    assert (read, repository.asked) == ([], [])
    before, flipped = first.stat(), bytearray(first.read_bytes())
    flipped[7] ^= 1
    first.write_bytes(flipped)
    os.utime(first, ns=(before.st_atime_ns, before.st_mtime_ns))
    classpath.jars(quiet)
    assert first.read_bytes() == CONTENT["a-1.jar"]
    assert repository.asked == ["a-1.jar"]
    assert set(read) == {"a-1.jar"}


def test_a_changed_jar_is_refused_where_no_other_can_be_had(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _second = classpath.jars(quiet)
    first.write_bytes(b"F" + CONTENT["a-1.jar"][1:])
    monkeypatch.setattr(classpath, "DOWNLOAD_ATTEMPTS", 1)
    repository.files["a-1.jar"] = first.read_bytes()
    with pytest.raises(FatalError, match="HUB-E2002"):
        classpath.jars(quiet)


@pytest.mark.parametrize("note", [b"", b"[]", b'{"a-1.jar": 7}', None])
def test_without_a_sound_note_all_are_read(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, note: bytes | None
) -> None:
    first, _second = classpath.jars(quiet)
    record = first.with_name(classpath.VERIFIED)
    record.unlink() if note is None else record.write_bytes(note)
    read = digests(monkeypatch)
    repository.asked.clear()
    classpath.jars(quiet)
    assert (sorted(read), repository.asked) == (["a-1.jar", "b-2.jar"], [])


def test_fetches_once_and_then_asks_nobody(repository: Repository) -> None:
    said: list[tuple[str, float | None]] = []
    first = classpath.jars(lambda line, done: said.append((line, done)))
    assert [file.read_bytes() for file in first] == [CONTENT["a-1.jar"], CONTENT["b-2.jar"]]
    assert said[-1][1] == 1.0
    assert [done for _, done in said] == sorted(done or 0 for _, done in said)
    repository.asked.clear()
    assert classpath.jars(quiet) == first
    assert repository.asked == []


def test_leaves_only_jars_and_its_note_of_them_in_the_cache(repository: Repository) -> None:
    found = classpath.jars(quiet)
    note = found[0].with_name(classpath.VERIFIED)
    assert sorted(found[0].parent.iterdir()) == sorted([*found, note])


def test_fetches_what_is_missing(repository: Repository) -> None:
    first, second = classpath.jars(quiet)
    second.write_bytes(b"cut short")
    repository.asked.clear()
    classpath.jars(quiet)
    assert second.read_bytes() == CONTENT["b-2.jar"]
    assert first.name not in repository.asked


def test_a_connection_that_breaks_is_tried_again(repository: Repository) -> None:
    repository.cut["b-2.jar"] = classpath.DOWNLOAD_ATTEMPTS - 1
    assert classpath.jars(quiet)[1].read_bytes() == CONTENT["b-2.jar"]


def test_a_connection_that_keeps_breaking(repository: Repository) -> None:
    repository.cut["b-2.jar"] = classpath.DOWNLOAD_ATTEMPTS
    with pytest.raises(RetryableError, match="HUB-E2001"):
        classpath.jars(quiet)


def test_a_jar_that_is_not_the_one_we_know(repository: Repository) -> None:
    repository.files["b-2.jar"] = b"sign in"
    with pytest.raises(FatalError, match=r"HUB-E2002.*b-2\.jar"):
        classpath.jars(quiet)
    assert not (classpath.cache() / "b-2.jar").exists()


def test_a_jar_that_the_repository_lacks(repository: Repository) -> None:
    del repository.files["b-2.jar"]
    with pytest.raises(RetryableError, match=r"HUB-E2001.*HTTP 404"):
        classpath.jars(quiet)


def test_no_network(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HUB_MAVEN_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(RetryableError, match=r"HUB-E2001.*ConnectionError"):
            classpath.jars(quiet)


def test_a_cache_that_cannot_be_made(repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(FatalError, match="HUB-E2009"):
        classpath.jars(quiet)


def test_the_lock_names_each_jar_of_this_kafka_once() -> None:
    names = [jar.file for jar in classpath.locked_jars()]
    assert len(set(names)) == len(names) > 40
    assert {jar.coordinate for jar in classpath.locked_jars()} >= {root.rstrip("!") for root in classpath.ROOTS}
    clients = [jar.coordinate for jar in classpath.locked_jars() if ":kafka-clients:" in jar.coordinate]
    assert clients == [f"org.apache.kafka:kafka-clients:{classpath.KAFKA}"]
