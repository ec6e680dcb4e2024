"""A home's `.env`: `KEY=VALUE` lines; quotes round a value are taken off, and lines that start with `#` are notes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hub.config.yaml_places import decoded
from hub.errors import FatalError, Place

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read(file: Path) -> dict[str, str]:
    """What the file sets, nothing where there is none; raises FatalError for one that is no readable UTF-8."""
    return {name: _unquoted(value) for _, name, value in _lines(file) if name and value is not None}


def strange(file: Path) -> list[FatalError]:
    """Lines that set nothing: no `=`, or before it no name that a variable can have."""
    return [
        FatalError("HUB-W1025", place=Place(file.name, number, 1))
        for number, name, value in _lines(file)
        if value is None or not _NAME.fullmatch(name)
    ]


def _lines(file: Path) -> Iterator[tuple[int, str, str | None]]:
    """Each line that is no note: its number, its name, and its value; without `=` None."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:  # in a container: `hub init` lets nobody but its caller read it
        raise FatalError("HUB-E3008", place=Place(file.name), reason=error.strerror or str(error)) from error
    for number, line in enumerate(re.split(r"\r\n|\n|\r", decoded(raw, file.name)), 1):
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if name.strip() + sign and not name.lstrip().startswith("#"):
            yield number, name.strip(), value.strip() if sign else None


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
