"""Renders pages: the reader's language, the data common to all pages, and the template.

Also reads people's names from the home's people.yaml, and computes the freshness of boards.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined

from hub.config.yaml_places import read_yaml
from hub.errors import HubError
from hub.health.rhythm import Rhythm
from hub.health.status import HealthState, HealthStatus
from hub.kit.projection import Board
from hub.people import PERSON_PREFIX, read_people
from hub.projector import registry
from hub.projector.store import BoardStore, Owner
from hub.runtime.clock import Clock, SystemClock
from hub.web.language import Localizer, chosen, seconds_since
from hub.web.live import Live
from hub.web.settings import PersonName, WebSettings


class PeopleFile(Mapping[str, PersonName]):
    """`person/<id>` → name. Reloaded when the file changes; a file with mistakes leaves the names unchanged."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._version: tuple[int, int] | None = None
        self._names: dict[str, PersonName] = {}

    def __getitem__(self, ref: str) -> PersonName:
        return self._current()[ref]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())

    def _current(self) -> dict[str, PersonName]:
        try:
            stat = self.file.stat()
        except FileNotFoundError:
            return {}
        version = (stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if version != self._version:
                self._version, self._names = version, self._reload() or self._names
            return self._names

    def _reload(self) -> dict[str, PersonName]:
        try:
            people, _ = read_people(read_yaml(self.file, self.file.name, os.environ))
        except HubError:
            return {}
        titles = {name: department.name.by_language for name, department in people.departments.items()}
        return {
            PERSON_PREFIX + person_id: PersonName(person.name, titles.get(person.department or "", {}))
            for person_id, person in people.people.items()
        }


LATE_AFTER_S = 15.0
"""Seconds without confirmation that a board reflects the whole log, after which it is shown as late."""
PERSON_COOKIE = "person"
"""The cookie with the reader's person reference."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Freshness:
    """Freshness of a board."""

    as_of: str
    """Recorded time, by the hub's clock, of the newest event in it; "" without events. Not a source's clock: that may be ahead."""
    delay: float
    """Seconds from recorded to shown or, when late, since the board last reflected the whole log."""
    late: bool


def freshness(store: BoardStore, board: str, clock: Clock) -> Freshness:
    """Compute the freshness of a board."""
    owner = store.owner(board)
    as_of = max((place.as_of for place in store.places(board).values()), default="")
    age = seconds_since(owner.fresh_at if owner else "", clock.now())
    late = age > LATE_AFTER_S
    return Freshness(as_of, age if late else _delay(owner), late)


def _delay(owner: Owner | None) -> float:
    return owner.delay_ms / 1000 if owner else 0.0


@dataclass
class Pages:
    """The page renderer of one hub. Safe to use from several threads."""

    settings: WebSettings
    store: BoardStore
    live: Live
    boards: Mapping[str, Board]
    clock: Clock = field(default_factory=SystemClock)
    parked: Callable[[], int] = lambda: 0
    """The number of parked items. Whole pages call it; parts of pages do not."""
    health: Callable[[], HealthStatus | None] = lambda: None
    """The hub's health status; None before the first check."""
    rhythm: Rhythm = field(default_factory=Rhythm)

    def __post_init__(self) -> None:
        own = {name: FileSystemLoader(registry.folder(name)) for name in self.boards}
        loader = ChoiceLoader([FileSystemLoader(HERE / "templates"), PrefixLoader(own)])
        self.env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)

    def language(self, request: Request) -> str:
        """The reader's language."""
        requested, saved = request.query_params.get("lang"), request.cookies.get("lang")
        return chosen(requested, saved, request.headers.get("accept-language", ""), self.settings.language)

    def words(self, request: Request) -> Localizer:
        """The localizer for the reader."""
        zone = ZoneInfo(self.settings.timezone)
        return Localizer(self.language(request), zone, self.settings.people, self.clock.now())

    def render(self, request: Request, template: str, status: int = 200, **facts: Any) -> HTMLResponse:
        """Render a page, or a part of one, with the data that all templates use."""
        words = self.words(request)
        common = {
            "w": words,
            "hub": self.settings,
            "boards": self.boards,
            "path": request.url.path,
            "query": request.query_params,
            "other": self._in_other_language(request, words.language),
            "head": self.live.head,
            "me": self.person(request),
            "parked": self.parked,
            "health": self.health,
            "behind": self.behind,
        }
        response = HTMLResponse(self.env.get_template(template).render(**common, **facts), status)
        response.headers["vary"] = "accept-language, cookie"
        if request.query_params.get("lang"):
            response.set_cookie("lang", words.language, max_age=31_536_000, samesite="lax", httponly=True)
        return response

    def person(self, request: Request) -> str | None:
        """The person that the reader chose; None before that."""
        ref = unquote(request.cookies.get(PERSON_COOKIE, ""))
        return ref if ref in self.settings.people else None

    def fresh(self, board: str) -> Freshness:
        """The freshness of a board."""
        return freshness(self.store, board, self.clock)

    def behind(self) -> bool:
        """Whether accepted events are late on their way to the boards, so that boards are incomplete."""
        status = self.health()
        return status is not None and any(
            stage.state > HealthState.OK for stage in status.stages if stage.stage in ("held", "relay", "rules")
        )

    def _in_other_language(self, request: Request, language: str) -> str:
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
        other = "en" if language == "zh-CN" else "zh-CN"
        return f"{request.url.path}?{urlencode([*rest, ('lang', other)])}"
