"""The read API for programs: tasks, the state of an entity, single events. Described by /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from hub.errors import RejectedError
from hub.web import boards as rows
from hub.web.pages import Pages
from hub.web.past import Past
from projections.entities.fold import view
from projections.tasks.page import BOARD


class Why(BaseModel):
    """Why the hub requested it."""

    rule: str
    digest: str = Field(description="of the rule's text at the time of the request")
    title: dict[str, str]
    matched: dict[str, Any] = Field(description="what the rule's condition read, and its values")
    event: str = Field(description="the event that the rule answered: GET /api/events/{id}")
    subject: str
    command: str
    effect: str | None = Field(default=None, description="what the command made; null until it has")


class TaskItem(BaseModel):
    """A task, or the request for one that does not exist yet."""

    ref: str = Field(description="task/<instance>/<id>, or request/<instance>/<command>")
    state: Literal["requested", "parked", "created", "accepted", "started", "completed", "cancelled"]
    title: str | None
    project: str | None
    assignee: str | None
    due: str | None = Field(description="a day in the hub's time zone")
    overdue: bool
    instance: str
    case: str
    by: str | None = Field(description="who did the newest step")
    times: dict[str, str] = Field(description="step → when it was reached, RFC 3339 UTC")
    why: Why | None
    code: str | None = Field(description="HUB-E… of the newest time it was parked")
    reason: str | None


class TaskPage(BaseModel):
    """Tasks, the newest change first. `as_of` is when the newest event that they reflect was recorded."""

    items: list[TaskItem]
    total: int
    as_of: str
    late: bool


class Source(BaseModel):
    """Where a value comes from."""

    source: str
    time: str


class EntityView(BaseModel):
    """A business object by the events in the log."""

    subject: str
    kind: str
    case: str
    stage: str | None
    version: str
    time: str
    data: dict[str, Any]
    sources: dict[str, Source]


class BoardsHealth(BaseModel):
    """Whether every board reflects the log."""

    status: Literal["ok", "late"]
    boards: dict[str, dict[str, Any]]


def router(pages: Pages, past: Past) -> APIRouter:
    """The routes below /api."""
    routes = APIRouter(prefix="/api", tags=["read"])

    @routes.get("/tasks")
    def tasks(
        request: Request,
        state: str | None = None,
        assignee: str | None = None,
        project: str | None = None,
        case: str | None = None,
        instance: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    ) -> TaskPage:
        query = {"state": state, "assignee": assignee, "project": project, "case_id": case, "instance": instance}
        filters = {name: value for name, value in query.items() if value is not None}
        fresh, today = pages.fresh(BOARD.name), pages.words(request).today
        with pages.store.reading() as conn:
            found = rows.every(conn, BOARD, filters, today, limit, offset)
            total = rows.count(conn, BOARD, filters)
        items = [TaskItem.model_validate(rows.public(BOARD, item)) for item in found]
        return TaskPage(items=items, total=total, as_of=fresh.as_of, late=fresh.late)

    @routes.get("/view/{entity}/{id:path}")
    def entity(request: Request, entity: str, id: str) -> EntityView:
        with pages.store.reading() as conn:
            found = view(conn, f"{entity}/{id}")
        if found is None:
            raise RejectedError("HUB-E7101", path=request.url.path[:200])
        return EntityView.model_validate(found)

    @routes.get("/events/{id}")
    def event(request: Request, id: str) -> dict[str, Any]:
        with past.looking() as history:
            found = history.event(id)
        if found is None:
            raise history.gaps.error() or RejectedError("HUB-E7101", path=request.url.path[:200])
        numbered = {"sequence": str(found.sequence)} if found.sequence is not None else {}
        return {**found.event.model_dump(exclude_none=True), **numbered}

    return routes
