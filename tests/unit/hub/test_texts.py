"""Every code that is raised has its words, in both languages, and no code has two meanings."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from hub.errors import NO_NAMES, FatalError, Place, RejectedError, texts

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"HUB-[EW][0-9]{4}")


def test_no_code_stands_for_two_things() -> None:
    """YAML takes the last of two, and says nothing."""
    names = re.findall(r"^(HUB-[EW][0-9]{4}):", (ROOT / "hub" / "texts.yaml").read_text("utf-8"), re.MULTILINE)
    assert [name for name, times in Counter(names).items() if times > 1] == []
    assert set(names) == set(texts())


def test_every_code_has_words_and_all_words_have_a_code() -> None:
    files = [file for folder in ("hub", "connectors", "projections") for file in (ROOT / folder).rglob("*.py")]
    named = {code for file in files for code in CODE.findall(file.read_text("utf-8"))}
    assert named - set(texts()) == set()
    assert set(texts()) - named == set()


def test_both_languages_say_the_same_facts() -> None:
    for code, entry in texts().items():
        for part in ("say", "fix"):
            facts = {language: set(re.findall(r"{(\w+)[^}]*}", entry[part][language])) for language in ("zh-CN", "en")}
            assert facts["zh-CN"] == facts["en"], code


def test_a_log_line_of_an_error_tells_what_to_do_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_LANG", "en")
    error = RejectedError("HUB-E5005")
    assert error.fields() == {"code": "HUB-E5005", "reason": error.message("en"), "fix": error.fix("en")}
    placed = RejectedError("HUB-E5005", place=Place("rules.yaml", 3, 7))
    assert placed.fields() == {**error.fields(), "place": "rules.yaml:3:7"}


@pytest.mark.parametrize(
    ("near", "zh", "en"),
    [
        ("lead", "是否指 lead？", "did you mean lead?"),
        ("lead, clerk", "现有：lead, clerk。", "there are: lead, clerk."),
        (NO_NAMES, "目前一个也没有。", "there is none yet."),
    ],
)
def test_a_name_is_offered_only_where_one_is_near(near: str, zh: str, en: str) -> None:
    error = FatalError("HUB-E3140", role="chief", near=near)
    assert error.fix("zh-CN").endswith(f"；{zh}")
    assert error.fix("en").endswith(f"; {en}")
