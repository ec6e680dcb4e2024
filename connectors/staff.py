"""The people of people.yaml as the file is now: read again when it changes, kept as they were while it is wrong."""

from __future__ import annotations

from pathlib import Path

import structlog

from hub.errors import HubError
from hub.home import CONFIG, Home
from hub.rules.people import People

FILE = "people.yaml"
log = structlog.get_logger(__name__)


class Staff:
    """Answers intake (whose account is this?) and the executor (which account has this person?). For any thread."""

    def __init__(self, home: Home) -> None:
        """Raises FatalError for the first mistake in people.yaml."""
        self._path = home.path
        self._people: People = home.people
        self._seen = {name: _changed(home.path / name) for name in (FILE, CONFIG)}

    def person_of(self, instance: str, account: str) -> str | None:
        """As `People.person_of`."""
        return self._people.person_of(instance, account)

    def account(self, person: str, instance: str, /) -> str:
        """As `People.account`."""
        return self._people.account(person, instance)

    def refresh(self) -> bool:
        """Read people.yaml again if it has changed; whether there are other people now. Changed settings need a restart."""
        now = {name: _changed(self._path / name) for name in (FILE, CONFIG)}
        changed = {name for name, when in now.items() if when != self._seen[name]}
        self._seen = now
        if CONFIG in changed:
            news = HubError("HUB-E1022", file=CONFIG)
            log.warning("settings.changed", code=news.code, reason=news.message(), fix=news.fix())
        if FILE not in changed:
            return False
        try:
            self._people = Home.load(self._path).people
        except HubError as error:
            log.error("people.wrong", **error.fields())
            return False
        log.info("people.read", people=len(self._people.people))
        return True


def _changed(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
