from __future__ import annotations

import string

import pytest

from hub.errors import LANGUAGES, text_of
from hub.ops.embedded_kafka.wording import LINES, say

CODES = [f"HUB-E20{number:02}" for number in range(1, 11)]


def facts_in(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("line", LINES)
def test_each_line_says_the_same_in_both_languages(line: str) -> None:
    assert set(LINES[line]) == set(LANGUAGES)
    assert len({frozenset(facts_in(text)) for text in LINES[line].values()}) == 1


@pytest.mark.parametrize("code", CODES)
def test_each_error_says_the_same_in_both_languages(code: str) -> None:
    chinese, english = (text_of(code, language) for language in LANGUAGES)
    assert facts_in(chinese["say"]) == facts_in(english["say"])
    assert facts_in(chinese["fix"]) == facts_in(english["fix"])


def test_speaks_the_language_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_LANG", "en")
    assert say("orphan", pid=7) == "stopping the Kafka process 7 that an earlier run left behind"
    monkeypatch.setenv("HUB_LANG", "zh-CN")
    assert "遗留" in say("orphan", pid=7)
