"""Every page, in both languages, light and dark: axe finds nothing to object to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hub.health.rhythm import Rhythm
from hub.health.status import Facts, HealthLimits, Queue, assess
from hub.ledger import outbox, parked
from schemas.envelope import format_time
from tests.board_events import Deal, event, eventually
from tests.board_site import Site, serve
from tests.browser_fixture import OpenPage

pytestmark = pytest.mark.browser
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
PAGES = (
    "/",
    "/parked",
    "/boards/tasks",
    "/boards/deals",
    "/boards/inbox",
    "/why/task/own/100",
    "/why/opportunity/crm/O-1",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    now, rhythm = datetime.now(UTC), Rhythm()
    rules = Queue("rules", "3", 1, now - timedelta(seconds=100), "17", {"crm.opportunity.won": 1})
    calls = Queue("calls", "pm", 4, now - timedelta(seconds=240), "1", code="HUB-E4001")
    facts = Facts(now, queues=(rules, calls), instances={"crm": "ok", "pm": "ok", "desk": "paused"})
    found = assess(facts, HealthLimits(), {})
    with serve(tmp_path_factory.mktemp("site"), verdict=lambda: found, rhythm=rhythm) as running:
        row = {"ref": "event/e1", "kind": "event", "subject": "opportunity/crm/O-1", "instance": "pm"}
        seen = {"role": "chief", "near": "lead"}
        why = {"code": "HUB-E3140", "seen": seen, "body": b"{}", "parked_at": format_time(now)}
        running.ledger.writer.run(lambda conn: parked.park(conn, {**row, **why}))
        won = Deal(3).won().model_copy(update={"recordedtime": format_time(now)})
        running.ledger.writer.run(lambda conn: outbox.record(conn, [won], "crm"))
        with running.ledger.reading() as conn:
            rhythm.look(conn, now)
        own, other = Deal(1, instance="own"), Deal(2, minutes=20)
        said = {"type": "message.send", "arguments": {"to": "person/li.lei", "text": "赢单"}, "why": own.why(0)}
        message = event("hub.command.done", "command/own/m1", said, case=own.case)
        running.relay.send([*own.story(), own.step(1, "completed", 6), message])
        running.relay.send([other.won(), other.requested(0), other.requested(1), other.project(), other.parked(1)])
        want = f"inbox-{sum(running.relay.last.values())}"
        eventually(lambda: want in running.live.head and want.replace("inbox", "tasks") in running.live.head)
        yield running


@pytest.mark.parametrize("locale", ["zh-CN", "en-GB"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 400])
def test_axe_finds_nothing(site: Site, open_page: OpenPage, locale: str, scheme: str, width: int) -> None:
    page = open_page(site.url, locale=locale, color_scheme=scheme, viewport={"width": width, "height": 900})
    axe = AXE.read_text("utf-8")
    for path in PAGES:
        page.goto(site.url + path)
        page.evaluate(axe)  # as the developer tools do: the page's own policy lets no script in
        found = page.evaluate("axe.run()")["violations"]
        assert [(path, each["id"], each["nodes"][0]["html"][:200]) for each in found] == []


def test_at_twice_the_size_nothing_runs_off_the_side(site: Site, open_page: OpenPage) -> None:
    """200 % zoom of a laptop's window; a board's columns scroll in their own frame."""
    page = open_page(site.url, viewport={"width": 720, "height": 450})
    for path in PAGES:
        page.goto(site.url + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
