"""The provenance page of an object: its events, the rule that reacted, what the rule read and requested, and the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy import Connection, select

from hub.errors import RejectedError
from hub.replay.history import History
from hub.web.pages import Pages
from hub.web.past import Past
from projections.entities.fold import view
from projections.inbox.table import messages
from projections.tasks.table import cards
from schemas.envelope import Event


@dataclass(frozen=True)
class StoryEvent:
    """One event of an object's history."""

    id: str
    type: str
    time: str
    by: str | None
    source: str
    subject: str


@dataclass
class WhyStory:
    """Everything known about one reference. `why` is None when no rule requested it."""

    ref: str
    case: str
    title: str | None = None
    state: str | None = None
    why: dict[str, Any] | None = None
    asked_at: str | None = None
    source: dict[str, Any] | None = None
    """The event that the rule reacted to."""
    steps: dict[str, str] = field(default_factory=dict)
    events: list[StoryEvent] = field(default_factory=list)
    entity: dict[str, Any] | None = None
    beside: list[dict[str, Any]] = field(default_factory=list)
    """The tasks of the same case."""
    gaps: dict[str, Any] = field(default_factory=dict)
    """Parts that could not be read; empty when nothing is missing."""


def router(pages: Pages, past: Past) -> APIRouter:
    """The route of the page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/why/{ref:path}")
    def why(request: Request, ref: str) -> Response:
        bare, form = (ref.removesuffix(".json"), "json") if ref.endswith(".json") else (ref, "")
        with pages.store.reading() as conn:
            became = _became(conn, bare)
            story = None if became else board_story(conn, bare)
        if became:
            return RedirectResponse(f"/why/{became}{'.json' if form else ''}")
        if story is None:
            raise RejectedError("HUB-E7101", path=request.url.path[:200])
        with past.looking() as history:
            add_events(story, history)
        return JSONResponse(asdict(story)) if form else pages.render(request, "why.html", story=story)

    return routes


def board_story(conn: Connection, ref: str) -> WhyStory | None:
    """The story as far as the boards know it; None when they do not know the reference."""
    story = _card(conn, ref) or _message(conn, ref)
    entity = view(conn, ref)
    if story is None and entity is None:
        return None
    if story is None:
        assert entity is not None  # checked above
        named = entity["data"].get("name") or entity["data"].get("title")
        story = WhyStory(ref=ref, case=entity["case"], title=named, state=entity["stage"])
    story.entity = entity
    story.beside = _beside(conn, story.case)
    return story


def _became(conn: Connection, ref: str) -> str | None:
    key = (
        ref.replace("command/", "request/", 1) if ref.startswith("command/") else ref
    )  # a command has its request's card
    became: str | None = conn.execute(select(cards.c.became).where(cards.c.key == key)).scalar_one_or_none()
    return became


def _card(conn: Connection, ref: str) -> WhyStory | None:
    key = (
        ref.replace("command/", "request/", 1) if ref.startswith("command/") else ref
    )  # a command has its request's card
    row = conn.execute(select(cards).where(cards.c.key == key)).mappings().first()
    if row is None:
        return None
    steps = dict(sorted(row["times"].items(), key=lambda step: step[1]))
    requested_at = row["times"].get("requested")
    return WhyStory(key, row["case_id"], row["title"], row["state"], row["why"], requested_at, steps=steps)


def _message(conn: Connection, ref: str) -> WhyStory | None:
    row = conn.execute(select(messages).where(messages.c.key == ref)).mappings().first()
    return None if row is None else WhyStory(ref, row["case_id"], row["text"], "sent", _cause(row["why"]))


def _cause(why: dict[str, Any] | None) -> dict[str, Any] | None:
    """A cause with its effect left empty unless it is given."""
    return {"effect": None, **why} if why else None


def _beside(conn: Connection, case: str) -> list[dict[str, Any]]:
    found = select(cards.c.key, cards.c.title, cards.c.state, cards.c.assignee).where(
        cards.c.case_id == case, cards.c.became.is_(None)
    )
    return [dict(row) for row in conn.execute(found.order_by(cards.c.key).limit(200)).mappings()]


def add_events(story: WhyStory, history: History) -> None:
    """Add the events about the object, and the event that caused it."""
    events = [found.event for found in history.of_subject(story.ref, story.case)]
    if story.why is None:
        story.why = next((_cause(event.data["why"]) for event in events if event.data.get("why")), None)
    cause = history.event(story.why["event"]) if story.why else None
    story.events = story_events(events)
    story.source = cause.event.model_dump(exclude_none=True) if cause is not None else None
    story.gaps = history.gaps.as_value()


def story_events(events: Sequence[Event]) -> list[StoryEvent]:
    """Events as the story lists them."""
    return [
        StoryEvent(each.id, each.type, each.time, each.actor or each.data.get("by"), each.source, each.subject)
        for each in events
    ]
