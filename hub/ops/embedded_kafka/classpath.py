"""Where the broker's jars come from: Maven Central, once, then the user's cache.

`jars.lock` names every jar with its size and SHA-256, so that fetching needs no search through POMs, a mirror need not be
trusted, and what runs is what was tested: each start looks whether a jar of the cache was changed, and reads it if so. After a
change of `ROOTS`, `python -m hub.ops.embedded_kafka.pin_jars` has `jgo` resolve them and prints a fresh one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.errors import FatalError, RetryableError
from hub.ops.embedded_kafka.folder import unusable
from hub.ops.embedded_kafka.wording import Progress, say

KAFKA = "4.3.0"
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!")
"""The second lets Kafka log; its `!` tells jgo not to take the versions of other jars from its POM."""
CENTRAL = "https://repo1.maven.org/maven2"
ATTEMPTS = 4
AT_ONCE = 6
FETCHED = 1_700_000_000
"""The time that every jar in the cache bears."""
VERIFIED = "verified.json"
"""In the cache: of each jar, its digest and the marks of the file that had it."""
TIMEOUT = (10, 30)
"""Seconds to connect, and between two pieces of an answer."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock. `size` is in bytes."""

    sha256: str
    size: int
    coordinate: str

    @property
    def path(self) -> str:
        """Where every Maven repository keeps it."""
        group, artifact, version = self.coordinate.split(":")
        return f"{group.replace('.', '/')}/{artifact}/{version}/{self.file}"

    @property
    def file(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def cache() -> Path:
    """The folder shared by all hubs of this user that run this Kafka; safe to delete while none does."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baton" / f"kafka-{KAFKA}"


@functools.cache
def locked() -> tuple[Jar, ...]:
    """The jars of the lock, in class path order."""
    return read_lock(Path(__file__).parent / "jars.lock")


def read_lock(path: Path) -> tuple[Jar, ...]:
    """The jars that a lock names; its lines are `sha256 size coordinate`."""
    lines = path.read_text("ascii").splitlines()
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    return tuple(Jar(sha256, int(size), coordinate) for sha256, size, coordinate in fields)


def jars(progress: Progress) -> list[Path]:
    """The broker's class path, fetching what the cache lacks; promises and errors are those of `fetched`."""
    return fetched(locked(), cache(), progress)


def fetched(wanted: Sequence[Jar], folder: Path, progress: Progress) -> list[Path]:
    """The jars' places in a folder, fetching those that it lacks.

    Without network this works from the second call on. Two processes may call it at the same time: a jar appears in the
    folder whole or not at all. Raises RetryableError HUB-E2001 (not reachable), FatalError HUB-E2002 (not the jar we know),
    HUB-E2006 and HUB-E2009 (the folder can't be written).
    """
    missing = _missing(wanted, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            _fetch_all(missing, folder, progress)
            _missing(missing, folder)  # so that the next start need not read them
    except OSError as error:
        raise unusable(folder, error) from error
    return [folder / jar.file for jar in wanted]


def _missing(wanted: Sequence[Jar], folder: Path) -> list[Jar]:
    """Those that are not there, or are not what the lock says. A jar is read once, and again when it was changed in any way."""
    known = _known(folder / VERIFIED)
    found = {jar.file: [jar.sha256, *_mark(folder / jar.file)] for jar in wanted if (folder / jar.file).is_file()}
    unread = [jar for jar in wanted if jar.file in found and known.get(jar.file) != found[jar.file]]
    for jar in unread:
        with (folder / jar.file).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != jar.sha256:
                del found[jar.file]
    if unread:
        _note(folder / VERIFIED, {**known, **found})
    return [jar for jar in wanted if jar.file not in found]


def _mark(path: Path) -> tuple[int, ...]:
    """What differs once a file was written to; the time of its last change cannot be set back."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _known(record: Path) -> dict[str, list[Any]]:
    try:
        told = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _note(record: Path, known: Mapping[str, list[Any]]) -> None:
    """Without a note the jars are read again at the next start."""
    draft = record.with_name(f".{record.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(known), "ascii")
        draft.replace(record)


def _fetch_all(missing: list[Jar], folder: Path, progress: Progress) -> None:
    # A folder of its own beside the cache: what a killed fetch leaves is never taken for a jar.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        counter = _Counter(sum(jar.size for jar in missing), progress)
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="jars")
        try:
            for _ in pool.map(lambda jar: _fetch(jar, Path(scratch), folder, counter), missing):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(jar: Jar, scratch: Path, folder: Path, counter: _Counter) -> None:
    import requests  # imported late: a start from the cache needs none of it
    from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    again = retry(
        retry=retry_if_exception_type(requests.RequestException),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(ATTEMPTS),
        reraise=True,
    )
    try:
        digest = again(_download)(jar, scratch / jar.file, counter)
    except requests.RequestException as error:
        reason = type(error).__name__ if error.response is None else f"HTTP {error.response.status_code}"
        raise RetryableError("HUB-E2001", repository=repository(), reason=reason) from error
    if digest != jar.sha256:
        raise FatalError("HUB-E2002", jar=jar.file, repository=repository())
    # Always the same time: the class archive fits jars of one time and size, whoever fetched them.
    os.utime(scratch / jar.file, (FETCHED, FETCHED))
    (scratch / jar.file).replace(folder / jar.file)


def _download(jar: Jar, target: Path, counter: _Counter) -> str:
    """Fetch `jar` into a file that survives a power cut; the SHA-256 of what came."""
    import requests

    digest = hashlib.sha256()
    with (
        requests.get(f"{repository()}/{jar.path}", stream=True, timeout=TIMEOUT) as response,
        target.open("wb") as file,
    ):
        response.raise_for_status()
        for part in response.iter_content(1 << 16):
            file.write(part)
            digest.update(part)
            counter.add(len(part))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def repository() -> str:
    """Maven Central, or the mirror that HUB_MAVEN_URL names."""
    return os.environ.get("HUB_MAVEN_URL", CENTRAL).rstrip("/")


class _Counter:
    """Adds up what the fetching threads got, and says it each whole percent."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.done, self.said = total, 0, -1
        self.progress, self.turn = progress, threading.Lock()

    def add(self, count: int) -> None:
        with self.turn:
            self.done += count
            percent = min(100, self.done * 100 // self.total)
            if percent > self.said:
                self.said = percent
                self.progress(say("jars", version=KAFKA, megabytes=f"{self.total / 1e6:.0f}"), percent / 100)
