"""Making a page: the reader's language, what every page shows, and the template.

People's names for the boards, from the home's people.yaml as it is now.
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
from hub.health.verdict import HealthState, HealthStatus
from hub.kit.projection import Board
from hub.people import PREFIX, read_people
from hub.projector import registry
from hub.projector.store import BoardStore, Owner
from hub.runtime.clock import Clock, SystemClock
from hub.web.language import Localizer, chosen, seconds_since
from hub.web.live import Live
from hub.web.settings import PersonName, WebSettings


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


LATE = 15.0
"""Seconds after which a board that is not known to reflect the whole log is shown as late."""
PERSON = "person"
"""The cookie that says who the reader is."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Freshness:
    """How true a board is now."""

    as_of: str
    """When the hub recorded the newest event in it; "" for a board without events. Never a source's clock: that may be ahead."""
    delay: float
    """Seconds: how long it took to be shown, or, when late, how long we have known nothing newer."""
    late: bool


def freshness(store: BoardStore, board: str, clock: Clock) -> Freshness:
    """Look up how true a board is."""
    owner = store.owner(board)
    as_of = max((place.as_of for place in store.places(board).values()), default="")
    silent = seconds_since(owner.fresh_at if owner else "", clock.now())
    late = silent > LATE
    return Freshness(as_of, silent if late else _delay(owner), late)


def _delay(owner: Owner | None) -> float:
    return owner.delay_ms / 1000 if owner else 0.0


@dataclass
class Pages:
    """Renders for one web. Safe to use from several threads."""

    settings: WebSettings
    store: BoardStore
    live: Live
    boards: Mapping[str, Board]
    clock: Clock = field(default_factory=SystemClock)
    parked: Callable[[], int] = lambda: 0
    """How much work is parked. Pages ask; parts of pages do not."""
    verdict: Callable[[], HealthStatus | None] = lambda: None
    """How the hub is; None before the first look."""
    rhythm: Rhythm = field(default_factory=Rhythm)

    def __post_init__(self) -> None:
        own = {name: FileSystemLoader(registry.folder(name)) for name in self.boards}
        loader = ChoiceLoader([FileSystemLoader(HERE / "templates"), PrefixLoader(own)])
        self.env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)

    def language(self, request: Request) -> str:
        """The reader's language."""
        asked, kept = request.query_params.get("lang"), request.cookies.get("lang")
        return chosen(asked, kept, request.headers.get("accept-language", ""), self.settings.language)

    def words(self, request: Request) -> Localizer:
        """The reader's words."""
        zone = ZoneInfo(self.settings.timezone)
        return Localizer(self.language(request), zone, self.settings.people, self.clock.now())

    def render(self, request: Request, template: str, status: int = 200, **facts: Any) -> HTMLResponse:
        """A page, or a part of one, with what all templates may use."""
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
            "verdict": self.verdict,
            "behind": self.behind,
        }
        response = HTMLResponse(self.env.get_template(template).render(**common, **facts), status)
        response.headers["vary"] = "accept-language, cookie"
        if request.query_params.get("lang"):
            response.set_cookie("lang", words.language, max_age=31_536_000, samesite="lax", httponly=True)
        return response

    def person(self, request: Request) -> str | None:
        """Who the reader says they are; None until they have chosen."""
        told = unquote(request.cookies.get(PERSON, ""))
        return told if told in self.settings.people else None

    def fresh(self, board: str) -> Freshness:
        """How true a board is now."""
        return freshness(self.store, board, self.clock)

    def behind(self) -> bool:
        """Whether events that were taken in are late on their way to the boards, so that what these show is not all there is."""
        found = self.verdict()
        return found is not None and any(
            stage.state > HealthState.OK for stage in found.stages if stage.stage in ("held", "relay", "rules")
        )

    def _in_other_language(self, request: Request, language: str) -> str:
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
        other = "en" if language == "zh-CN" else "zh-CN"
        return f"{request.url.path}?{urlencode([*rest, ('lang', other)])}"
