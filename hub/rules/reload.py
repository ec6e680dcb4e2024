"""Reloads the rules of a running program when their files change; with a broken file the last valid rules stay in effect.

The worker writes the list of broken files to a file, which the health checks read.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from hub.errors import HubError
from hub.people import PeopleDirectory
from hub.rules.files import LoadedRules, RuleFiles
from hub.rules.rule_set import RuleSet
from hub.runtime.files import write_atomically


class BrokenFile(BaseModel):
    """A mistake in a file: its error code and its place."""

    model_config = ConfigDict(frozen=True)

    code: str
    place: str


_list = TypeAdapter(tuple[BrokenFile, ...])


def write_broken_files(file: Path, errors: Sequence[HubError]) -> None:
    """Write the list of mistakes in the home's files; removes it when there are none. Raises OSError."""
    if not errors:
        file.unlink(missing_ok=True)
        return
    broken = [{"code": error.code, "place": str(error.place or "")} for error in errors]
    write_atomically(file, orjson.dumps(broken))


def broken_files(file: Path) -> tuple[BrokenFile, ...]:
    """The last written list; empty where it cannot be read."""
    try:
        return _list.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return ()


FileStamps = dict[str, tuple[int, int]]
"""File → modification time in nanoseconds and size in bytes."""


@dataclass(frozen=True)
class RuleFileChange:
    """A rule that was added (`previous` None), changed, or removed (`digest` None); becomes a `hub.rule.changed` event."""

    name: str
    digest: str | None
    previous: str | None


@dataclass(frozen=True)
class Reloaded:
    """The result of a reload: the changed rules, or the errors because of which the old rules stay in effect."""

    changes: tuple[RuleFileChange, ...] = ()
    errors: tuple[HubError, ...] = ()


class RuleStore:
    """The current rules and people. One thread reloads; any may read `rules` and `people`, which change together.

    `cache` is a file with the last valid texts: a program that starts while a file is broken uses those.
    """

    def __init__(self, files: RuleFiles, cache: Path) -> None:
        """Read the files; raises FatalError when they are broken and there are no cached valid texts."""
        self._files, self._cache = files, cache
        self._stamps, self._texts = self._stat(), files.texts()
        self._sound_texts: Mapping[str, bytes]
        loaded, self._sound_texts = files.read(self._texts), self._texts
        self.errors: tuple[HubError, ...] = loaded.errors
        if loaded.errors:
            loaded = self._last_sound(loaded)
        else:
            self._save(self._texts)
        self._current = loaded

    @property
    def current(self) -> LoadedRules:
        """The last valid content of the files."""
        return self._current

    @property
    def texts(self) -> Mapping[str, bytes]:
        """The files that `current` was read from."""
        return self._sound_texts

    @property
    def rules(self) -> RuleSet:
        """The current rules."""
        return self._current.rules

    @property
    def people(self) -> PeopleDirectory:
        """The current people."""
        return self._current.people

    def reload_if_changed(self) -> Reloaded | None:
        """Check the files; None when nothing in them changed (fast). Errors are returned once, until a file changes again."""
        stamps = self._stat()
        if stamps == self._stamps:
            return None
        self._stamps, texts = stamps, self._files.texts()
        if texts == self._texts:
            return None
        self._texts = texts
        loaded = self._files.read(texts)
        self.errors = loaded.errors
        if loaded.errors:
            return Reloaded(errors=loaded.errors)
        changes = changed_rules(self.rules.digests(), loaded.rules.digests())
        self._current, self._sound_texts = loaded, texts
        self._save(texts)
        return Reloaded(changes=changes)

    def _stat(self) -> FileStamps:
        stamps: FileStamps = {}
        for name in self._files.names():
            with contextlib.suppress(FileNotFoundError):
                status = (self._files.home / name).stat()
                stamps[name] = (status.st_mtime_ns, status.st_size)
        return stamps

    def _save(self, texts: Mapping[str, bytes]) -> None:
        write_atomically(
            self._cache, orjson.dumps({name: base64.b64encode(text).decode() for name, text in texts.items()})
        )

    def _last_sound(self, broken: LoadedRules) -> LoadedRules:
        try:
            cached = orjson.loads(self._cache.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            broken.sound()
            raise
        texts = {name: base64.b64decode(text) for name, text in cached.items()}
        loaded = self._files.read(texts)
        loaded.sound()
        self._sound_texts = texts
        return loaded


def changed_rules(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[RuleFileChange, ...]:
    """The rules that differ between two maps of rule → digest, in order of name."""
    return tuple(
        RuleFileChange(name, after.get(name), before.get(name))
        for name in sorted({*before, *after})
        if after.get(name) != before.get(name)
    )
