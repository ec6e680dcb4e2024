"""Runs the packages that the CLI may not import, each as a program of its own that answers in JSON lines."""

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
    from hub.home import Home


def ask(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run `python -m module arguments` and yield each JSON line as it is written.

    The program exits with 0 once it has written everything, user errors included. Raises FatalError for any other exit code.
    """
    import orjson

    variables = {**os.environ, "HUB_LANG": speech.language, **(environment or {})}
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=variables) as process,
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
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or [f"exit {process.returncode}"]
            raise FatalError("HUB-E1020", program=module, last=last[0])


def ask_of(home: Home, bootstrap: str, module: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """`ask`, with the log at `bootstrap` and the data of this home."""
    variables = {"HUB_KAFKA": bootstrap, "HUB_DATA": str(home.data)}
    return ask(module, ["--home", str(home.path), *arguments], variables)


def error_of(value: Mapping[str, Any]) -> HubError:
    """The error that a program wrote as `code`, `seen` and `place`."""
    place = Place(**value["place"]) if value.get("place") else None
    return FatalError(value["code"], place=place, **value.get("seen", {}))
