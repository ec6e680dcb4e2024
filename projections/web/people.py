"""People's names for the boards, from the home's people.yaml as it is now."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from hub.errors import HubError
from hub.rules.people import PREFIX, read_people
from hub.rules.places import read_yaml
from projections.web.settings import PersonName


class PeopleFile(Mapping[str, PersonName]):
    """`person/<id>` → name. Read again when the file changes; a file with mistakes leaves the names as they were."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._read_at: tuple[int, int] | None = None
        self._names: dict[str, PersonName] = {}

    def __getitem__(self, ref: str) -> PersonName:
        return self._now()[ref]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> dict[str, PersonName]:
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return {}
        stands = (found.st_mtime_ns, found.st_size)
        with self._lock:
            if stands != self._read_at:
                self._read_at, self._names = stands, self._reread() or self._names
            return self._names

    def _reread(self) -> dict[str, PersonName]:
        try:
            people, _ = read_people(read_yaml(self.file, self.file.name, os.environ))
        except HubError:
            return {}
        titles = {name: department.name.by_language for name, department in people.departments.items()}
        return {
            PREFIX + person_id: PersonName(person.name, titles.get(person.department or "", {}))
            for person_id, person in people.people.items()
        }
