"""What people do on the boards: say who they are, and move the hub's own tasks. An action is an event through the outbox."""

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
from hub.web.pages import PERSON, Pages
from projections.tasks.fold import ACTIONS
from projections.tasks.page import BOARD
from schemas.envelope import Event, derived_id, format_time
from schemas.registry import event_spec

YEAR = 31_536_000


def router(pages: Pages, ledger: Ledger | None) -> APIRouter:
    """Their routes; without a ledger nobody can act."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/me")
    def choose(
        request: Request, person: Annotated[str, Form(max_length=400)] = "", back: Annotated[str, Form()] = "/"
    ) -> Response:
        response = RedirectResponse(_own_path(back), 303)
        response.set_cookie(PERSON, quote(person, safe=""), max_age=YEAR, samesite="lax", httponly=True)
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
        event = press(item, action, seen, person, pages.clock)
        if event is not None:
            ledger.writer.run(lambda conn: outbox.record(conn, [event], item["instance"]))
        if request.headers.get("hx-request"):
            return PlainTextResponse(words("act.said", act=words(f"act.{action}"), title=item["title"] or ref))
        return RedirectResponse(_own_path(request.headers.get("referer", "")), 303)

    return routes


def press(item: Item, action: str, seen: str, person: str, clock: Clock) -> Event | None:
    """The event of a button, None when the task already stands there.

    The event's id follows from what the person saw: pressing twice is one event. Raises RejectedError when the task has
    moved elsewhere in the meantime.
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
    """The path of an address of ours; the list of boards for any other."""
    split = urlsplit(address)
    path = split.path + (f"?{split.query}" if split.query else "")
    return path if path.startswith("/") and not path.startswith("//") and "\\" not in path else "/"
