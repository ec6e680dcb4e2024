"""The boards in a real browser: live, by keyboard, without JavaScript, in both languages, and deaf to what is written on cards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from hub.ledger import outbox
from tests.board_events import DEAL, Deal, event, eventually
from tests.board_site import Site, serve
from tests.browser_fixture import OpenPage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
OWN = Deal(2, instance="own")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve(tmp_path) as running:
        yield running


def connected(page: Page) -> None:
    """Wait until the page's stream is open."""
    eventually(lambda: bool(page.evaluate("Boolean(document.querySelector('#live')?._htmx?.sse?.reader)")))


def outbox_events(site: Site, ref: str) -> list[str]:
    with site.ledger.reading() as conn:
        return [row.type for row in outbox.of_subject(conn, ref)]


def relay_outbox(site: Site, ref: str) -> None:
    """What the connectors' relay does: carry the outbox's events on this task into the log."""
    from schemas.envelope import Event

    with site.ledger.reading() as conn:
        site.relay.send(Event.from_json(row.body) for row in outbox.of_subject(conn, ref))


def test_a_won_deal_appears_without_a_reload(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.url}/boards/tasks")
    deals = open_page(f"{site.url}/boards/deals")
    expect(page.locator("article")).to_have_count(0)
    for each in (page, deals):
        connected(each)
        each.evaluate("window.same = true")
    deal = Deal(1)
    site.relay.send(deal.story())
    expect(page.locator("#part-created article")).to_have_count(3)
    expect(deals.locator("#part-won tr.deal")).to_contain_text(["网关项目"])
    expect(deals.locator("#part-won tr.deal")).to_contain_text(["¥88万"])
    site.relay.send([deal.step(0, "started", 5), deal.step(1, "completed", 6)])
    expect(page.locator("#part-started article h3")).to_have_text(["启动会"])
    expect(page.locator("#part-created article")).to_have_count(1)
    expect(deals.locator("#part-won tr.deal")).to_contain_text(["1/3"])
    expect(page.locator("#as-of")).to_contain_text("数据截至 11月20日 周五 10:06")
    assert page.evaluate("window.same")
    assert deals.evaluate("window.same")


def test_a_page_that_was_away_catches_up_before_the_next_event(site: Site, open_page: OpenPage) -> None:
    """Trap 2: a stream that comes back must first say what was missed."""
    page = open_page(f"{site.url}/boards/tasks")
    connected(page)
    page.evaluate("document.querySelector('#live')._htmx.sse.reader.cancel()")  # what hiding the tab does
    site.relay.send(Deal(1).story())
    expect(page.locator("#part-created article")).to_have_count(3)


def test_the_focus_stays_on_a_card_that_moves_and_the_move_is_said(site: Site, open_page: OpenPage) -> None:
    deal = Deal(1)
    site.relay.send(deal.story())
    eventually(lambda: "tasks-8" in site.live.head)
    page = open_page(f"{site.url}/boards/tasks")
    connected(page)
    card = page.locator("article", has_text="实施方案")
    card.focus()
    held = card.get_attribute("id")
    site.relay.send([deal.step(0, "completed", 5)])  # another card
    expect(page.locator("#part-completed article")).to_have_count(1)
    expect(page.locator(f"#{held}")).to_be_focused()
    site.relay.send([deal.step(1, "started", 6)])
    expect(page.locator(f"#part-started #{held}")).to_be_focused()
    expect(page.locator("#said")).to_have_text("实施方案 → 进行中")


def test_by_keyboard_alone(site: Site, open_page: OpenPage) -> None:
    site.relay.send(OWN.story())
    eventually(lambda: "tasks-8" in site.live.head)
    page = open_page(f"{site.url}/boards/tasks")
    connected(page)
    titles = page.locator("article h3").all_text_contents()
    page.keyboard.press("j")
    expect(page.locator("article").first).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("article", has_text=titles[1])).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator("article").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/why/task/own/"))
    expect(page.locator(".chain")).to_contain_text("won-deal-to-delivery")


def test_buttons_move_the_hubs_own_tasks(site: Site, open_page: OpenPage) -> None:
    site.relay.send(OWN.story())
    eventually(lambda: "tasks-8" in site.live.head)
    page = open_page(f"{site.url}/boards/tasks")
    connected(page)
    page.get_by_label("我是").select_option("person/li.lei")
    page.get_by_role("button", name="选择").click()
    connected(page)
    ref = OWN.task(0)
    button = page.get_by_role("button", name="开始：启动会")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("已记录：开始 · 启动会")
    page.keyboard.press("Enter")  # pressed again before anything has moved
    eventually(lambda: outbox_events(site, ref) == ["work.task.started"])
    relay_outbox(site, ref)
    expect(page.locator("#part-started article h3")).to_have_text(["启动会"])
    expect(page.locator("#part-started article")).to_contain_text("完成")
    assert outbox_events(site, ref) == ["work.task.started"]


def test_who_has_not_said_who_they_are_is_told_so(site: Site, open_page: OpenPage) -> None:
    site.relay.send(OWN.story())
    eventually(lambda: "tasks-8" in site.live.head)
    page = open_page(f"{site.url}/boards/tasks", expected="403")
    page.get_by_role("button", name="接受：启动会").click()
    expect(page.locator("#said")).to_contain_text("HUB-E7106")
    assert outbox_events(site, OWN.task(0)) == []


def test_without_javascript(site: Site, open_page: OpenPage) -> None:
    site.relay.send(OWN.story())
    eventually(lambda: "tasks-8" in site.live.head)
    page = open_page(f"{site.url}/boards/tasks", java_script_enabled=False)
    expect(page.locator("article")).to_have_count(3)
    assert page.locator("noscript meta[http-equiv=refresh], head meta[http-equiv=refresh]").count() == 1
    page.get_by_label("我是").select_option("person/li.lei")
    page.get_by_role("button", name="选择").click()
    page.get_by_role("button", name="完成：启动会").click()
    page.wait_for_url(f"{site.url}/boards/tasks")
    assert outbox_events(site, OWN.task(0)) == ["work.task.completed"]
    relay_outbox(site, OWN.task(0))
    eventually(lambda: "tasks-9" in site.live.head)
    page.reload()
    expect(page.locator("#part-completed article h3")).to_have_text(["启动会"])
    page.locator("#part-completed article a", has_text="为什么").click()
    expect(page.locator("h1")).to_have_text("启动会")


def test_each_reader_has_their_own_language_also_in_what_comes_live(site: Site, open_page: OpenPage) -> None:
    zh, en = open_page(f"{site.url}/boards/tasks"), open_page(f"{site.url}/boards/tasks", locale="en-GB")
    for page in (zh, en):
        connected(page)
    site.relay.send(Deal(1).story())
    expect(zh.locator("#part-created article").first).to_contain_text("11月24日 周二")
    expect(zh.locator("#part-created article").first).to_contain_text("交付部")
    expect(en.locator("#part-created article").first).to_contain_text("Tue 24 Nov")
    expect(en.locator("#part-created article").first).to_contain_text("Delivery")
    assert (zh.locator("html").get_attribute("lang"), en.locator("html").get_attribute("lang")) == ("zh-CN", "en")
    en.get_by_role("link", name="中文").click()
    expect(en.locator("h1")).to_have_text("任务")
    en.goto(f"{site.url}/boards/deals")
    expect(en.locator("h1")).to_have_text("商机")


PAYLOADS = (
    "<script>window.fired=1</script>",
    "<img src=x onerror=window.fired=1>",
    "<svg/onload=window.fired=1>",
    "'\"><img src=x onerror=window.fired=1>",
    "</h3></article></section><script>fired=1</script>",
    "{{7*7}}${window.fired=1}#{window.fired=1}",
    "<div hx-get=/api/tasks hx-trigger=load hx-on::load=window.fired=1>x</div>",
    "<a href=javascript:window.fired=1>x</a>",
    "<template><script>window.fired=1</script></template>",
    "<hx-partial hx-target=body><script>window.fired=1</script></hx-partial>",
    "\u202etxt<iframe srcdoc='<script>parent.fired=1</script>'>",
    "<base href=//evil.example><style>*{display:none}</style>",
)


@pytest.mark.parametrize("java_script", [True, False])
def test_nothing_written_on_a_card_ever_runs(site: Site, open_page: OpenPage, java_script: bool) -> None:
    """Titles, names, reasons and sources of a stranger are text, on every page, at once and when they come live."""
    deal = Deal(1, name=PAYLOADS[0], tasks=PAYLOADS)
    pages = [
        open_page(f"{site.url}/boards/{name}", java_script_enabled=java_script) for name in ("tasks", "deals", "inbox")
    ]
    if java_script:
        for page in pages:
            connected(page)
    said = {"type": "message.send", "arguments": {"to": PAYLOADS[1], "text": PAYLOADS[2]}, "why": deal.why(0)}
    account = event(
        "crm.opportunity.changed", deal.case, {**DEAL, "name": PAYLOADS[3], "account": PAYLOADS[4]}, version="8"
    )
    site.relay.send(
        [*deal.story(), deal.parked(0), account, event("hub.command.done", "command/own/m1", said, case=deal.case)]
    )
    eventually(lambda: f"tasks-{sum(site.relay.last.values())}" in site.live.head)
    for page in pages:
        if not java_script:
            page.reload()
        expect(page.locator("main [id^=card-]").first).to_be_attached()
    stories = (f"/why/{deal.task(0)}", f"/why/{deal.case}", "/why/command/own/m1")
    more = (*stories, "/boards/tasks", f"/boards/tasks?assignee={PAYLOADS[1]}")
    pages += [open_page(site.url + path, java_script_enabled=java_script) for path in more]
    for page in pages:
        if java_script:
            assert page.evaluate("window.fired") is None
        for tag in (
            "script:not([src])",
            "iframe",
            "base",
            "style",
            "main img",
            "main svg",
            "main [onerror]",
            "hx-partial",
        ):
            assert page.locator(tag).count() == 0, (page.url, tag)
    assert pages[0].locator("article h3").count() == len(PAYLOADS)


def test_ten_tabs_of_one_browser(site: Site, browser: Browser) -> None:
    """Trap 1: a browser gives a site six connections over HTTP/1.1. Tabs in the background must leave theirs."""
    context = browser.new_context(locale="zh-CN")
    context.add_init_script(HIDEABLE)
    pages: list[Page] = []
    for _ in range(10):
        for other in pages:
            other.evaluate("hide(true)")
        page = context.new_page()
        page.goto(f"{site.url}/boards/tasks", timeout=10_000)
        connected(page)
        pages.append(page)
    eventually(lambda: site.live.tabs == 1)
    site.relay.send(Deal(1).story())
    expect(pages[-1].locator("#part-created article")).to_have_count(3)
    for page in pages[:3]:
        page.evaluate("hide(false)")
        expect(page.locator("#part-created article")).to_have_count(3)
    context.close()


def test_a_tab_that_was_opened_in_the_background_waits_with_its_stream(site: Site, browser: Browser) -> None:
    context = browser.new_context(locale="zh-CN")
    context.add_init_script(HIDEABLE + "hide(true);")
    page = context.new_page()
    page.goto(f"{site.url}/boards/tasks")
    site.relay.send(Deal(1).story())
    eventually(lambda: "tasks-8" in site.live.head)
    assert site.live.tabs == 0
    page.evaluate("hide(false)")
    expect(page.locator("#part-created article")).to_have_count(3)
    eventually(lambda: site.live.tabs == 1)
    context.close()


HIDEABLE = """
let hidden = false;
Object.defineProperty(document, "hidden", { get: () => hidden });
Object.defineProperty(document, "visibilityState", { get: () => (hidden ? "hidden" : "visible") });
window.hide = (now) => { hidden = now; document.dispatchEvent(new Event("visibilitychange")); };
"""
"""Headless Chromium shows every tab at once; this lets a test turn one away."""


def test_a_board_that_nobody_writes_turns_grey(tmp_path: Path, open_page: OpenPage) -> None:
    with serve(tmp_path, runners=False) as quiet:
        page = open_page(f"{quiet.url}/boards/tasks")
        expect(page.locator("#as-of")).to_have_class(re.compile("late"))
        expect(page.locator("#as-of")).to_contain_text("⚠")
        assert "grayscale" in page.locator(".columns").evaluate("node => getComputedStyle(node).filter")
