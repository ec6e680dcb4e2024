"""Chromium for tests of pages: the machine's, driven by Playwright. A console error or a broken policy fails the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.parts import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a module. No longer: while it is there this thread has a running loop, and `asyncio.run` is refused."""
    from playwright.sync_api import sync_playwright  # here, since every test loads this module

    program = str(CHROMIUM.get())
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open an address in a context of its own, and at the end see that no page complained."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_(url: str, expected: str = "\0", **options: object) -> Page:
        """`expected`: a complaint of the console that holds this text is no surprise."""
        settings: dict[str, object] = {"locale": "zh-CN", "viewport": {"width": 1440, "height": 900}, **options}
        context = browser.new_context(**settings)  # type: ignore[arg-type]  # options are Playwright's own
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda m: complaints.append(m.text) if m.type == "error" and expected not in m.text else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
