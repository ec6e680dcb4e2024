"""Words: the reader's language, times in the hub's zone, money at a glance."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from zoneinfo import ZoneInfo

import pytest

import projections
from hub import web
from hub.errors import LANGUAGES
from hub.web.language import Localizer, chosen, of_language, texts
from hub.web.settings import PersonName

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
PEOPLE = {"person/li.lei": PersonName("李雷", {"zh": "交付部", "en": "Delivery"})}
ZH = Localizer("zh-CN", ZoneInfo("Asia/Shanghai"), PEOPLE, NOW)
EN = Localizer("en", ZoneInfo("Asia/Shanghai"), PEOPLE, NOW)


def test_every_text_is_there_in_both_languages_with_the_same_facts() -> None:
    for name, text in texts().items():
        assert set(text) == set(LANGUAGES), name
        assert all(text.values()), name
        zh, en = ({field for _, field, _, _ in Formatter().parse(text[language]) if field} for language in LANGUAGES)
        assert zh == en, name


def test_every_text_that_a_page_names_is_there_and_none_is_left_over() -> None:
    roots = (Path(projections.__file__).parent, Path(web.__file__).parent)
    files = [file for root in roots for file in root.rglob("*") if file.suffix in (".html", ".py")]
    sources = "\n".join(file.read_text("utf-8") for file in files)
    named = set(re.findall(r"""(?:w|w\.html|words|self)\(\s*["']([a-z.]+)["']\s*[,)]""", sources))
    assert named - set(texts()) == set()
    composed = ("task.", "deal.", "state.", "act.", "ago.", "due.", "yes", "no")
    assert {name for name in texts() if name not in named and not name.startswith(composed)} == set()


@pytest.mark.parametrize(
    ("asked", "kept", "accepted", "language"),
    [
        ("en", "zh-CN", "zh-CN", "en"),
        (None, "en", "zh-CN", "en"),
        (None, None, "en-US,en;q=0.9", "en"),
        (None, None, "fr, zh;q=0.8, en;q=0.9", "en"),
        (None, None, "fr", "zh-CN"),
        ("xx", None, "", "zh-CN"),
        (None, None, "en;q=nonsense", "zh-CN"),
    ],
)
def test_the_readers_language(asked: str | None, kept: str | None, accepted: str, language: str) -> None:
    assert chosen(asked, kept, accepted, "zh-CN") == language


def test_times_are_those_of_the_hubs_zone() -> None:
    assert ZH.time("2026-11-22T03:59:30.000000Z") == "11:59:30"
    assert ZH.time("2026-11-21T17:00:00.000000Z") == "01:00:00"
    assert ZH.time("2026-11-21T15:00:00.000000Z") == "11月21日 周六 23:00"
    assert EN.time("2026-11-21T15:00:00.000000Z") == "Sat 21 Nov 23:00"
    assert ZH.moment("2026-11-20T02:00:00.000000Z") == "2026年11月20日 周五 10:00:00"
    assert ZH.time("") == ""


def test_days_and_what_is_left_of_them() -> None:
    assert (ZH.day("2026-11-22"), EN.day("2026-11-22")) == ("11月22日 周日", "Sun 22 Nov")
    assert [ZH.left(day) for day in ("2026-11-20", "2026-11-22", "2026-11-24")] == ["超期 2 天", "今天到期", "剩 2 天"]
    assert (ZH.day("soon"), ZH.left("soon")) == ("soon", "")


@pytest.mark.parametrize(
    ("amount", "zh", "en"),
    [
        ("880000", "¥88万", "CN¥880,000"),
        ("123456789.5", "¥1.23亿", "CN¥123,456,789.5"),
        ("9999.99", "¥9,999.99", "CN¥9,999.99"),
        ("-20000", "¥-2万", "-CN¥20,000"),
        ("0", "¥0", "CN¥0"),
        ("much", "much", "much"),
        (None, "", ""),
    ],
)
def test_money(amount: str | None, zh: str, en: str) -> None:
    assert (ZH.money(amount, "CNY"), EN.money(amount, "CNY")) == (zh, en)


def test_people() -> None:
    assert (ZH.person("person/li.lei"), ZH.department("person/li.lei"), EN.department("person/li.lei")) == (
        "李雷",
        "交付部",
        "Delivery",
    )
    assert (ZH.person("account/pm/7"), ZH.person(None), ZH.department("person/nobody")) == ("7", "", "")


def test_titles_that_authors_gave() -> None:
    assert of_language({"zh": "甲", "en": "a"}, "zh-CN") == "甲"
    assert of_language({"zh-CN": "甲", "en": "a"}, "en") == "a"
    assert of_language({"en": "a"}, "zh-CN") == "a"
    assert of_language({}, "en") == ""
