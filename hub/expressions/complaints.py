"""Translates CEL's error messages to Chinese and English: the common ones; the rest stay in CEL's own text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

Words = Mapping[str, str]
"""A localized text: language → text."""

TYPE_MISMATCH = "No matching overload"
"""CEL's evaluation error for values whose types do not match an operator or function."""
_KINDS = {
    **dict.fromkeys(("int", "int64"), ("整数", "whole number")),
    **dict.fromkeys(("uint", "uint64"), ("无符号整数", "unsigned number")),
    **dict.fromkeys(("null", "null_type"), ("空值", "null")), "string": ("文本", "text"), "double": ("小数", "decimal number"),
    "bool": ("真假值", "true or false"), "list": ("列表", "list"), "map": ("映射", "map"), "dyn": ("值", "value"),
    "timestamp": ("时间", "time"), "duration": ("时长", "duration"), "bytes": ("字节", "bytes"),
}  # fmt: skip
USAGE = {
    "workdays": ("workdays(时间, 天数)", "workdays(time, days)"),
    "role": ("role('角色')", "role('a role')"),
    "person": ("person('person/编号')", "person('person/id')"),
    "decimal": ("decimal(数字)", "decimal(number)"),
    "has": ("has(event.data.字段)", "has(event.data.field)"),
    **{name: (f"{name}(一个值)", f"{name}(one value)") for name in ("string", "int", "double", "bool", "size")},
    **{name: (f"{name}('文本')", f"{name}('text')") for name in ("timestamp", "duration")},
    **{name: (f"文本.{name}('…')", f"text.{name}('…')") for name in ("matches", "contains", "startsWith", "endsWith")},
    **{name: (f"列表.{name}(x, …)", f"list.{name}(x, …)") for name in ("all", "exists", "exists_one", "map", "filter")},
}
"""Usage examples of each function: zh, en."""
_INSTEAD = {"and": "&&", "AND": "&&", "or": "||", "OR": "||", "not": "!", "NOT": "!", "<>": "!="}
"""Operators of other languages → CEL's."""


def width(shown: str) -> int:
    """Columns of a text on a terminal: Chinese characters take two."""
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1 for char in shown
    )


def usage(name: str) -> Words:
    """A function's usage."""
    return _both(*USAGE[name])


def translated(reason: str) -> Words | str:
    """A common error message in both languages; any other message unchanged."""
    for pattern, words in _COMPLAINTS:
        match = re.search(pattern, reason, re.DOTALL)
        if match is not None:
            return _both(*words(match))
    return reason


def advice(reason: str) -> Words:
    """Advice on an error whose message contains none."""
    return _both(*(_CONVERT if any(re.search(pattern, reason) for pattern in _OVERLOADS) else _MEND))


_CONVERT = (
    "先让两边的类型相同：整数写成小数要加 .0，值用 double(…)、int(…) 或 string(…) 转换",
    "give both sides one type: a whole number becomes a decimal one with .0, values by double(…), int(…) or string(…)",
)
_MEND = ("改正 ^ 所指之处", "mend what ^ points at")
_OVERLOADS = (
    r"No matching overloads? found : ([^\s(]+)(?:\((?P<kinds>.*)\))?",
    r"found no matching overload for '([^']+)' applied to '\((?P<kinds>.*)\)'",
)
"""CEL's messages for operators and functions without an overload for these types."""


def _both(zh: str, en: str) -> Words:
    return {"zh-CN": zh, "en": en}


def _types(match: re.Match[str]) -> tuple[str, str]:
    name, kinds = match[1], _split(match["kinds"] or "")
    return _applied(name, [_kind(kind, 0) for kind in kinds], "类型不合：", ""), _applied(
        name, [_kind(kind, 1) for kind in kinds], "", " does not fit"
    )


def _split(kinds: str) -> list[str]:
    """The comma-separated types, without the type parameters of maps and lists."""
    return [kind for kind in re.sub(r"\([^()]*\)", "", kinds).split(",") if kind.strip()]


def _kind(kind: str, language: int) -> str:
    return _KINDS.get(kind.strip(), (kind.strip(), kind.strip()))[language]


def _applied(name: str, kinds: list[str], before: str, after: str) -> str:
    sign = name.strip("_@").replace("_", " ")
    if name == "_?_:_":
        shown = " : ".join(kinds[1:]) if len(kinds) > 2 else "? :"
    elif name in ("_[_]", "[]"):
        shown = f"{kinds[0]}[{kinds[1]}]" if len(kinds) > 1 else "[…]"
    elif (name.startswith("_") or name == "@in") and len(kinds) > 1:
        shown = f"{kinds[0]} {sign} {kinds[1]}"
    elif name.endswith("_"):
        shown = f"{sign}{kinds[0] if kinds else '…'}"
    else:
        shown = f"{name}({', '.join(kinds)})"
    return f"{before}{shown}{after}"


def _unexpected(match: re.Match[str]) -> tuple[str, str]:
    word = match[1].strip()
    if word in _INSTEAD:
        return f"没有 '{word}'，写成 {_INSTEAD[word]}", f"there is no '{word}'; write {_INSTEAD[word]}"
    return f"这里不该有 '{word}'", f"'{word}' does not belong here"


def _letter(match: re.Match[str]) -> tuple[str, str]:
    text = match[1]
    if text.strip() == "=":
        return "比较相等写成 ==", "to ask whether two are equal, write =="
    if text[:1] in "'\"":
        return "文本缺少结尾的引号", "a text lacks the quote at its end"
    if text[:1] in "“”‘’「」『』＂＇":
        return f"引号 {text[:1]} 是中文的，写成 '…'", f"{text[:1]} is no quote here; write '…'"
    return f"这里不能有 {text[:1]}；文本要放在引号里", f"{text[:1]} is not allowed here; a text needs its quotes"


_COMPLAINTS: tuple[tuple[str, Callable[[re.Match[str]], tuple[str, str]]], ...] = (
    *((pattern, _types) for pattern in _OVERLOADS),
    (r"mismatched input '<EOF>' expecting '(.)'", lambda m: (f"缺少 '{m[1]}'", f"'{m[1]}' is missing")),
    (
        r"mismatched input '<EOF>'",
        lambda m: ("写到这里就断了，后面缺少内容", "it breaks off here; something must follow"),
    ),
    (r"missing '(.+?)' at", lambda m: (f"缺少 '{m[1]}'", f"'{m[1]}' is missing")),
    (r"token recognition error at: '(.+?)'?$", _letter),
    (r"(?:mismatched|extraneous) input '(.+?)'(?: expecting|$)", _unexpected),
    (r"no viable alternative at input '(.+?)'$", lambda m: (f"这里读不懂 '{m[1]}'", f"'{m[1]}' makes no sense here")),
    (r"divide by zero|modulus by zero", lambda m: ("除以零", "division by zero")),
    (
        r"cannot convert string to (\w+)",
        lambda m: (f"这段文本不能转成{_kind(m[1], 0)}", f"this text is no {_kind(m[1], 1)}"),
    ),
    (
        r"String to Timestamp conversion failed",
        lambda m: ("这段文本不是 RFC 3339 时间", "this text is no RFC 3339 time"),
    ),
    (
        r"String to Duration conversion failed",
        lambda m: ("这段文本不是时长，例如 '90s'", "this text is no duration like '90s'"),
    ),
    (
        r"Applying SELECT to non-message type",
        lambda m: ("在没有字段的值上取字段", "a field is read of a value that has none"),
    ),
    (
        r"index=(-?\d+) size=(\d+)",
        lambda m: (f"列表没有第 [{m[1]}] 项，共 {m[2]} 项", f"of {m[2]} entries there is none at [{m[1]}]"),
    ),
    (
        r"expected integer type, got (\w+)",
        lambda m: (f"列表不能用{_kind(m[1], 0)}取项", f"a list has no entry at a {_kind(m[1], 1)}"),
    ),
    (r"integer overflow|out of range", lambda m: ("数字超出范围", "the number is out of range")),
    (
        r"invalid regular expression: (.*)$",
        lambda m: (f"正则表达式写错了：{m[1]}", f"the regular expression is wrong: {m[1]}"),
    ),
    (r"has\(\) argument must be a field selection", lambda m: ("has() 里写一个字段", "has() takes a field")),
)
