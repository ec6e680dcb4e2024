"""Hostile expressions end soon and small; honest ones are let through."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hub.errors import Place
from hub.rules.effort import effort
from hub.rules.expressions import Engine

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
    "a" * 100_000,
]
RUN = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3,) * 2)
from hub.errors import HubError, Place
from hub.rules.expressions import Engine
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
