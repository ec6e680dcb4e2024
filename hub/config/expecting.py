"""Describes the expected value of a setting, in both languages. An example is marked as an example, never as the fix."""

from __future__ import annotations

import difflib
import re
from calendar import monthrange
from collections.abc import Mapping
from typing import NamedTuple, get_args

from pydantic import StringConstraints
from pydantic_core import ErrorDetails

from schemas.envelope import CommandType, EventType, Reference
from schemas.fields import Amount, Currency, Day

Words = Mapping[str, str]
"""A localized text: language → text."""
KINDS = {
    "string": ("文本", "a text"), "too": ("至少一项", "at least one entry"),
    **dict.fromkeys(("int", "integer"), ("整数", "a whole number")), **dict.fromkeys(("float", "number"), ("数字", "a number")),
    **dict.fromkeys(("bool", "boolean"), ("true 或 false", "true or false")),
    **dict.fromkeys(("list", "tuple", "array"), ("列表 […]", "a list […]")),
    **dict.fromkeys(("dict", "mapping", "model", "object"), ("映射 {…}", "a map {…}")),
}  # fmt: skip
_OF_TYPES = [
    (EventType, "事件类型", "a type of event", "crm.opportunity.won"),
    (CommandType, "命令类型", "a type of command", "task.create"),
    (Reference, "对象引用", "a reference to an object", "opportunity/crm/1024"),
    (Amount, "写成文本的十进制数", "a decimal number as text", '"880000.10"'),
    (Currency, "ISO 4217 货币代码", "an ISO 4217 currency", "CNY"),
    (Day, "日期", "a day", "2026-11-20"),
]
PATTERNS = {str(get_args(type_)[1].pattern): (zh, en, example) for type_, zh, en, example in _OF_TYPES}
"""Pattern → its description in zh and en, and an example: clearer for people than the pattern."""
_BOUNDS = (("gt", "> "), ("ge", ">= "), ("lt", "< "), ("le", "<= "))


def text_form(pattern: str, zh: str, en: str, example: str, max_length: int | None = None) -> StringConstraints:
    """A text type with a pattern, and what an error message shows instead of the pattern: a description and an example."""
    PATTERNS[pattern] = (zh, en, example)
    return StringConstraints(pattern=pattern, max_length=max_length)


class Expected(NamedTuple):
    """The expected value, and advice on how to correct a wrong one."""

    expected: Words
    advice: Words


def both(zh: str, en: str) -> Words:
    """A text in both languages."""
    return {"zh-CN": zh, "en": en}


def expected_value(details: ErrorDetails, example: object = None) -> Expected:
    """The value that pydantic expected; `example` is the setting's default, if it has one."""
    context, kind = details.get("ctx", {}), details["type"]
    if kind == "literal_error":
        return of_choices(re.findall(r"'([^']*)'", str(context["expected"])), details["input"])
    if "pattern" in context:
        return of_pattern(str(context["pattern"]))
    for name, sign in _BOUNDS:
        if name in context:
            return same_in_both(f"{sign}{context[name]}")
    if "expected" in context or "error" in context:
        return same_in_both(str(context.get("expected") or context["error"]))
    return of_kind(*KINDS.get(kind.split("_")[0], (kind, kind)), example)


def same_in_both(expected: str) -> Expected:
    """An expectation that is the same in every language and can be written as is."""
    return Expected(both(expected, expected), both(f"改成 {expected}", f"change it to {expected}"))


def of_kind(zh: str, en: str, example: object = None) -> Expected:
    """A kind of value, optionally with an example."""
    zh, en = (zh, en) if example is None else (f"{zh}，例如 {example}", f"{en}, for example {example}")
    return Expected(both(zh, en), both(f"写{'' if zh[0] > '~' else ' '}{zh}", f"write {en}"))


def of_pattern(pattern: str) -> Expected:
    """A text that matches a pattern."""
    zh, en, example = PATTERNS.get(pattern, ("", "", ""))
    return of_kind(zh, en, example) if zh else of_kind(f"符合 {pattern} 的文本", f"a text like {pattern}")


def of_choices(choices: list[str], got: object) -> Expected:
    """One of several choices; the advice names the closest one."""
    close = difflib.get_close_matches(str(got).lower(), choices, 1, 0.5)
    named_zh, named_en = "、".join(choices), ", ".join(choices)
    advice = (
        (f"是否指 {close[0]}？", f"did you mean {close[0]}?")
        if close
        else (f"选其一：{named_zh}", f"choose one: {named_en}")
    )
    return Expected(both(f"{named_zh} 之一", f"one of {named_en}"), both(*advice))


def expected_day(text: str) -> Expected:
    """A calendar day; for a day that does not exist, the advice gives the last day of its month."""
    match = re.fullmatch(r"(\d{4})-(0[1-9]|1[0-2])-(\d\d)", text)
    if match is None or match[1] == "0000":
        return of_kind("日期", "a day", "2027-02-14")
    year, month, day = map(int, match.groups())
    last = monthrange(year, month)[1]
    return Expected(
        both(
            f"日历上有的日子（{year} 年 {month} 月没有 {day} 日）",
            f"a day that there is ({year}-{month:02} has no day {day})",
        ),
        both(f"改成 {year} 年 {month} 月 1 至 {last} 日中的一天", f"name a day of {year}-{month:02}, from 1 to {last}"),
    )
