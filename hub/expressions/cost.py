"""Cost estimate of an expression, made from its text before it runs, since a running evaluation cannot be interrupted.

CEL bounds loop iterations and nesting, but not the cost of an iteration: `[s].map(a, a + a).map(a, a + a)…` doubles a text with
every step, `map` and `filter` copy their list in every iteration, `matches` compiles its pattern each time, and each reference
to a list or map copies all of its entries, inside a loop once per iteration.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from hub.expressions.reading import Token, tokens

MAX_EVALUATION_NS = 40_000_000
"""Upper limit of one evaluation's estimate."""
MAX_GROWTH = 1024
_MAX_ITERATIONS = 10_000
"""CEL's own limit for all loops of one evaluation."""
_ITERATION_NS, _COPIED_ENTRY_NS, _CHARACTER_NS, _PATTERN_STEP_NS = 500, 15, 3, 1_000
"""Measured costs: of an iteration, of an entry that `map` copies, of a character that is joined or compared, of one step of a
pattern."""
MENTIONED_ENTRY_NS = 400
"""Cost of an entry of a list or map that is referenced: 230 measured on an idle core, 450 on a busy one."""
_FEW_NAMES = 12
"""With at most this many names, fields (`.x`) included, copying the largest possible webhook body stays within the limit."""
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNKNOWN_PATTERN_NS = 8_000_000
_BUILDING, _TESTING = frozenset({"map", "filter"}), frozenset({"all", "exists", "exists_one"})
_COPYING = frozenset({"+", "==", "=", "<", ">", "contains", "in", "startsWith", "endsWith"})


@dataclass(frozen=True)
class Effort:
    """Cost factors found in the text: the number of `loops`, the `depth` of nested loops, `making` loops that build a list, the
    factor `growth` by which values can grow, `copies` of texts in an iteration, nanoseconds for `patterns`, `listed` entries of
    the longest list literal, the body of each loop as `spans` of the text, and whether it has `few` names."""

    loops: int
    depth: int
    making: int
    growth: int
    copies: int
    patterns: int
    listed: int
    spans: tuple[tuple[int, int], ...]
    few: bool

    @functools.cached_property
    def small(self) -> bool:
        """Cheap for any data, so that the data need not be measured: no loop, few copies."""
        return self.loops == 0 and self.copies <= 8 and self.patterns <= MAX_EVALUATION_NS // 4 and self.few

    @property
    def unbounded(self) -> bool:
        """Too expensive for any data."""
        return self.growth > MAX_GROWTH or self.estimate(1, 1) > MAX_EVALUATION_NS

    def estimate(self, entries: int, longest: int, mentions: Iterable[tuple[int, int]] = ()) -> int:
        """Estimated nanoseconds, for lists and maps with up to `entries` entries and texts of up to `longest` characters.

        `mentions`: position of each reference to a given value → entries in that value.
        """
        wide = max(entries, self.listed, 1) * self.growth
        iterations = min(self.loops * wide**self.depth, _MAX_ITERATIONS) if self.loops else 1
        outer = min(wide ** (self.depth - 1), -(-_MAX_ITERATIONS // wide)) if self.making else 0
        text = self.copies * self.growth * max(longest, 16) * _CHARACTER_NS
        mentioned: int = sum(size * min(wide ** self._depth_at(at), _MAX_ITERATIONS) for at, size in mentions if size)
        return (
            iterations * (_ITERATION_NS + text + self.patterns)
            + outer * self.making * wide * wide * _COPIED_ENTRY_NS
            + mentioned * MENTIONED_ENTRY_NS
        )

    def _depth_at(self, at: int) -> int:
        return sum(1 for start, end in self.spans if start < at < end)


def effort(text: str) -> Effort:
    """Estimate an expression."""
    parsed = tokens(text)
    loops = [
        (at, _closing(parsed, at + 1))
        for at, token in enumerate(parsed)
        if token.text in _BUILDING | _TESTING and at > 0 and parsed[at - 1].text == "." and _text(parsed, at + 1) == "("
    ]
    growth = 1
    for start, end in loops:
        uses = sum(1 for token in parsed[start + 3 : end] if token.text == parsed[start + 2].text)
        growth *= max(1, uses)
    return Effort(
        loops=len(loops),
        depth=max((sum(1 for start, end in loops if start <= at < end) for at, _ in loops), default=0),
        making=sum(1 for start, _ in loops if parsed[start].text in _BUILDING),
        growth=growth,
        copies=1 + sum(1 for token in parsed if token.text in _COPYING),
        patterns=sum(_pattern_ns(_text(parsed, at + 2)) for at, token in enumerate(parsed) if token.text == "matches"),
        listed=1 + sum(1 for token in parsed if token.text == ","),
        spans=tuple((parsed[start + 1].at, parsed[end].at if end < len(parsed) else len(text)) for start, end in loops),
        few=sum(1 for token in parsed if _NAMES.fullmatch(token.text)) <= _FEW_NAMES,
    )


def _pattern_ns(literal: str) -> int:
    """Cost of compiling a pattern: the compiler unrolls repetitions, nested ones multiply."""
    if not literal or literal[-1] not in "\"'":
        return _UNKNOWN_PATTERN_NS
    steps = len(literal)
    for times in re.findall(r"\{([0-9,]{1,9})\}", literal):
        steps *= max([1, *(int(part) for part in times.split(",") if part)])
    return steps * _PATTERN_STEP_NS


def _text(parsed: list[Token], at: int) -> str:
    return parsed[at].text if at < len(parsed) else ""


def _closing(parsed: list[Token], at: int) -> int:
    depth = 0
    for end in range(at, len(parsed)):
        depth += {"(": 1, ")": -1}.get(parsed[end].text, 0)
        if depth == 0:
            return end
    return len(parsed)
