"""Where the broker's jars come from: Maven Central by `jgo`, once, then the user's cache.

`jars.lock` names every jar with its size and SHA-256, so that fetching needs no search through POMs, a mirror need not be
trusted, and what runs is what was tested. `python -m hub.embedded_kafka.pin_jars` prints a fresh one after a change of `ROOTS`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub.embedded_kafka.wording import Progress, say
from hub.errors import FatalError, RetryableError

KAFKA = "4.3.0"
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!")
"""The second lets Kafka log; its `!` tells jgo not to take the versions of other jars from its POM."""
CENTRAL = "https://repo1.maven.org/maven2"
ATTEMPTS = 3
AT_ONCE = 6


@dataclass(frozen=True)
class Jar:
    """One line of the lock. `size` is in bytes."""

    sha256: str
    size: int
    coordinate: str

    @property
    def file(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def cache() -> Path:
    """The folder shared by all hubs of this user; safe to delete while none runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baton"


@functools.cache
def locked() -> tuple[Jar, ...]:
    """The jars of the lock, in class path order."""
    lines = (Path(__file__).parent / "jars.lock").read_text("ascii").splitlines()
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    return tuple(Jar(sha256, int(size), coordinate) for sha256, size, coordinate in fields)


def jars(progress: Progress) -> list[Path]:
    """The broker's class path, fetching what the cache lacks.

    Without network this works from the second call on. Two processes may call it at the same time: a jar appears in the
    cache whole or not at all. Raises RetryableError HUB-E2001 (not reachable), FatalError HUB-E2002 (not the jar we know).
    """
    folder = cache() / f"kafka-{KAFKA}"
    missing = [jar for jar in locked() if not _is_there(folder / jar.file, jar)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_all(missing, folder, progress)
    return [folder / jar.file for jar in locked()]


def _is_there(path: Path, jar: Jar) -> bool:
    return path.is_file() and path.stat().st_size == jar.size


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
    got = _download(jar, scratch, counter)
    if not _is_there(got, jar) or hashlib.sha256(got.read_bytes()).hexdigest() != jar.sha256:
        raise FatalError("HUB-E2002", jar=jar.file, repository=repository())
    with got.open("rb") as whole:
        os.fsync(whole.fileno())
    got.replace(folder / jar.file)


def _download(jar: Jar, scratch: Path, counter: _Counter) -> Path:
    """The file that the repository gives for `jar`, tried `ATTEMPTS` times; not yet checked."""
    import requests  # imported late, as jgo is: a start from the cache needs neither
    from jgo.maven import MavenContext, PythonResolver

    resolver = PythonResolver(progress_callback=counter.file)
    context = MavenContext(resolver, repo_cache=scratch, remote_repos={"central": repository()})
    artifact = context.create_dependency(jar.coordinate).artifact
    reason: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            return Path(artifact.resolve())
        except (requests.RequestException, RuntimeError) as error:  # jgo says "not found" as a RuntimeError
            reason = error
            (scratch / artifact.component.path_prefix / artifact.filename).unlink(missing_ok=True)
    raise RetryableError("HUB-E2001", repository=repository(), reason=type(reason).__name__) from reason


def repository() -> str:
    """Maven Central, or the mirror that HUB_MAVEN_URL names."""
    return os.environ.get("HUB_MAVEN_URL", CENTRAL).rstrip("/")


class _Counter:
    """Adds up what the fetching threads got, and says it each whole percent."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.done, self.said = total, 0, -1
        self.progress, self.turn = progress, threading.Lock()

    @contextmanager
    def file(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        yield self.add

    def add(self, count: int) -> None:
        with self.turn:
            self.done += count
            percent = min(100, self.done * 100 // self.total)
            if percent > self.said:
                self.said = percent
                self.progress(say("jars", version=KAFKA, megabytes=f"{self.total / 1e6:.0f}"), percent / 100)
