"""The broker's class path: jars fetched from Maven Central once, then taken from the user's cache.

`jars.lock` names every jar with its size and SHA-256. So fetching resolves no POMs, a mirror need not be trusted, and the tested
jars are the ones that run: each start checks whether a cached jar has changed, and hashes it again if so. After a change of
`ROOTS`, `python -m hub.ops.embedded_kafka.pin_jars` has `jgo` resolve them and prints a new lock.
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
"""The second lets Kafka log; its `!` makes jgo ignore the versions of other jars in its POM."""
CENTRAL = "https://repo1.maven.org/maven2"
DOWNLOAD_ATTEMPTS = 4
PARALLEL_DOWNLOADS = 6
JAR_MTIME = 1_700_000_000
"""The modification time of every jar in the cache, in Unix seconds."""
VERIFIED = "verified.json"
"""A file in the cache: the digest of each jar, with the file stats at which it was verified."""
TIMEOUTS_S = (10, 30)
"""To connect, and between two chunks of a response."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock. `size` is in bytes."""

    sha256: str
    size: int
    coordinate: str

    @property
    def path(self) -> str:
        """Its path in any Maven repository."""
        group, artifact, version = self.coordinate.split(":")
        return f"{group.replace('.', '/')}/{artifact}/{version}/{self.file}"

    @property
    def file(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def cache() -> Path:
    """The folder shared by all hubs of this user that run this Kafka version; safe to delete while none runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baton" / f"kafka-{KAFKA}"


@functools.cache
def locked_jars() -> tuple[Jar, ...]:
    """The jars of the lock, in class path order."""
    return read_lock(Path(__file__).parent / "jars.lock")


def read_lock(path: Path) -> tuple[Jar, ...]:
    """The jars that a lock names; its lines are `sha256 size coordinate`."""
    lines = path.read_text("ascii").splitlines()
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    return tuple(Jar(sha256, int(size), coordinate) for sha256, size, coordinate in fields)


def jars(progress: Progress) -> list[Path]:
    """The broker's class path; fetches what the cache lacks, with the guarantees and errors of `fetch_jars`."""
    return fetch_jars(locked_jars(), cache(), progress)


def fetch_jars(wanted: Sequence[Jar], folder: Path, progress: Progress) -> list[Path]:
    """The jars' paths in a folder, after fetching those that it lacks.

    From the second call on this needs no network. Two processes may call it at the same time: a jar appears in the folder
    atomically. Raises RetryableError HUB-E2001 (repository unreachable), FatalError HUB-E2002 (digest differs from the lock),
    HUB-E2006 and HUB-E2009 (the folder can't be written).
    """
    missing = _missing(wanted, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            _fetch_all(missing, folder, progress)
            _missing(missing, folder)  # verified now, so that the next start need not read them
    except OSError as error:
        raise unusable(folder, error) from error
    return [folder / jar.file for jar in wanted]


def _missing(wanted: Sequence[Jar], folder: Path) -> list[Jar]:
    """The jars that are absent or differ from the lock. A jar is hashed once, and again after any change of the file."""
    known = _known(folder / VERIFIED)
    found = {jar.file: [jar.sha256, *_file_stats(folder / jar.file)] for jar in wanted if (folder / jar.file).is_file()}
    unread = [jar for jar in wanted if jar.file in found and known.get(jar.file) != found[jar.file]]
    for jar in unread:
        with (folder / jar.file).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != jar.sha256:
                del found[jar.file]
    if unread:
        _note(folder / VERIFIED, {**known, **found})
    return [jar for jar in wanted if jar.file not in found]


def _file_stats(path: Path) -> tuple[int, ...]:
    """Stats that change with any write to the file; the ctime cannot be set back."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _known(record: Path) -> dict[str, list[Any]]:
    try:
        verified = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return verified if isinstance(verified, dict) else {}


def _note(record: Path, known: Mapping[str, list[Any]]) -> None:
    """Best effort: without the record, the next start reads the jars again."""
    draft = record.with_name(f".{record.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(known), "ascii")
        draft.replace(record)


def _fetch_all(missing: list[Jar], folder: Path, progress: Progress) -> None:
    # A scratch folder inside the cache: a killed fetch never leaves a partial file under a jar's name.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        counter = _Counter(sum(jar.size for jar in missing), progress)
        pool = ThreadPoolExecutor(PARALLEL_DOWNLOADS, thread_name_prefix="jars")
        try:
            for _ in pool.map(lambda jar: _fetch(jar, Path(scratch), folder, counter), missing):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch(jar: Jar, scratch: Path, folder: Path, counter: _Counter) -> None:
    import requests  # imported here, as a start from the cache does not need it
    from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    again = retry(
        retry=retry_if_exception_type(requests.RequestException),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(DOWNLOAD_ATTEMPTS),
        reraise=True,
    )
    try:
        digest = again(_download)(jar, scratch / jar.file, counter)
    except requests.RequestException as error:
        reason = type(error).__name__ if error.response is None else f"HTTP {error.response.status_code}"
        raise RetryableError("HUB-E2001", repository=repository(), reason=reason) from error
    if digest != jar.sha256:
        raise FatalError("HUB-E2002", jar=jar.file, repository=repository())
    # A fixed time: the class archive requires the same jar times and sizes, whichever process fetched them.
    os.utime(scratch / jar.file, (JAR_MTIME, JAR_MTIME))
    (scratch / jar.file).replace(folder / jar.file)


def _download(jar: Jar, target: Path, counter: _Counter) -> str:
    """Download `jar` into a file, fsynced; returns the SHA-256 of the content."""
    import requests

    digest = hashlib.sha256()
    with (
        requests.get(f"{repository()}/{jar.path}", stream=True, timeout=TIMEOUTS_S) as response,
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
    """Sums the bytes of the downloading threads, and reports progress at each whole percent."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.done, self.reported = total, 0, -1
        self.progress, self.lock = progress, threading.Lock()

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count
            percent = min(100, self.done * 100 // self.total)
            if percent > self.reported:
                self.reported = percent
                self.progress(say("jars", version=KAFKA, megabytes=f"{self.total / 1e6:.0f}"), percent / 100)
