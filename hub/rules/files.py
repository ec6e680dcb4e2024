"""Loads all inputs of a home's decisions: the rule files, the people, the calendar.

Rules are the files `*.yaml` and `*.yml`, in upper or lower case, of the rules folder; `*.test.yaml` are their trials. Files that
macOS, editors and archives leave there are ignored: hidden files (`._won.yaml`) and copies (`won.yaml~`, `#won.yaml#`). A rule in
a subfolder is not read, and gets a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.calendar import WorkingTime, working_time
from hub.config.settings import Config
from hub.config.yaml_places import Located, read_bytes
from hub.errors import FatalError, HubError, Place
from hub.people import PeopleDirectory, read_people
from hub.rules.language import World
from hub.rules.lint import PEOPLE_CODES, Lint, lint
from hub.rules.rule_set import RuleSet, engine_for, rule_set

_YAML = re.compile(r"\.ya?ml", re.IGNORECASE)
_TRIAL = re.compile(r"\.test(?=\.ya?ml$)", re.IGNORECASE)


def rule_files(folder: Path) -> list[Path]:
    """The rules of a folder, by name."""
    return [file for file in _files(folder) if not _TRIAL.search(file.name)]


def trial_files(folder: Path) -> list[Path]:
    """The trials of a folder, by name."""
    return [file for file in _files(folder) if _TRIAL.search(file.name)]


def rule_of(trial: Path) -> str:
    """The name of the rule file that a trial tests."""
    return _TRIAL.sub("", trial.name)


def nested_files(folder: Path) -> list[str]:
    """YAML files in its subfolders, which are not read."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if _is_yaml(path))
    return sorted(path.as_posix() for path in found if len(path.parts) > 1 and not _hidden(path))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_yaml(path)) if folder.is_dir() else []


def _is_yaml(path: Path) -> bool:
    return bool(_YAML.fullmatch(path.suffix)) and not path.name.startswith((".", "#", "~")) and not path.is_dir()


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


PEOPLE_FILE, CALENDAR_FILE, RULES_FOLDER = "people.yaml", "calendar.yaml", "rules"


@dataclass(frozen=True)
class LoadedRules:
    """The content of the files. With errors, `rules` holds only the rules without one: usable for checks, not to run."""

    rules: RuleSet
    world: World
    people: PeopleDirectory
    people_file: Located
    working_time: WorkingTime
    errors: tuple[HubError, ...] = ()
    warnings: tuple[HubError, ...] = ()
    people_errors: tuple[HubError, ...] = field(default=())
    files: tuple[Located, ...] = ()
    """The rule files."""

    def sound(self) -> RuleSet:
        """The rules; raises the first error."""
        for error in self.errors:
            raise error
        return self.rules

    def sound_people(self) -> PeopleDirectory:
        """The people; raises the first error of their file."""
        for error in self.people_errors:
            raise error
        return self.people


@dataclass(frozen=True)
class RuleFiles:
    """The files of one home, and the configuration they are read with."""

    home: Path
    config_file: Located
    config: Config
    environ: Mapping[str, str]
    strict: bool = False
    """Whether a rule that fails on every event of its type is an error: for programs that would run it."""

    def texts(self) -> dict[str, bytes]:
        """The bytes of every file, by its path below the home; raises FatalError for a file that cannot be read."""
        return {
            name: content
            for name in self.names()
            for content in [_bytes(self.home / name, name)]
            if content is not None
        }

    def names(self) -> list[str]:
        """The paths of all files, without trials."""
        return [
            PEOPLE_FILE,
            CALENDAR_FILE,
            *(f"{RULES_FOLDER}/{file.name}" for file in rule_files(self.home / RULES_FOLDER)),
        ]

    def unread(self) -> list[FatalError]:
        """Warnings for files that look like rules but are not read: those in a subfolder."""
        return [
            FatalError("HUB-W1024", place=Place(f"{RULES_FOLDER}/{name}"), file=name)
            for name in nested_files(self.home / RULES_FOLDER)
        ]

    def read(self, texts: Mapping[str, bytes] | None = None) -> LoadedRules:
        """Read the files, or these texts instead. Never raises because of their content."""
        given = self.texts() if texts is None else texts
        people_file = self._located(given, PEOPLE_FILE) or Located(PEOPLE_FILE)
        people, people_errors = read_people(people_file)
        days, day_errors = self._working_time(given)
        world = World(
            engine_for(people, days), people, frozenset(self.config.connectors), declared_fields(self.config_file)
        )
        files = [located for name in given if name.startswith(RULES_FOLDER) and (located := self._located(given, name))]
        rules, rule_errors = rule_set(files, world)
        found_in_people = (*people_file.errors, *people_errors)
        linted = lint(rules, world) if self.strict else Lint()
        of_rules = [*rule_errors, *linted.errors]
        if found_in_people:
            of_rules = [error for error in of_rules if error.code not in PEOPLE_CODES]
        errors = (*found_in_people, *day_errors, *of_rules)
        return LoadedRules(
            rules, world, people, people_file, days, errors, tuple(linted.warnings), found_in_people, tuple(files)
        )

    def _working_time(self, found: Mapping[str, bytes]) -> tuple[WorkingTime, list[FatalError]]:
        calendar = self._located(found, CALENDAR_FILE)
        try:
            return working_time(self.config.calendar, self.config.timezone, calendar, self.config_file), []
        except FatalError as error:
            return WorkingTime("CN", "Asia/Shanghai"), [error]

    def _located(self, found: Mapping[str, bytes], name: str) -> Located | None:
        return read_bytes(found[name], name, self.environ) if name in found else None


def declared_fields(config_file: Located) -> dict[str, frozenset[str]]:
    """The event types that `receive` sections name, with the data fields that they set."""
    found: dict[str, frozenset[str]] = {}
    for entry in _mappings(config_file.value):
        type_, data = entry.get("type"), entry.get("data")
        if isinstance(type_, str):
            found[type_] = found.get(type_, frozenset()) | (frozenset(data) if isinstance(data, dict) else frozenset())
    return found


def _mappings(config: Any) -> list[dict[str, Any]]:
    connectors = config.get("connectors") if isinstance(config, dict) else None
    instances = connectors.values() if isinstance(connectors, dict) else ()
    receives = [instance.get("receive") for instance in instances if isinstance(instance, dict)]
    events = [receive.get("events") for receive in receives if isinstance(receive, dict)]
    return [entry for listed in events if isinstance(listed, list) for entry in listed if isinstance(entry, dict)]


def _bytes(file: Path, name: str) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FatalError("HUB-E3008", place=Place(name), reason=error.strerror or str(error)) from error
