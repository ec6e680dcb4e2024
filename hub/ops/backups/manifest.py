"""The manifest of a backup folder, `manifest.json`: replaced atomically after each step, so every file that it names exists."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub.errors import FatalError

FORMAT = 1
NAME = "manifest.json"


class BackupFile(BaseModel):
    """A file of the backup, by its path below the folder."""

    model_config = ConfigDict(frozen=True)
    file: str
    bytes: int
    sha256: str


class Segment(BackupFile):
    """Records of one partition, from offset `first` to before `next`."""

    partition: int
    first: int
    next: int
    records: int


class LedgerSnapshot(BaseModel):
    """The ledger's snapshot: kind of database, schema revision, and the last sequence of each partition (`given`)."""

    model_config = ConfigDict(frozen=True)
    kind: str
    revision: str
    at: str
    outbox: str
    given: dict[int, int]
    pieces: list[BackupFile]


class BackupManifest(BaseModel):
    """A whole backup. `log` and `cut` identify the log of its segments."""

    format: int = FORMAT
    hub: str = ""
    log: str = ""
    cut: str = ""
    begun: str = ""
    finished: str = ""
    """When the last complete backup ended; empty before the first."""
    segments: list[Segment] = Field(default_factory=list)
    ledger: LedgerSnapshot | None = None
    home: list[BackupFile] = Field(default_factory=list)

    def next_offsets(self) -> dict[int, int]:
        """Partition → the first offset that is not in the backup."""
        ends: dict[int, int] = {}
        for segment in self.segments:
            ends[segment.partition] = max(segment.next, ends.get(segment.partition, 0))
        return ends

    @property
    def records(self) -> int:
        """How many records of the log it holds."""
        return sum(segment.records for segment in self.segments)

    @property
    def pieces(self) -> list[BackupFile]:
        """Every file."""
        return [*self.segments, *(self.ledger.pieces if self.ledger else []), *self.home]


def read(folder: Path) -> BackupManifest | None:
    """The manifest of a folder; None where there is none. Raises FatalError HUB-E5201 for one that cannot be read."""
    try:
        found = BackupManifest.model_validate_json((folder / NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise FatalError("HUB-E5201", folder=folder, reason=str(error).splitlines()[0]) from error
    if found.format != FORMAT:
        raise FatalError("HUB-E5201", folder=folder, reason=f"format {found.format}")
    return found


def write(folder: Path, manifest: BackupManifest) -> None:
    """Replace the manifest durably."""
    save(
        folder / NAME,
        orjson.dumps(manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS),
    )


def save(file: Path, raw: bytes) -> None:
    """Write a file atomically, readable by its owner only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(raw)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)


def piece(folder: Path, file: Path) -> BackupFile:
    """The manifest entry of a file in the folder."""
    return BackupFile(file=str(file.relative_to(folder)), bytes=file.stat().st_size, sha256=digest(file))


def digest(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def check(folder: Path, piece_: BackupFile) -> None:
    """Raise FatalError HUB-E5202 unless a file matches its manifest entry."""
    file = folder / piece_.file
    if not file.is_file() or file.stat().st_size != piece_.bytes or digest(file) != piece_.sha256:
        raise FatalError("HUB-E5202", file=file)
