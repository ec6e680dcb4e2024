"""The home page: is all well, what needs a person, and how things flow. And what is parked, by cause, for who follows a link."""

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
from hub.health.verdict import HealthStatus, StageFact, Trouble
from hub.ledger import parked_search, refused
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.web import boards
from hub.web.language import Localizer
from hub.web.pages import Pages

NEEDS = 8
"""Entries of the list, the rest as a number."""
SYSTEMS = 6
"""Systems of a side that are drawn; the worst are always among them."""
SQUARES = 12
ENTRIES = 20
"""Entries of a cause that the page of parked work shows."""
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Need:
    """One thing that waits for a person: what, how bad (`bad`, `warn`), and where to go for it."""

    said: str | Markup
    level: str
    link: str
    count: int = 1
    since: str = ""


@dataclass(frozen=True)
class System:
    """An outside system in the picture. `state` is ok, warn or bad; `age`: seconds since its stream was read, None without one."""

    name: str
    an_hour: int
    state: str
    age: float | None = None
    waiting: int = 0
    parked: int = 0


@dataclass(frozen=True)
class Flow:
    """The picture: systems, log, rules, systems, boards."""

    sources: Sequence[System]
    targets: Sequence[System]
    stages: Mapping[str, StageFact]
    an_hour: int
    asked: int
    more_sources: int = 0
    more_targets: int = 0


@dataclass
class Work:
    """What the ledger says of work that waits for a person; empty while it is away."""

    groups: list[parked_search.Group] = field(default_factory=list)
    examples: Mapping[int, AnyRow] = field(default_factory=dict)
    refused: Sequence[refused.Count] = ()
    parked_at: Mapping[str, int] = field(default_factory=dict)
    """Instance → parked entries of its own."""


def router(pages: Pages, ledger: Ledger | None) -> APIRouter:
    """Their routes."""
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
    def verdict(request: Request) -> Response:
        return pages.render(request, "verdict.html", live=True)

    @routes.get("/parked")
    def parked(request: Request) -> Response:
        work, words = _work(pages, ledger), pages.words(request)
        return pages.render(request, "parked.html", causes=list(_causes(words, work, ledger)), refused=work.refused)

    return routes


def _facts(pages: Pages, request: Request, ledger: Ledger | None) -> dict[str, Any]:
    words, verdict, work = pages.words(request), pages.verdict(), _work(pages, ledger)
    needs = list(_needs(words, verdict, work))
    return {
        "needs": needs[:NEEDS],
        "more_needs": max(0, len(needs) - NEEDS),
        "flow": flow(verdict, pages.rhythm, work) if verdict is not None else None,
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
        return Work()  # the verdict says that the ledger is away


def _read(conn: Connection, now: datetime) -> Work:
    groups = parked_search.groups(conn, parked_search.ParkedFilter())
    examples = parked_search.examples(conn, [group.example for group in groups[:50]])
    at: dict[str, int] = {}
    for group in groups:
        if group.cause.instance:
            at[group.cause.instance] = at.get(group.cause.instance, 0) + group.count
    told = refused.counts(conn, now - DAY) if refused.is_there(conn) else ()
    return Work(groups, examples, [each for each in told if each.signed], at)


def _needs(words: Localizer, verdict: HealthStatus | None, work: Work) -> Iterator[Need]:
    """Worst first: what stands still, then what is parked, by how much, then what was refused."""
    for trouble in verdict.troubles if verdict is not None else ():
        yield Need(words.trouble(trouble), "warn" if trouble.outside else "bad", link_of(trouble))
    for group in work.groups:
        said = words("need.parked", what=reason(words, group, work.examples.get(group.example)))
        yield Need(said, "bad", f"/parked#{group.cause.name}", group.count, group.oldest)
    for each in work.refused:
        said = words("need.refused", instance=each.instance, what=text_of(each.code, words.language)["say"])
        yield Need(said, "warn", "/parked#refused", each.times, each.last_at)


def link_of(trouble: Trouble) -> str:
    """Where to look for a trouble."""
    if trouble.kind == "boards":
        return f"/boards/{trouble.where.partition(',')[0]}"
    instance = trouble.facts.get("instance")
    if instance:
        return f"#system-{instance}"
    return f"#stage-{_DRAWN.get(trouble.kind) or _OF.get(trouble.where, 'relay')}"


_DRAWN = {"relay": "relay", "held": "relay", "rules": "rules", "halted": "rules", "files": "rules", "asked": "calls"}
"""Kind of trouble → the stage of the picture that it belongs to."""
_OF = {"worker": "rules", "projections": "boards", "boards": "boards"}
"""The same of what does not run or answer; of all else, the first."""


def reason(words: Localizer, group: parked_search.Group, example: AnyRow | None) -> str:
    """Why entries of a cause are parked, in the reader's language, as the first of them says."""
    seen = example.seen if example is not None and isinstance(example.seen, dict) else {}
    return FatalError(group.cause.code, **{str(name): value for name, value in seen.items()}).message(words.language)


def flow(verdict: HealthStatus, rhythm: Rhythm, work: Work) -> Flow:
    """The picture of this moment."""
    taken, done = rhythm.taken(), rhythm.done()
    ages = {each.instance: (verdict.facts.at - each.read_at).total_seconds() for each in verdict.facts.streams}
    calls = {queue.where: queue for queue in verdict.facts.queues if queue.stage == "calls"}
    names = [*verdict.facts.instances, *(name for name in (*taken, *calls) if name not in verdict.facts.instances)]
    bad = {str(t.facts["instance"]): "warn" if t.outside else "bad" for t in verdict.troubles if "instance" in t.facts}
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
        {stage.stage: stage for stage in verdict.stages},
        sum(taken.values()),
        sum(done.values()),
        max(0, len(drawn_in) - SYSTEMS),
        max(0, len(drawn_out) - SYSTEMS),
    )


def _worst_first(systems: Sequence[System]) -> list[System]:
    order = ("bad", "warn", "ok")
    return sorted(systems, key=lambda system: (order.index(system.state), -system.an_hour))[:SYSTEMS]


def bars(rhythm: Rhythm, now: datetime) -> dict[str, Any]:
    """Events by minute of the last hour, as a drawing has them: up to 60 high, and the figures."""
    counted = rhythm.by_minute(now)
    most = max((count for _, count in counted), default=0)
    drawn = [
        {"x": 5 * place, "height": round(60 * count / most) if most else 0, "count": count}
        for place, (_, count) in enumerate(counted)
    ]
    return {"bars": drawn, "most": most, "total": sum(count for _, count in counted), "now": counted[-2][1]}


def _causes(words: Localizer, work: Work, ledger: Ledger | None) -> Iterator[dict[str, Any]]:
    if ledger is None:
        return
    for group in work.groups[:50]:
        example = work.examples.get(group.example)
        seen = example.seen if example is not None and isinstance(example.seen, dict) else {}
        error = RejectedError(group.cause.code, **{str(name): value for name, value in seen.items()})
        with ledger.reading() as conn:
            entries = parked_search.page(conn, parked_search.ParkedFilter(cause=group.cause), limit=ENTRIES)
        yield {
            "group": group,
            "say": error.message(words.language),
            "fix": error.fix(words.language),
            "entries": entries,
            "more": max(0, group.count - len(entries)),
        }
