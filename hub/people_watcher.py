"""Reloads people.yaml when it changes; while the file has mistakes, the previous people stay in use."""

from __future__ import annotations

from pathlib import Path

import structlog

from hub.errors import HubError
from hub.home import CONFIG, Home
from hub.people import FILE, PeopleDirectory

log = structlog.get_logger(__name__)


class PeopleWatcher:
    """The current people.yaml, for intake (account → person) and the executor (person → account). Thread-safe."""

    def __init__(self, home: Home) -> None:
        """Raises FatalError for the first mistake in people.yaml."""
        self._path = home.path
        self._people: PeopleDirectory = home.people
        self._versions = {name: _version(home.path / name) for name in (FILE, CONFIG)}

    def person_of(self, instance: str, account: str) -> str | None:
        """As `PeopleDirectory.person_of`."""
        return self._people.person_of(instance, account)

    def account(self, person: str, instance: str, /) -> str:
        """As `PeopleDirectory.account`."""
        return self._people.account(person, instance)

    def refresh(self) -> bool:
        """Reload people.yaml if it has changed; whether the people were replaced. Changed settings only log a warning: restart."""
        now = {name: _version(self._path / name) for name in (FILE, CONFIG)}
        changed = {name for name, when in now.items() if when != self._versions[name]}
        self._versions = now
        if CONFIG in changed:
            warning = HubError("HUB-E1022", file=CONFIG)
            log.warning("settings.changed", code=warning.code, reason=warning.message(), fix=warning.fix())
        if FILE not in changed:
            return False
        try:
            self._people = Home.load(self._path).people
        except HubError as error:
            log.error("people.wrong", **error.fields())
            return False
        log.info("people.read", people=len(self._people.people))
        return True


def _version(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
