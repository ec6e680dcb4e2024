"""Reads a home's `.env`: `KEY=VALUE` lines; quotes around a value are removed, lines that start with `#` are comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hub.config.yaml_places import decoded
from hub.errors import FatalError, Place

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read(file: Path) -> dict[str, str]:
    """The variables in the file, empty without a file; raises FatalError for a file that is not readable UTF-8."""
    return {name: _unquoted(value) for _, name, value in _lines(file) if name and value is not None}


def invalid_lines(file: Path) -> list[FatalError]:
    """Warnings about lines without `=` or without a valid variable name before it."""
    return [
        FatalError("HUB-W1025", place=Place(file.name, number, 1))
        for number, name, value in _lines(file)
        if value is None or not _NAME.fullmatch(name)
    ]


def _lines(file: Path) -> Iterator[tuple[int, str, str | None]]:
    """Each line that is no comment: its number, its name, and its value (None without `=`)."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:  # in a container: `hub init` makes it readable for its owner only
        raise FatalError("HUB-E3008", place=Place(file.name), reason=error.strerror or str(error)) from error
    for number, line in enumerate(re.split(r"\r\n|\n|\r", decoded(raw, file.name)), 1):
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if name.strip() + sign and not name.lstrip().startswith("#"):
            yield number, name.strip(), value.strip() if sign else None


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
