"""Rules for a program that runs on: they change when their files do, and a broken file never takes down running ones.

That files of the home are broken while the hub runs on with what they said before: noted by the worker, read by whoever tells
how the hub is.
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
from hub.runtime.files import write_whole


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


Stamps = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class RuleFileChange:
    """A rule that was added (`previous` None), changed, or removed (`digest` None): material for `hub.rule.changed`."""

    name: str
    digest: str | None
    previous: str | None


@dataclass(frozen=True)
class Reloaded:
    """What a look at the files brought: new rules with what changed, or why the old ones stay."""

    changes: tuple[RuleFileChange, ...] = ()
    errors: tuple[HubError, ...] = ()


class RuleStore:
    """The rules and people that count now. One thread reloads; any may read `rules` and `people`, which change as one.

    `kept` is a file for the last texts that were sound: a program that starts while a file is broken runs on with those.
    """

    def __init__(self, files: RuleFiles, kept: Path) -> None:
        """Read the files; raises FatalError when they are broken and nothing sound was kept."""
        self._files, self._kept = files, kept
        self._stamps, self._texts = self._stat(), files.texts()
        self._sound_texts: Mapping[str, bytes]
        found, self._sound_texts = files.read(self._texts), self._texts
        self.errors: tuple[HubError, ...] = found.errors
        if found.errors:
            found = self._last_sound(found)
        else:
            self._keep(self._texts)
        self._current = found

    @property
    def current(self) -> LoadedRules:
        """All that the files gave, without a mistake."""
        return self._current

    @property
    def texts(self) -> Mapping[str, bytes]:
        """The files that `current` was read from."""
        return self._sound_texts

    @property
    def rules(self) -> RuleSet:
        """The rules that the files give."""
        return self._current.rules

    @property
    def people(self) -> PeopleDirectory:
        """The people that count now."""
        return self._current.people

    def reload_if_changed(self) -> Reloaded | None:
        """Look at the files, quickly; None when nothing in them changed. Errors are told once, until a file changes again."""
        stamps = self._stat()
        if stamps == self._stamps:
            return None
        self._stamps, texts = stamps, self._files.texts()
        if texts == self._texts:
            return None
        self._texts = texts
        found = self._files.read(texts)
        self.errors = found.errors
        if found.errors:
            return Reloaded(errors=found.errors)
        changes = changed(self.rules.digests(), found.rules.digests())
        self._current, self._sound_texts = found, texts
        self._keep(texts)
        return Reloaded(changes=changes)

    def _stat(self) -> Stamps:
        stamps: Stamps = {}
        for name in self._files.names():
            with contextlib.suppress(FileNotFoundError):
                told = (self._files.home / name).stat()
                stamps[name] = (told.st_mtime_ns, told.st_size)
        return stamps

    def _keep(self, texts: Mapping[str, bytes]) -> None:
        write_whole(self._kept, orjson.dumps({name: base64.b64encode(text).decode() for name, text in texts.items()}))

    def _last_sound(self, broken: LoadedRules) -> LoadedRules:
        try:
            kept = orjson.loads(self._kept.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            broken.sound()
            raise
        texts = {name: base64.b64decode(text) for name, text in kept.items()}
        found = self._files.read(texts)
        found.sound()
        self._sound_texts = texts
        return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[RuleFileChange, ...]:
    """What differs between two sets of digests by rule, in the order of the names."""
    return tuple(
        RuleFileChange(name, after.get(name), before.get(name))
        for name in sorted({*before, *after})
        if after.get(name) != before.get(name)
    )
