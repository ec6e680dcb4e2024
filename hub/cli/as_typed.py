"""Commands in our hints as they work where they are read: the hub as it was called, quoted for the shell, and with its home."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from hub.cli.terminal import speech

ALONE = "up|down|status|doctor|validate|why|rebuild|audit|backup|restore"
GROUPS = "connectors|events|rules|parked|repair|config"
BELOW = "list|check|describe|tail|show|conflicts|test|dry-run|history|edit|preview|retry|discard|state"
_COMMAND = re.compile(rf"(?<![\w./-])hub (?P<words>(?:{ALONE})|(?:{GROUPS})(?: (?:{BELOW}))?)(?![\w./-])(?! *--home)")
_HOMELESS = re.compile(r"(?<![\w./-])hub (?=(?:init|demo|explain)\b)")


def runnable(hint: str) -> str:
    """A hint of ours, with every command in it as it works here. May be asked twice; facts may be put into the hint afterwards."""
    if "{" in program() + of_home():  # `format` would stumble over it
        return hint
    named = _COMMAND.sub(lambda found: f"{program()} {found['words']}{of_home()}", hint)
    return _HOMELESS.sub(lambda found: f"{program()} ", named)


def command_line(*words: str) -> str:
    """A whole command of the hub as it works here."""
    return f"{program()} {' '.join(words)}{of_home()}"


def of_home() -> str:
    """The option that names the home, empty where the command finds it by itself."""
    return f" --home {shlex.quote(str(speech.home))}" if speech.home is not None else ""


def program(below: Path | None = None) -> str:
    """The hub as it is called from here, or from a folder `below`: by its name where the shell finds it so, else by its path."""
    called = Path(sys.argv[0])
    if called.name == "main.py":
        return f"{shlex.quote(sys.executable)} -m hub.cli.main"
    if called.name != "hub":
        return "hub"
    found = shutil.which("hub")
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return "hub"
    path = called.absolute()
    inside = path.is_relative_to(Path.cwd()) and below is None
    return shlex.quote(str(path.relative_to(Path.cwd()) if inside else path))
