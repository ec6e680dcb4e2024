"""Asking the packages that the hub may not import: each runs as a program of its own and answers in JSON lines."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hub.cli.terminal import speech
from hub.errors import FatalError, HubError, Place

if TYPE_CHECKING:
    from hub.config.home import Home


def ask(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """What `python -m module arguments` says, line by line, as it says it.

    Such a program ends with 0 once it has said all, errors of the user's included. Raises FatalError when it does not.
    """
    import orjson

    seen = {**os.environ, "HUB_LANG": speech.language, **(environment or {})}
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile() as words,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=seen) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield orjson.loads(line)
        finally:
            process.stdout.close()
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.terminate()
        if process.wait() != 0:
            words.seek(0)
            last = words.read().decode(errors="replace").strip().splitlines()[-1:] or [f"exit {process.returncode}"]
            raise FatalError("HUB-E1020", program=module, last=last[0])


def ask_of(home: Home, bootstrap: str, module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """`ask` about the log at `bootstrap` and the data of this home."""
    known = {"HUB_KAFKA": bootstrap, "HUB_DATA": str(home.data)}
    return ask(module, ["--home", str(home.path), *arguments], known)


def error_of(told: Mapping[str, Any]) -> HubError:
    """An error that a program told as `code`, `seen` and `place`."""
    place = Place(**told["place"]) if told.get("place") else None
    return FatalError(told["code"], place=place, **told.get("seen", {}))
