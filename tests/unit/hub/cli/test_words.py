"""One language: `--lang` anywhere, and help in that language alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from hub.cli.language import lang_first


def hub(*words: str, language: str = "zh-CN") -> subprocess.CompletedProcess[str]:
    seen = {**os.environ, "HUB_LANG": language, "COLUMNS": "200"}
    command = [sys.executable, "-m", "hub.cli.main", *words]
    return subprocess.run(command, env=seen, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("why O-1 --lang en", "--lang en why O-1"),
        ("--lang en why O-1", "--lang en why O-1"),
        ("why --lang=en O-1", "--lang=en why O-1"),
        ("why -- --lang en", "why -- --lang en"),
        ("why O-1 --lang", "--lang why O-1"),
        ("why O-1", "why O-1"),
    ],
)
def test_the_option_may_stand_anywhere(given: str, read: str) -> None:
    assert lang_first(given.split()) == read.split()


def test_a_command_speaks_as_told_behind_it() -> None:
    assert "credentials" in hub("explain", "HUB-E4003", "--lang", "en").stdout
    assert re.search("[\u4e00-\u9fff]", hub("explain", "--lang", "zh", "HUB-E4003", language="en").stdout)
    assert hub("explain", "HUB-E4003", "--lang", "fr").returncode == 2


@pytest.mark.parametrize("words", [("--help",), ("parked", "--help"), ("init", "--help")], ids=" ".join)
def test_help_is_in_one_language(words: tuple[str, ...]) -> None:
    english, chinese = hub(*words, "--lang", "en").stdout, hub(*words).stdout
    assert not re.search("[\u4e00-\u9fff]", english)
    assert re.search("[\u4e00-\u9fff]", chinese)
    assert " · " not in english + chinese
