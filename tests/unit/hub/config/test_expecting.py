"""What an error asks for: a kind in words, an example only as an example, and never the word that was written."""

from __future__ import annotations

import pytest

from hub.calendar import working_time
from hub.config.settings import Config
from hub.config.validation import check, near
from hub.config.yaml_places import parse_yaml
from hub.errors import FatalError, HubError
from hub.kit.settings import read
from tests.unit.hub.intake.instances import instance
from tests.unit.hub.rules.homes import HEAD, TASK
from tests.unit.hub.rules.homes import read as read_rules


def of_settings(text: str) -> HubError:
    _, (error,) = check(Config, parse_yaml(text, "hub.yaml", {}))
    return error


@pytest.mark.parametrize(
    ("text", "zh", "en"),
    [
        ("web: {port: a}", "整数，例如 8600", "a whole number, for example 8600"),
        ("kafka: {port: a}", "整数，例如 19092", "a whole number, for example 19092"),
        ("language: a", "zh-CN、en 之一", "one of zh-CN, en"),
        ("name: {}", "文本，例如 hub", "a text, for example hub"),
        ("web: a", "映射 {…}", "a map {…}"),
    ],
)
def test_what_a_setting_should_be(text: str, zh: str, en: str) -> None:
    error = of_settings(text)
    assert f"应为 {zh}，收到" in error.message("zh-CN")
    assert f"should be {en}, not" in error.message("en")


def test_advice() -> None:
    assert of_settings("web: {port: soon}").fix("zh-CN") == "写整数，例如 8600"
    assert of_settings("web: {port: soon}").fix("en") == "write a whole number, for example 8600"
    assert of_settings("language: eng").fix("en") == "did you mean en?"
    assert of_settings("language: fr").fix("zh-CN") == "选其一：zh-CN、en"


@pytest.mark.parametrize(
    ("days", "zh", "en"),
    [
        ("2027-02-30: work", "2027 年 2 月没有 30 日", "2027-02 has no day 30"),
        ("2026-11-31: off", "2026 年 11 月没有 31 日", "2026-11 has no day 31"),
        ("soon: work", "日期，例如 2027-02-14", "a day, for example 2027-02-14"),
        ("2027-02-14: wrk", "work、off 之一", "one of work, off"),
    ],
)
def test_days_of_the_calendar(days: str, zh: str, en: str) -> None:
    calendar = parse_yaml(f"days: {{{days}}}", "calendar.yaml", {})
    with pytest.raises(FatalError) as caught:
        working_time("CN", "UTC", calendar, parse_yaml("", "hub.yaml", {}))
    assert zh in caught.value.message("zh-CN")
    assert en in caught.value.message("en")


def test_a_word_that_is_nearly_right() -> None:
    calendar = parse_yaml("days: {2027-02-14: Wrok}", "calendar.yaml", {})
    with pytest.raises(FatalError) as caught:
        working_time("CN", "UTC", calendar, parse_yaml("", "hub.yaml", {}))
    assert caught.value.fix("zh-CN") == "是否指 work？"


def test_arguments_of_commands() -> None:
    _, (error,) = read_rules(HEAD + "do:\n  - task.create: {in: pm, title: a, due: soon}\n")
    assert error.message("zh-CN") == "do[0].task.create.due 应为 日期，例如 2026-11-20，收到 'soon'"


def test_a_suggestion_is_never_the_word_itself() -> None:
    assert near("workdays", ["workdays", "role"]) == "role"
    assert near("won", ["won"]) == "—"
    _, (error,) = read_rules(HEAD + TASK.replace("event.data.name", "workdays(event.time)"))
    assert error.code == "HUB-E3116"
    assert "workdays(时间, 天数)" in error.message("zh-CN")
    assert "workdays(time, days)" in error.fix("en")


def test_connectors_settings_are_told_in_the_same_manner() -> None:
    from connectors.http.settings import HttpSettings

    text = "receive: {verify: {scheme: standard-webhook, secret: s}, events: []}"
    with pytest.raises(FatalError) as caught:
        read(HttpSettings, instance(text))
    assert "did you mean standard-webhooks?" in caught.value.fix("en")
    with pytest.raises(FatalError) as odd:
        read(HttpSettings, instance('{"x[": 1}'))
    assert odd.value.code == "HUB-E4010"
