"""The home page in a real browser: live like the boards, counting by itself, and never green over a stream that is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import expect

from hub.health.status import Facts, HealthLimits, HealthStatus, Queue, assess
from hub.health.words import DEAL_WON
from tests.board_events import eventually
from tests.board_site import Site, serve
from tests.browser_fixture import OpenPage

pytestmark = pytest.mark.browser


class Told:
    """How the hub is, as a test says."""

    verdict: HealthStatus | None = None

    def say(self, *, stalled: bool = False) -> None:
        now = datetime.now(UTC)
        late = Queue("rules", "3", 1, now - timedelta(seconds=100), "17", {DEAL_WON: 1})
        facts = Facts(now, queues=(late,) if stalled else (), instances={"crm": "ok"})
        self.verdict = assess(facts, HealthLimits(), {})


@pytest.fixture
def told() -> Told:
    made = Told()
    made.say()
    return made


@pytest.fixture
def site(tmp_path: Path, told: Told) -> Iterator[Site]:
    with serve(tmp_path, verdict=lambda: told.verdict) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/boards/tasks"])
def test_a_worker_that_stands_still_is_told_without_a_reload_and_counted_on(
    site: Site, told: Told, open_page: OpenPage, path: str
) -> None:
    page = open_page(site.url + path)
    eventually(lambda: site.live.tabs == 1)
    told.say(stalled=True)
    sentence = page.locator(".answer .say" if path == "/" else "#verdict .stall")
    expect(sentence).to_contain_text("规则处理停滞 1 分 4")
    expect(page.locator(".as-of.late").first).to_be_visible()
    first = sentence.inner_text()
    expect(sentence).not_to_have_text(first)  # nothing was fetched: the page counts
    told.say()
    if path == "/":
        expect(sentence).to_contain_text("都在流转")
    else:
        expect(sentence).to_have_count(0)


@pytest.mark.parametrize("path", ["/", "/boards/deals"])
def test_a_lost_stream_turns_every_as_of_grey_at_once_and_counts_on(site: Site, open_page: OpenPage, path: str) -> None:
    page = open_page(site.url + path, "Failed to")
    eventually(lambda: site.live.tabs == 1)
    expect(page.locator(".lost").first).to_be_hidden()
    page.context.set_offline(True)
    page.evaluate("document.querySelector('#live')._htmx.sse.reader.cancel()")
    expect(page.locator("html")).to_have_class(re.compile("offline"))
    for lost in page.locator(".lost").all():
        expect(lost).to_be_visible()
    expect(page.locator(".lost").first).to_contain_text("秒没有消息")
    first = page.locator(".lost .ticks").first.inner_text()
    expect(page.locator(".lost .ticks").first).not_to_have_text(first)
    page.context.set_offline(False)
    expect(page.locator("html")).not_to_have_class(re.compile("offline"), timeout=20_000)
    expect(page.locator(".lost").first).to_be_hidden()


def test_a_stream_that_falls_silent_is_lost(site: Site, open_page: OpenPage) -> None:
    """A server that stands still keeps its connections open: only its silence tells."""
    page = open_page(site.url)
    eventually(lambda: site.live.tabs == 1)
    page.clock.install()
    page.evaluate("document.dispatchEvent(new CustomEvent('htmx:sse:after:message'))")
    # From here on the page hears nothing, whatever the server of this test goes on to say.
    page.evaluate("addEventListener('htmx:sse:after:message', (event) => event.stopImmediatePropagation(), true)")
    page.clock.run_for(11_000)
    page.clock.run_for(3_000)
    expect(page.locator("html")).to_have_class(re.compile("offline"))


def test_the_home_page_works_without_javascript(site: Site, told: Told, browser: object) -> None:
    told.say(stalled=True)
    from playwright.sync_api import Browser

    assert isinstance(browser, Browser)
    context = browser.new_context(java_script_enabled=False, locale="zh-CN")
    page = context.new_page()
    page.goto(site.url)
    expect(page.locator(".answer")).to_contain_text("规则处理停滞 1 分 40 秒，1 笔赢单在等")
    expect(page.locator(".needs a")).to_have_count(1)
    expect(page.locator(".lost").first).to_be_hidden()
    context.close()
