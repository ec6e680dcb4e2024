"""Records of the log in a file: zstd over `offset, length of key, key, length of value, value`, each number of 8 or 4 bytes.

A length of 2^32 - 1 means null.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import cramjam

from hub.errors import FatalError
from hub.log.event_log import Record
from hub.ops.backups.manifest import Segment

_HEAD = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")
_NONE = 0xFFFFFFFF
LEVEL = 3


def pack(records: Sequence[Record]) -> bytes:
    """The content of a segment file, from records of one partition."""
    parts: list[bytes] = []
    for record in records:
        key, value = record.key, record.value
        parts += (_HEAD.pack(record.offset, _NONE if key is None else len(key)), key or b"")
        parts += (_LENGTH.pack(_NONE if value is None else len(value)), value or b"")
    return bytes(cramjam.zstd.compress(b"".join(parts), level=LEVEL))


def unpack(raw: bytes) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Offset, key and value of each record; raises FatalError HUB-E5201 for any other file."""
    try:
        data, at = bytes(cramjam.zstd.decompress(raw)), 0
        while at < len(data):
            offset, size = _HEAD.unpack_from(data, at)
            key, at = _text(data, at + _HEAD.size, size)
            (size,) = _LENGTH.unpack_from(data, at)
            value, at = _text(data, at + _LENGTH.size, size)
            yield offset, key, value
    except (cramjam.DecompressionError, struct.error) as error:
        raise FatalError("HUB-E5201", folder="log", reason=str(error)) from error


def read(folder: Path, segment: Segment) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """The records of a segment in a backup, as `unpack`."""
    return unpack((folder / segment.file).read_bytes())


def _text(data: bytes, at: int, size: int) -> tuple[bytes | None, int]:
    return (None, at) if size == _NONE else (data[at : at + size], at + size)
