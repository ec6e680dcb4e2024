"""That files of the home are broken while the hub runs on with what they said before: noted by the worker, read by whoever tells
how the hub is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from hub.errors import HubError


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
    draft = file.with_suffix(f".{os.getpid()}.new")  # several programs of one home may write it at once
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.write_bytes(orjson.dumps(told))
    draft.replace(file)


def broken_files(file: Path) -> tuple[BrokenFile, ...]:
    """What was noted last; nothing where that cannot be read."""
    try:
        return _list.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return ()
