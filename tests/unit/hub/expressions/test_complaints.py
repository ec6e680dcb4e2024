"""CEL's complaints, in both languages and at their place."""

from __future__ import annotations

import re

import pytest

from hub.errors import LANGUAGES, HubError, Place
from tests.unit.hub.rules.homes import world

VALUES = {"event": {"data": {"a": "x", "n": 1, "d": 1.5, "l": [1], "t": True}}, "case": {}}
ENGLISH = re.compile(
    r"overload|mismatched|extraneous|token recognition|viable|Syntax|conversion|convert |SELECT|int64|divide"
)


def failure(text: str) -> HubError:
    engine = world().engine
    try:
        engine.expression(text, ("event", "case"), Place("rules/a.yaml", 3, 5)).value(engine.scope(VALUES, "c"))
    except HubError as error:
        return error
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("text", "code", "zh", "en"),
    [
        ("event.data.a >= 1", "HUB-E3121", "类型不合：文本 >= 整数", "text >= whole number does not fit"),
        (
            "event.data.n + event.data.d",
            "HUB-E3121",
            "类型不合：整数 + 小数",
            "whole number + decimal number does not fit",
        ),
        ("!event.data.a", "HUB-E3121", "类型不合：!…", "!… does not fit"),
        ("-event.data.a", "HUB-E3121", "类型不合：-文本", "-text does not fit"),
        ("size(event.data.n)", "HUB-E3121", "size(整数)", "size(whole number)"),
        ("'a' + 1", "HUB-E3110", "类型不合：文本 + 整数", "text + whole number"),
        ("event.data.n == 1 ? 'x' : 2", "HUB-E3110", "文本 : 整数", "text : whole number"),
        ("event.data.n in 5", "HUB-E3110", "值 in 整数", "value in whole number"),
        ("{1:2}['a']", "HUB-E3110", "映射[文本]", "map[text]"),
        ("1 / 0", "HUB-E3121", "除以零", "division by zero"),
        ("event.data.n % 0", "HUB-E3121", "除以零", "division by zero"),
        ("int(event.data.a)", "HUB-E3121", "不能转成整数", "no whole number"),
        ("double(event.data.a)", "HUB-E3121", "不能转成小数", "no decimal number"),
        ("timestamp(event.data.a)", "HUB-E3121", "不是 RFC 3339 时间", "no RFC 3339 time"),
        ("[1][2]", "HUB-E3121", "没有第 [2] 项", "none at [2]"),
        ("9223372036854775807 + event.data.n", "HUB-E3121", "超出范围", "out of range"),
        ("event.data.a.matches('(')", "HUB-E3121", "正则表达式", "regular expression"),
        ("event.data.x", "HUB-E3120", "event.data.x 不存在", "needs event.data.x"),
        ("event.data['x y']", "HUB-E3120", "不存在", "not there"),
        ("evnt.data", "HUB-E3114", "evnt", "evnt"),
        ("event.data.a >", "HUB-E3110", "后面缺少内容", "something must follow"),
        ("(event", "HUB-E3110", "缺少 ')'", "')' is missing"),
        ("event.data.a ? 1", "HUB-E3110", "缺少 ':'", "':' is missing"),
        ("event.data.a = 1", "HUB-E3110", "写成 ==", "write =="),
        ("event.data.a and 1", "HUB-E3110", "写成 &&", "write &&"),
        ("event.data.a == 'x' or true", "HUB-E3110", "写成 ||", "write ||"),
        ("'abc", "HUB-E3110", "缺少结尾的引号", "quote at its end"),
        ("event.data.a == 华为", "HUB-E3110", "引号", "quotes"),
        ("event.data.a == “x”", "HUB-E3110", "引号 “ 是中文的", "no quote here"),
        ("event..a", "HUB-E3110", "读不懂", "makes no sense"),
    ],
)
def test_the_common_ones(text: str, code: str, zh: str, en: str) -> None:
    error = failure(text)
    assert (error.code, error.place and error.place.file) == (code, "rules/a.yaml")
    assert zh in error.message("zh-CN")
    assert en in error.message("en")
    assert not ENGLISH.search(error.message("zh-CN").replace(text, ""))


def test_what_to_do_is_never_the_expression_itself() -> None:
    for text, said in (("1.5 > 1", "double(…)"), ("event.data.a >", "^")):
        for language in LANGUAGES:
            assert said in failure(text).fix(language)
            assert text not in failure(text).fix(language)


def test_others_are_told_as_cel_tells_them() -> None:
    assert "reserved" in failure("package").message("zh-CN")


def test_the_caret_stands_under_the_character_behind_chinese() -> None:
    row, caret = failure("'华为' == event.data.a >").message("zh-CN").split("\n")[-2:]
    assert caret.index("^") == len(row.encode("gbk"))
