"""How much work an expression can make, estimated from its text before it runs, as nothing can stop it while it runs.

CEL bounds the rounds of its loops and its nesting, but not what a round makes: `[s].map(a, a + a).map(a, a + a)…` doubles with
every step, `map` and `filter` copy their list in every round, `matches` compiles its pattern each time, and each
mention of a list or map copies all that is in it, in a loop once a round.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from hub.expressions.reading import Token, tokens

LIMIT = 40_000_000
"""Nanoseconds that one evaluation may take by this estimate."""
MAX_GROWTH = 1024
_ROUNDS = 10_000
"""CEL's own limit for all loops of one evaluation."""
_ROUND, _COPIED_ENTRY, _CHARACTER, _PATTERN_STEP = 500, 15, 3, 1_000
"""Measured costs in nanoseconds: of a round, of an entry that `map` copies, of a character that is joined or compared, of one
step of a pattern."""
MENTIONED_ENTRY = 400
"""Nanoseconds for an entry of a list or map that is mentioned: 230 measured on an idle core, 450 on a busy one."""
_FEW = 12
"""Names and words, `.x` too: with so few the most that a push can hold is copied within the limit."""
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNKNOWN_PATTERN = 8_000_000
_MAKING, _ASKING = frozenset({"map", "filter"}), frozenset({"all", "exists", "exists_one"})
_COPYING = frozenset({"+", "==", "=", "<", ">", "contains", "in", "startsWith", "endsWith"})


@dataclass(frozen=True)
class Effort:
    """What the text says of the work: `depth` of nested loops, `making` loops that build a list, the factor `growth` by which
    values can grow, `copies` of texts in a round, nanoseconds for `patterns`, `listed` entries of the longest list written out,
    where the rounds of each loop stand as `spans` of the text, and whether there are `few` names in it."""

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
        """It needs no look at the data: no loop, few copies."""
        return self.loops == 0 and self.copies <= 8 and self.patterns <= LIMIT // 4 and self.few

    @property
    def unbounded(self) -> bool:
        """It is too much for any data."""
        return self.growth > MAX_GROWTH or self.estimate(1, 1) > LIMIT

    def estimate(self, entries: int, longest: int, mentions: Iterable[tuple[int, int]] = ()) -> int:
        """Nanoseconds that it may take, for lists and maps of so many entries and texts of so many characters.

        `mentions` are where something given is named, and how many entries are in that.
        """
        wide = max(entries, self.listed, 1) * self.growth
        rounds = min(self.loops * wide**self.depth, _ROUNDS) if self.loops else 1
        outer = min(wide ** (self.depth - 1), -(-_ROUNDS // wide)) if self.making else 0
        text = self.copies * self.growth * max(longest, 16) * _CHARACTER
        mentioned: int = sum(size * min(wide ** self._depth_at(at), _ROUNDS) for at, size in mentions if size)
        return (
            rounds * (_ROUND + text + self.patterns)
            + outer * self.making * wide * wide * _COPIED_ENTRY
            + mentioned * MENTIONED_ENTRY
        )

    def _depth_at(self, at: int) -> int:
        return sum(1 for start, end in self.spans if start < at < end)


def effort(text: str) -> Effort:
    """Estimate an expression."""
    found = tokens(text)
    loops = [
        (at, _closing(found, at + 1))
        for at, token in enumerate(found)
        if token.text in _MAKING | _ASKING and at > 0 and found[at - 1].text == "." and _text(found, at + 1) == "("
    ]
    growth = 1
    for start, end in loops:
        uses = sum(1 for token in found[start + 3 : end] if token.text == found[start + 2].text)
        growth *= max(1, uses)
    return Effort(
        loops=len(loops),
        depth=max((sum(1 for start, end in loops if start <= at < end) for at, _ in loops), default=0),
        making=sum(1 for start, _ in loops if found[start].text in _MAKING),
        growth=growth,
        copies=1 + sum(1 for token in found if token.text in _COPYING),
        patterns=sum(_pattern(_text(found, at + 2)) for at, token in enumerate(found) if token.text == "matches"),
        listed=1 + sum(1 for token in found if token.text == ","),
        spans=tuple((found[start + 1].at, found[end].at if end < len(found) else len(text)) for start, end in loops),
        few=sum(1 for token in found if _NAMES.fullmatch(token.text)) <= _FEW,
    )


def _pattern(literal: str) -> int:
    """What it costs to compile a pattern: repetitions are written out by the compiler, nested ones multiplied."""
    if not literal or literal[-1] not in "\"'":
        return _UNKNOWN_PATTERN
    steps = len(literal)
    for times in re.findall(r"\{([0-9,]{1,9})\}", literal):
        steps *= max([1, *(int(part) for part in times.split(",") if part)])
    return steps * _PATTERN_STEP


def _text(found: list[Token], at: int) -> str:
    return found[at].text if at < len(found) else ""


def _closing(found: list[Token], at: int) -> int:
    depth = 0
    for end in range(at, len(found)):
        depth += {"(": 1, ")": -1}.get(found[end].text, 0)
        if depth == 0:
            return end
    return len(found)
