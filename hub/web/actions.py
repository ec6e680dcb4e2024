"""Actions of people on the boards: choosing who they are, and moving tasks of the builtin connector. An action is an event."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from hub.errors import RejectedError
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from hub.runtime.clock import Clock
from hub.web import boards
from hub.web.boards import Item
from hub.web.pages import PERSON_COOKIE, Pages
from projections.tasks.fold import ACTIONS
from projections.tasks.page import BOARD
from schemas.envelope import Event, derived_id, format_time
from schemas.registry import event_spec

COOKIE_MAX_AGE_S = 31_536_000


def router(pages: Pages, ledger: Ledger | None) -> APIRouter:
    """The routes of actions; without a ledger, actions on tasks are refused."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/me")
    def choose(person: Annotated[str, Form(max_length=400)] = "", back: Annotated[str, Form()] = "/") -> Response:
        response = RedirectResponse(_own_path(back), 303)
        response.set_cookie(
            PERSON_COOKIE, quote(person, safe=""), max_age=COOKIE_MAX_AGE_S, samesite="lax", httponly=True
        )
        return response

    @routes.post("/tasks/{ref:path}/{action}")
    def act(request: Request, ref: str, action: str, seen: Annotated[str, Form(max_length=64)]) -> Response:
        words = pages.words(request)
        with pages.store.reading() as conn:
            item = boards.one(conn, BOARD, ref, words.today)
        if item is None or item["instance"] not in pages.settings.builtin or action not in ACTIONS or ledger is None:
            raise RejectedError("HUB-E7101", path=request.url.path[:200])
        person = pages.person(request)
        if person is None:
            raise RejectedError("HUB-E7106")
        event = action_event(item, action, seen, person, pages.clock)
        if event is not None:
            ledger.writer.run(lambda conn: outbox.record(conn, [event], item["instance"]))
        if request.headers.get("hx-request"):
            return PlainTextResponse(words("act.said", act=words(f"act.{action}"), title=item["title"] or ref))
        return RedirectResponse(_own_path(request.headers.get("referer", "")), 303)

    return routes


def action_event(item: Item, action: str, seen: str, person: str, clock: Clock) -> Event | None:
    """The event of a button; None when the task is already in that state.

    The event's id derives from the card that the person saw, so pressing twice gives one event. Raises RejectedError when the task
    has changed in the meantime.
    """
    step = ACTIONS[action]
    if item["state"] == step:
        return None
    if seen != item["seen"] or action not in item["offers"]:
        raise RejectedError("HUB-E7105", title=item["title"] or item["key"])
    now, type_, ref = format_time(clock.now()), f"work.task.{step}", item["key"]
    version = f"seen-{seen}"
    return Event(
        id=derived_id(item["instance"], type_, ref, version),
        source=f"/connectors/{item['instance']}",
        type=type_,
        subject=ref,
        time=now,
        recordedtime=now,
        dataschema=event_spec(type_).dataschema,
        partitionkey=item["case_id"],
        correlationid=item["case_id"],
        subjectversion=version,
        actor=person,
        data={"by": person},
    )


def _own_path(address: str) -> str:
    """The path of a URL on this server; `/` for any other URL."""
    split = urlsplit(address)
    path = split.path + (f"?{split.query}" if split.query else "")
    return path if path.startswith("/") and not path.startswith("//") and "\\" not in path else "/"
