"""Hostile expressions end soon and small; honest ones are let through."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.config.strict_json import sizes
from hub.errors import Place, RejectedError
from hub.expressions.cost import MENTIONED_ENTRY_NS, effort
from hub.expressions.engine import Engine
from hub.expressions.reading import paths

HOSTILE = [
    "[1,2,3,4,5,6,7,8,9].all(a,[1,2,3,4,5,6,7,8,9].all(b,[1,2,3,4,5,6,7,8,9].all(c,[1,2,3,4,5,6,7,8,9].all(d,true))))",
    "body.l.all(a, body.l.all(b, body.l.all(c, true)))",
    "body.l.map(a, body.l.map(b, body.s))",
    "body.l.map(a, body.s + body.s)",
    "body.l.map(a, body.l)",
    "body.l.map(a, body.l).map(b, b.map(c, c))",
    "[body.s]" + ".map(a, a + a)" * 16,
    "[body.s]" + ".map(a, [a, a])" * 16,
    "['a']" + ".map(a, a + a)" * 60,
    "(" * 200 + "1" + ")" * 200,
    "body" + ".x" * 900,
    "+".join(["body.s"] * 250),
    "body.l.exists(a, body.s.matches('a{1000}b'))",
    "body.s.matches('(((a{100}){100}){100})')",
    "body.s.matches('(a*)*b')",
    "body.l.filter(a, body.l.filter(b, a == b).size() > 0).size() > 0",
    "body.l[body.s]",
    "&&".join(["body.l.all(a,true)"] * 80),
    "body.l.all(a, body.l.size() > 0)",
    "[" + ",".join(["body.l.size()"] * 120) + "]",
    "a" * 100_000,
]
RUN = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3,) * 2)
from hub.errors import HubError, Place
from hub.expressions.engine import Engine
engine, slowest = Engine(), 0.0
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for text in json.load(sys.stdin):
    scope = engine.scope({"body": {"l": list(range(1000)), "s": "a" * 500_000}})
    began = time.process_time()
    try:
        engine.expression(text, ["body"], Place("x.yaml", 1, 1)).value(scope)
    except HubError:
        pass
    slowest = max(slowest, time.process_time() - began)
print(json.dumps([slowest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024]))
"""


def test_hostile_expressions_end_soon_and_stay_small() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(HOSTILE), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    seconds, megabytes = json.loads(done.stdout)
    # Measured 0.06 s and 40 MB; unbounded, the first of them takes 10 s and the worst takes all memory.
    assert seconds < 0.5
    assert megabytes < 200


@pytest.mark.parametrize(
    ("text", "entries", "longest"),
    [
        ("double(body.amount) >= 100000.0", 100, 100_000),
        ("body.lines.filter(l, l.qty > 0).map(l, l.name + ' x ' + string(l.qty))", 300, 200),
        ("body.text.matches('^1[3-9][0-9]{9}$') || body.text.contains('急')", 10, 5_000),
        ("body.lines.exists(l, l.tags.exists(t, t == 'urgent'))", 50, 100),
        ("body.a + ' ' + body.b + ' ' + body.c", 10, 100_000),
    ],
)
def test_honest_expressions_are_let_through(text: str, entries: int, longest: int) -> None:
    body = {"lines": [{"name": "x" * longest, "qty": 1, "tags": ["a"] * 20}] * entries, "text": "1" * longest,
            "amount": "1", "a": "a" * longest, "b": "b", "c": "c"}  # fmt: skip
    engine = Engine()
    assert engine.expression(text, ["body"], Place("x.yaml")).value(engine.scope({"body": body})) is not None


def test_growth_is_seen_in_the_text() -> None:
    assert effort("[body.s].map(a, a + a).map(a, a + a)").growth == 4
    assert effort("body.l.map(a, body.m.map(b, b))").depth == 2
    assert effort("body.l.filter(a, a).map(b, b)").depth == 1


@dataclass(frozen=True)
class Counted:
    """An expression, and how many lists it copies when each list that it names has `n` entries: a polynomial in n, by power."""

    text: str
    copies: tuple[int, ...]

    def entries(self, n: int) -> int:
        """Entries that are copied, at most: CEL ends an evaluation after 10,000 rounds."""
        copied: int = n * sum(count * min(n**power, 10_000) for power, count in enumerate(self.copies))
        return copied


def joined(parts: list[Counted]) -> Counted:
    copies = tuple(map(sum, zip_longest(*(part.copies for part in parts), fillvalue=0)))
    return Counted("(" + " && ".join(part.text for part in parts) + ")", copies)


def looped(inner: Counted, name: str) -> Counted:
    return Counted(f"body.l.all({name}, {inner.text})", (1, *inner.copies))


LEAVES = st.sampled_from([Counted("true", ()), Counted("body.l.size() > 0", (1,)), Counted("1 in body.l", (1,))])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=6).map(joined),
        st.builds(looped, inner, st.sampled_from(["a", "b", "c"])),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS, st.integers(1, 20_000))
def test_no_copy_of_what_is_given_is_left_out(expression: Counted, n: int) -> None:
    """Counted, not timed: the estimate holds at least what each copied entry costs."""
    estimated = effort(expression.text)
    mentions = [(path.at, n) for path in paths(expression.text, frozenset({"body"}))]
    assert estimated.estimate(n, 1, mentions) >= expression.entries(n) * MENTIONED_ENTRY_NS
    if estimated.small:
        assert expression.entries(n) <= n * 4


def test_a_list_that_is_named_often_is_refused_before_it_is_copied_and_looked_at_once() -> None:
    """80 mentions of 9,000 entries took 190 to 500 ms."""
    given, engine = list(range(9_000)), Engine()
    expression = engine.expression("&&".join(["body.l.all(a,true)"] * 80), ["body"], Place("x.yaml", 1, 1))
    with pytest.raises(RejectedError, match="HUB-E3123"):
        replace(expression, _compiled=None).value(engine.scope({"body": {"l": given}}))
    assert sizes([given] * 3) == (9_000, 0, [9_000] * 3)
    assert sizes([{"a": given, "b": {"c": given}}, "text", 7]) == (9_000, 4, [18_003, 0, 0])


def test_a_loop_that_reads_a_field_beside_its_list_is_let_through() -> None:
    lines, engine = [{"sku": f"S-{n}", "tags": ["a"] * 8} for n in range(900)], Engine()
    expression = engine.expression("body.lines.exists(l, l.sku == body.sku)", ["body"], Place("x.yaml"))
    assert expression.value(engine.scope({"body": {"lines": lines, "sku": "S-899"}})) is True
