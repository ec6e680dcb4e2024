"""Nothing is lost between Redmine and the hub: the source against a Redmine in memory that does all it may do to us.

Many changes in a second, changes between two pages, stamps older than their commit, parts of seconds in the database that
its answers and filters cut off, cursors that are read again after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.redmine import source
from connectors.redmine.client import RedmineClient, Row
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from connectors.redmine.source import IssueCursor, RedmineSource, redmine_time
from hub.errors import RejectedError
from hub.kit.connector import Fact, Instance, RateLimits, Unmapped
from hub.runtime.clock import FixedClock
from schemas.envelope import parse_time

SMALL = 3
"""Issues on a page."""
LATE = 9.0
"""Seconds that a change may take to be committed; less than the overlap."""
GIVEN = {"url": "http://127.0.0.1:1", "key": "k", "mark_field": 1, "accounts": "id", "overlap": 12}


@dataclass
class Issue:
    id: int
    created: float
    updated: float
    entries: list[tuple[int, float]] = field(default_factory=list)

    def row(self) -> Row:
        """As Redmine answers: closed and opened again by turns, times without parts of seconds."""
        closed = len(self.entries) % 2
        return {
            "id": self.id,
            "project": {"id": 1, "name": "p"},
            "status": {"id": 5 if closed else 1, "name": "?", "is_closed": bool(closed)},
            "subject": "s",
            "created_on": at(self.created),
            "updated_on": at(self.updated),
            "journals": [
                {
                    "id": id_,
                    "created_on": at(time),
                    "details": [{"property": "attr", "name": "status_id", "old_value": old, "new_value": new}],
                }
                for (id_, time), (old, new) in zip(
                    self.entries, [("1", "5"), ("5", "1")] * len(self.entries), strict=False
                )
            ],
        }


def at(time: float) -> str:
    return redmine_time(datetime.fromtimestamp(int(time), UTC))


class Memory(RedmineClient):
    """A Redmine in memory. `now` is its clock; a change may be stamped now and committed later."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "k", name="pm", limits=RateLimits())
        self.now, self.journal = 1_767_603_600.0, 0
        self.issues: dict[int, Issue] = {}
        self.pending: dict[int, tuple[float, int, float]] = {}
        self.reads = 0

    def create(self) -> None:
        id_ = len(self.issues) + 1
        self.issues[id_] = Issue(id_, self.now, self.now)

    def change(self, which: int, late: float) -> None:
        """Redmine lets nobody change an issue while another change of it is under way."""
        if self.issues:
            id_ = sorted(self.issues)[which % len(self.issues)]
            if id_ not in self.pending:
                self.journal += 1
                self.pending[id_] = (self.now + late, self.journal, self.now)
                self.commit()

    def leap(self, which: int, seconds: float) -> None:
        """A change that is stamped ahead of its time: the clock was wrong for a moment."""
        if self.issues:
            self.now += seconds
            self.change(which, 0.0)
            self.now -= seconds

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.commit()

    def commit(self) -> None:
        for id_, (when, journal, stamp) in [*self.pending.items()]:
            if when <= self.now:
                del self.pending[id_]
                self.issues[id_].entries.append((journal, stamp))
                self.issues[id_].updated = stamp

    def me(self) -> Row:
        return {"login": "admin"}

    def listed(self, path: str) -> list[Row]:
        return [{"id": 1, "name": "New", "is_closed": False}, {"id": 5, "name": "Closed", "is_closed": True}]

    def issue(self, id_: int) -> Row | None:
        self.reads += 1
        return self.issues[id_].row()

    def latest(self) -> Row | None:
        rows = sorted(self.issues.values(), key=lambda issue: issue.updated)
        return rows[-1].row() if rows else None

    def changed(self, since: str) -> list[Row]:
        rows = [issue for issue in self.issues.values() if issue.updated > seconds(since) - 1]
        return [issue.row() for issue in sorted(rows, key=lambda issue: (issue.updated, issue.id))[:SMALL]]

    def changed_within(self, since: str, until: str, after: int) -> list[Row]:
        inside = [issue for issue in self.issues.values() if seconds(since) - 1 < issue.updated <= seconds(until)]
        rows = [issue for issue in inside if issue.id > after]
        return [issue.row() for issue in sorted(rows, key=lambda issue: issue.id)[:SMALL]]


def seconds(time: str) -> float:
    return parse_time(time).timestamp()


class Hub:
    """Polls as the hub does, and keeps what intake would keep."""

    def __init__(self, redmine: Memory, skew: float = 3600.0, **given: Any) -> None:
        self.redmine, self.skew = redmine, skew
        self.clock = FixedClock(datetime.fromtimestamp(0, UTC))
        names = GIVEN | given
        instance = Instance("pm", "redmine", names)
        read = RedmineSettings.model_validate(names)
        self.source = RedmineSource(
            redmine, "pm", read, Names(redmine, read, instance), RedmineUsers(redmine, "pm", "id"), self.clock
        )
        self.cursor: str | None = None
        self.ahead: float | None = None
        self.earlier: str | None = None
        self.kept: dict[tuple[str, str, str], Fact] = {}

    def poll(self) -> bool:
        """One page; whether more is there at once."""
        self.clock.at = datetime.fromtimestamp(self.redmine.now, UTC) + timedelta(seconds=self.skew)
        page = self.source.poll("issues", self.cursor)
        self.earlier, self.cursor = self.cursor, page.cursor
        self.ahead = page.ahead
        for fact in page.facts:
            assert isinstance(fact, Fact)
            self.kept.setdefault((fact.type, fact.subject, fact.version), fact)
        return page.more

    def catch_up(self) -> None:
        for _ in range(1000):
            if not self.poll():
                return
        raise AssertionError("more, for ever")

    def settle(self) -> None:
        """What was on its way when the hub had caught up is told by the next poll."""
        for _ in range(2):
            self.redmine.tick(LATE)
            self.catch_up()

    def crash(self) -> None:
        """Back to the cursor before the last: the ledger had not yet committed the page."""
        self.cursor = self.earlier or self.cursor

    def versions(self, id_: int) -> list[int]:
        return [int(fact.version) for fact in self.kept.values() if fact.subject == f"task/pm/{id_}"]


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PAGE_SIZE", SMALL)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create")),
        st.tuples(st.just("change"), st.integers(0, 9), st.one_of(st.just(0.0), st.floats(0.1, LATE))),
        st.tuples(st.just("tick"), st.one_of(st.floats(0.01, 1.5), st.floats(2, 40))),
        st.tuples(st.just("poll")),
        st.tuples(st.just("crash")),
    ),
    max_size=60,
)


def run(redmine: Memory, hub: Hub, steps: list[tuple[Any, ...]]) -> None:
    for name, *arguments in steps:
        match name:
            case "poll" | "crash":
                getattr(hub, name)()
            case _:
                getattr(redmine, name)(*arguments)


LATE_BEHIND_A_NEWER_ONE = [("change", 0, 5.0), ("tick", 3.0), ("create",), ("poll",), ("tick", 3.0), ("poll",)]
LATE_BEHIND_A_PAGE = [*[("create",)] * 3, ("change", 0, 1.0), *[("poll",)] * 3, ("tick", 13.0), ("create",)]


@example(before=[("create",), ("tick", 30.0), ("create",)], steps=LATE_BEHIND_A_NEWER_ONE)
@example(before=[], steps=LATE_BEHIND_A_PAGE)
@given(before=STEPS, steps=STEPS)
@settings(max_examples=300)
def test_every_transition_after_the_first_poll_is_told_once_and_in_order(
    before: list[tuple[Any, ...]], steps: list[tuple[Any, ...]]
) -> None:
    redmine = Memory()
    run(redmine, Hub(redmine), before)
    redmine.tick(LATE)
    hub = Hub(redmine)
    hub.poll()
    old = {id_: [journal for journal, _ in issue.entries] for id_, issue in redmine.issues.items()}
    run(redmine, hub, steps)
    hub.settle()
    for id_, issue in redmine.issues.items():
        new = [journal for journal, _ in issue.entries if journal not in old.get(id_, [])]
        told = [version for version in hub.versions(id_) if version not in (0, *old.get(id_, []))]
        assert told == new
        assert 0 in hub.versions(id_) or id_ in old


@given(steps=STEPS)
@settings(max_examples=100)
def test_from_a_given_time_on_all_is_told(steps: list[tuple[Any, ...]]) -> None:
    redmine = Memory()
    hub = Hub(redmine, skew=-7200.0, since="2020-01-01T00:00:00Z")
    run(redmine, hub, steps)
    hub.settle()
    for id_, issue in redmine.issues.items():
        assert hub.versions(id_) == [0, *(journal for journal, _ in issue.entries)]


LEAPS = st.tuples(st.just("leap"), st.integers(0, 9), st.sampled_from([15.0, 250.0, 3600.0, 86400.0]))


@example(before=[], steps=[("create",), ("poll",), ("leap", 0, 3600.0), ("poll",), ("poll",), ("create",)], skew=0.0)
@given(
    before=st.lists(st.one_of(STEPS, LEAPS.map(lambda leap: [leap])), max_size=4),
    steps=st.lists(st.one_of(STEPS, LEAPS.map(lambda leap: [leap])), max_size=8),
    skew=st.sampled_from([0.0, -7200.0]),
)
@settings(max_examples=200)
def test_a_change_that_is_ahead_of_its_time_hides_no_other(before: list[Any], steps: list[Any], skew: float) -> None:
    """Nor where the clock over there is always two hours ahead of ours."""
    before, steps = _flat(before), _flat(steps)
    redmine = Memory()
    run(redmine, Hub(redmine), before)
    redmine.tick(LATE)
    hub = Hub(redmine, skew=skew)
    hub.poll()
    old = {id_: [journal for journal, _ in issue.entries] for id_, issue in redmine.issues.items()}
    run(redmine, hub, steps)
    hub.settle()
    for id_, issue in redmine.issues.items():
        new = [journal for journal, _ in issue.entries if journal not in old.get(id_, [])]
        assert [version for version in hub.versions(id_) if version not in (0, *old.get(id_, []))] == new


def _flat(steps: list[Any]) -> list[Any]:
    return [one for each in steps for one in (each if isinstance(each, list) else [each])]


def test_a_cursor_that_an_older_hub_left_ahead_comes_back() -> None:
    redmine = Memory()
    hub = Hub(redmine, skew=0.0)
    hub.poll()
    hub.cursor = IssueCursor.start(at(redmine.now + 3600)).text()
    hub.poll()
    redmine.tick(1.0)
    redmine.create()
    hub.settle()
    assert hub.versions(1) == [0]


@pytest.mark.parametrize(("leap", "ahead"), [(3600.0, 3600.0), (0.0, 0.0)])
def test_how_far_it_is_ahead_is_told_until_our_clock_is_there(leap: float, ahead: float) -> None:
    redmine = Memory()
    hub = Hub(redmine, skew=0.0)
    hub.poll()
    redmine.create()
    redmine.leap(0, leap)
    hub.poll()
    assert hub.ahead == pytest.approx(ahead, abs=1.0)
    redmine.tick(leap + 100)
    hub.catch_up()
    hub.poll()
    assert hub.ahead == 0.0


def test_a_quiet_redmine_is_hardly_asked() -> None:
    redmine = Memory()
    hub = Hub(redmine, since="2020-01-01T00:00:00Z")
    for _ in range(5):
        redmine.create()
        redmine.change(9, 0.0)
        redmine.tick(0.3)
    hub.catch_up()
    for _ in range(4):
        redmine.tick(5)
        hub.catch_up()
    settled, redmine.reads = redmine.reads, 0
    redmine.tick(5)
    hub.catch_up()
    assert settled > 0
    assert redmine.reads == 0


class Broken(Memory):
    """Its issues have a subject that cannot be read, until it is mended."""

    wrong = True

    def issue(self, id_: int) -> Row | None:
        row = super().issue(id_)
        return {**row, "project": {}} if row and self.wrong else row


def test_an_issue_that_could_not_be_told_is_kept_once_and_can_be_told_again() -> None:
    redmine = Broken()
    hub = Hub(redmine, since="2020-01-01T00:00:00Z")
    redmine.create()
    pages: list[Fact | Unmapped] = []
    for _ in range(4):
        redmine.tick(3.0)
        page = hub.source.poll("issues", hub.cursor)
        hub.cursor = page.cursor
        pages += page.facts
    (kept,) = pages
    assert isinstance(kept, Unmapped)
    reads = redmine.reads
    (again,) = hub.source.reread(kept.raw)
    assert isinstance(again, Unmapped), "the bytes are as they were"
    (mended,) = hub.source.reread(kept.raw.replace(b'"project":{}', b'"project":{"id":1}'))
    assert isinstance(mended, Fact)
    assert (mended.type, mended.subject) == ("work.task.created", "task/pm/1")
    assert redmine.reads == reads


def test_an_issue_kept_by_an_older_connector_cannot_be_told_again() -> None:
    with pytest.raises(RejectedError) as refused:
        Hub(Memory()).source.reread(b'{"id": 1}')
    assert refused.value.code == "HUB-E6106"
