"""That files of the home are broken while the hub runs on with what they said before: noted by the worker, read by whoever tells
how the hub is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from hub.errors import HubError
from hub.whole_file import write_whole


class BrokenFile(BaseModel):
    """A mistake in a file: its code, and where it stands."""

    model_config = ConfigDict(frozen=True)

    code: str
    place: str


_list = TypeAdapter(tuple[BrokenFile, ...])


def note_broken(file: Path, errors: Sequence[HubError]) -> None:
    """Remember what is wrong with the home's files; without errors that nothing is. Raises OSError."""
    if not errors:
        file.unlink(missing_ok=True)
        return
    told = [{"code": error.code, "place": str(error.place or "")} for error in errors]
    write_whole(file, orjson.dumps(told))


def broken_files(file: Path) -> tuple[BrokenFile, ...]:
    """What was noted last; nothing where that cannot be read."""
    try:
        return _list.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return ()
