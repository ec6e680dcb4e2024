"""The boards in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.board_events import Deal
from tests.board_site import Site, serve
from tests.browser_fixture import OpenPage

pytestmark = pytest.mark.browser


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serve(tmp_path) as running:
        yield running


def test_a_won_deal_appears_without_a_reload(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.url}/boards/tasks")
    expect(page.locator("article")).to_have_count(0)
    page.wait_for_function("document.querySelector('#live')._htmx?.sse?.reader")
    deal = Deal(1)
    site.relay.send(deal.story())
    expect(page.locator("#part-created article")).to_have_count(3)
    site.relay.send([deal.step(0, "started", 5)])
    expect(page.locator("#part-started article h3")).to_have_text(["启动会"])
    expect(page.locator("#part-created article")).to_have_count(2)
