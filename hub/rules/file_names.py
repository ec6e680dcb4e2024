"""Which files of a folder are rules, and which are their trials: `*.yaml` and `*.yml`, in any case, that somebody wrote as such.

What macOS, editors and archives leave beside them is passed over: hidden files (`._won.yaml`), copies
(`won.yaml~`, `#won.yaml#`) and folders. A rule in a folder below would silently be none: it is told.
"""

from __future__ import annotations

import re
from pathlib import Path

_YAML = re.compile(r"\.ya?ml", re.IGNORECASE)
_TRIAL = re.compile(r"\.test(?=\.ya?ml$)", re.IGNORECASE)


def rule_files(folder: Path) -> list[Path]:
    """The rules of a folder, by name."""
    return [file for file in _files(folder) if not _TRIAL.search(file.name)]


def trial_files(folder: Path) -> list[Path]:
    """The trials of a folder, by name."""
    return [file for file in _files(folder) if _TRIAL.search(file.name)]


def rule_of(trial: Path) -> str:
    """The name of the file whose rule a trial tries."""
    return _TRIAL.sub("", trial.name)


def below(folder: Path) -> list[str]:
    """YAML files in folders below it, which are not read."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if _is_meant(path))
    return sorted(path.as_posix() for path in found if len(path.parts) > 1 and not _hidden(path))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_meant(path)) if folder.is_dir() else []


def _is_meant(path: Path) -> bool:
    return bool(_YAML.fullmatch(path.suffix)) and not path.name.startswith((".", "#", "~")) and not path.is_dir()


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
