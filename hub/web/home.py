"""The home page: the hub's health, what needs a person, and the flow of work. Also the page of parked work, by cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup
from sqlalchemy import Connection

from hub.errors import FatalError, RejectedError, RetryableError, text_of
from hub.health.rhythm import Rhythm
from hub.health.status import HealthStatus, StageFact, Trouble
from hub.ledger import parked_search, refused
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.web import boards
from hub.web.language import Localizer
from hub.web.pages import Pages

MAX_NEEDS = 8
"""Items that the list shows; the rest is shown as a number."""
MAX_SYSTEMS = 6
"""Systems drawn on each side of the picture; the worst come first."""
MAX_ENTRIES = 20
"""Entries per cause on the page of parked work."""
DAY = timedelta(days=1)


@dataclass(frozen=True)
class ActionItem:
    """One item that needs a person: its text, its level (`bad`, `warn`), and the link to act on it."""

    text: str | Markup
    level: str
    link: str
    count: int = 1
    since: str = ""


@dataclass(frozen=True)
class System:
    """An outside system in the picture. `state` is ok, warn or bad; `age`: seconds since its stream was read, or None."""

    name: str
    an_hour: int
    state: str
    age: float | None = None
    waiting: int = 0
    parked: int = 0


@dataclass(frozen=True)
class Flow:
    """The picture of the flow: source systems, log, rules, target systems, boards."""

    sources: Sequence[System]
    targets: Sequence[System]
    stages: Mapping[str, StageFact]
    an_hour: int
    done_an_hour: int
    more_sources: int = 0
    more_targets: int = 0


@dataclass
class Work:
    """Work in the ledger that needs a person; empty while the ledger is unavailable."""

    groups: list[parked_search.Group] = field(default_factory=list)
    examples: Mapping[int, AnyRow] = field(default_factory=dict)
    refused: Sequence[refused.Count] = ()
    parked_at: Mapping[str, int] = field(default_factory=dict)
    """Instance → number of its parked entries."""


def router(pages: Pages, ledger: Ledger | None) -> APIRouter:
    """The routes of these pages."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    @routes.get("/boards")
    def home(request: Request) -> Response:
        counts = {}
        with pages.store.reading() as conn:
            for name, board in pages.boards.items():
                counts[name] = {part: boards.part_size(conn, board, part, {}) for part in board.parts}
        fresh = {name: pages.fresh(name) for name in pages.boards}
        return pages.render(request, "home.html", counts=counts, fresh=fresh, **_facts(pages, request, ledger))

    @routes.get("/home")
    def now(request: Request) -> Response:
        return pages.render(request, "now.html", **_facts(pages, request, ledger))

    @routes.get("/verdict")
    def health(request: Request) -> Response:
        return pages.render(request, "verdict.html", live=True)

    @routes.get("/parked")
    def parked(request: Request) -> Response:
        work, words = _work(pages, ledger), pages.words(request)
        return pages.render(request, "parked.html", causes=list(_causes(words, work, ledger)), refused=work.refused)

    return routes


def _facts(pages: Pages, request: Request, ledger: Ledger | None) -> dict[str, Any]:
    words, status, work = pages.words(request), pages.health(), _work(pages, ledger)
    needs = list(_needs(words, status, work))
    return {
        "needs": needs[:MAX_NEEDS],
        "more_needs": max(0, len(needs) - MAX_NEEDS),
        "flow": flow(status, pages.rhythm, work) if status is not None else None,
        "minutes": bars(pages.rhythm, pages.clock.now()),
        "infinity": float("inf"),
    }


def _work(pages: Pages, ledger: Ledger | None) -> Work:
    if ledger is None:
        return Work()
    try:
        with ledger.reading() as conn:
            return _read(conn, pages.clock.now())
    except RetryableError:
        return Work()  # the health status reports that the ledger is unavailable


def _read(conn: Connection, now: datetime) -> Work:
    groups = parked_search.groups(conn, parked_search.ParkedFilter())
    examples = parked_search.examples(conn, [group.example for group in groups[:50]])
    at: dict[str, int] = {}
    for group in groups:
        if group.cause.instance:
            at[group.cause.instance] = at.get(group.cause.instance, 0) + group.count
    refusals = refused.counts(conn, now - DAY) if refused.has_tables(conn) else ()
    return Work(groups, examples, [each for each in refusals if each.signed], at)


def _needs(words: Localizer, status: HealthStatus | None, work: Work) -> Iterator[ActionItem]:
    """Worst first: troubles, then parked work by number of entries, then refused pushes."""
    for trouble in status.troubles if status is not None else ():
        yield ActionItem(words.trouble(trouble), "warn" if trouble.outside else "bad", link_of(trouble))
    for group in work.groups:
        text = words("need.parked", what=reason(words, group, work.examples.get(group.example)))
        yield ActionItem(text, "bad", f"/parked#{group.cause.name}", group.count, group.oldest)
    for each in work.refused:
        text = words("need.refused", instance=each.instance, what=text_of(each.code, words.language)["say"])
        yield ActionItem(text, "warn", "/parked#refused", each.times, each.last_at)


def link_of(trouble: Trouble) -> str:
    """The link from a trouble to its details."""
    if trouble.kind == "boards":
        return f"/boards/{trouble.where.partition(',')[0]}"
    instance = trouble.facts.get("instance")
    if instance:
        return f"#system-{instance}"
    return f"#stage-{_STAGE_OF_KIND.get(trouble.kind) or _STAGE_OF_PLACE.get(trouble.where, 'relay')}"


_STAGE_OF_KIND = {
    "relay": "relay",
    "held": "relay",
    "rules": "rules",
    "halted": "rules",
    "files": "rules",
    "asked": "calls",
}
"""Kind of trouble → its stage in the picture."""
_STAGE_OF_PLACE = {"processor": "rules", "projector": "boards", "boards": "boards"}
"""Program or store of a trouble → its stage in the picture; the first stage for all others."""


def reason(words: Localizer, group: parked_search.Group, example: AnyRow | None) -> str:
    """Why entries of a cause are parked, in the reader's language, with the facts of an example entry."""
    facts = example.seen if example is not None and isinstance(example.seen, dict) else {}
    return FatalError(group.cause.code, **{str(name): value for name, value in facts.items()}).message(words.language)


def flow(status: HealthStatus, rhythm: Rhythm, work: Work) -> Flow:
    """The current picture of the flow."""
    taken, done = rhythm.taken(), rhythm.done()
    ages = {each.instance: (status.facts.at - each.read_at).total_seconds() for each in status.facts.streams}
    calls = {queue.where: queue for queue in status.facts.queues if queue.stage == "calls"}
    names = [*status.facts.instances, *(name for name in (*taken, *calls) if name not in status.facts.instances)]
    bad = {str(t.facts["instance"]): "warn" if t.outside else "bad" for t in status.troubles if "instance" in t.facts}
    targets = [name for name in dict.fromkeys(names) if done.get(name) or name in calls or work.parked_at.get(name)]
    sources = [name for name in dict.fromkeys(names) if taken.get(name) or name in ages or name not in targets]
    drawn_in = [System(name, taken.get(name, 0), bad.get(name, "ok"), ages.get(name)) for name in sources]
    drawn_out = [
        System(
            name,
            done.get(name, 0),
            "bad" if work.parked_at.get(name) else bad.get(name, "ok"),
            waiting=calls[name].count if name in calls else 0,
            parked=work.parked_at.get(name, 0),
        )
        for name in targets
    ]
    return Flow(
        _worst_first(drawn_in),
        _worst_first(drawn_out),
        {stage.stage: stage for stage in status.stages},
        sum(taken.values()),
        sum(done.values()),
        max(0, len(drawn_in) - MAX_SYSTEMS),
        max(0, len(drawn_out) - MAX_SYSTEMS),
    )


def _worst_first(systems: Sequence[System]) -> list[System]:
    order = ("bad", "warn", "ok")
    return sorted(systems, key=lambda system: (order.index(system.state), -system.an_hour))[:MAX_SYSTEMS]


def bars(rhythm: Rhythm, now: datetime) -> dict[str, Any]:
    """Events per minute of the last hour as chart bars (heights up to 60), with the totals."""
    counted = rhythm.by_minute(now)
    peak = max((count for _, count in counted), default=0)
    drawn = [
        {"x": 5 * place, "height": round(60 * count / peak) if peak else 0, "count": count}
        for place, (_, count) in enumerate(counted)
    ]
    return {"bars": drawn, "most": peak, "total": sum(count for _, count in counted), "now": counted[-2][1]}


def _causes(words: Localizer, work: Work, ledger: Ledger | None) -> Iterator[dict[str, Any]]:
    if ledger is None:
        return
    for group in work.groups[:50]:
        example = work.examples.get(group.example)
        facts = example.seen if example is not None and isinstance(example.seen, dict) else {}
        error = RejectedError(group.cause.code, **{str(name): value for name, value in facts.items()})
        with ledger.reading() as conn:
            entries = parked_search.page(conn, parked_search.ParkedFilter(cause=group.cause), limit=MAX_ENTRIES)
        yield {
            "group": group,
            "say": error.message(words.language),
            "fix": error.fix(words.language),
            "entries": entries,
            "more": max(0, group.count - len(entries)),
        }
