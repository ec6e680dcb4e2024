"""Expressions that try to get out, to take for ever or to take all memory: S14. A fault is such an expression.

Each batch runs in a process of its own, which may have 2 GiB and tells the longest evaluation and what it grew by.
"""

from __future__ import annotations

import random
import subprocess
import sys

import orjson

from tests.faults.row import Row
from tests.faults.stage import Stage

BATCH = 250
SECONDS, MEGABYTES = 0.25, 50
"""Of processor time that one may take, and by which the process may grow: 0.05 s and 6 MB were measured."""
OUT = (
    "body.__class__", "body.__class__.__mro__[1].__subclasses__()", "body.s.__len__()", "type(body).__name__",
    "__import__('os')", "body.s.format(body)", "'{0.__class__}'.format(body)", "getattr(body, 's')", "globals()", "eval('1')",
    "exec('1')", "open('/etc/passwd')", "lambda x: x", "body.l.__iter__", "body.s.encode().decode()", "role('x').__class__",
    "decimal('1').__class__", "body['__class__']",
)  # fmt: skip
LEAVES = (
    "1",
    "-1",
    "9223372036854775807",
    "1.5",
    "true",
    "null",
    "body.s",
    "body.l",
    "body.m",
    "body.l[0]",
    "'a'",
    "b'\\xff'",
    "[]",
)
LOOPS = ("all", "exists", "exists_one", "map", "filter")
PATTERNS = ("(a*)*b", "(a+)+$", "((a{100}){100}){100}", "a{1000}b", "(.*)*(.*)*x", "[a-z]{1,1000}{1,1000}", "(?:a|a)*b")
RUN = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3,) * 2)
from hub.errors import HubError, Place
from hub.expressions.engine import Engine
engine, slowest = Engine(), (0.0, "")
values = {"body": {"l": list(range(1000)), "s": "a" * 100_000, "m": {str(n): n for n in range(100)}}}
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out, worked = [], 0
for text in json.load(sys.stdin):
    scope = engine.scope(values)
    began = time.process_time()
    try:
        found = engine.expression(text, ["body"], Place("x.yaml", 1, 1)).value(scope)
        worked += 1
        if "<class" in repr(found) or "<built-in" in repr(found) or "<function" in repr(found):
            out.append(text)
    except HubError:
        pass
    slowest = max(slowest, (time.process_time() - began, text))
print(json.dumps([slowest, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024, out, worked]))
"""


def expression(chosen: random.Random, depth: int = 0) -> str:
    """One out of the grammar, with a taste for what is expensive or forbidden."""
    if depth > 5 or chosen.random() < 0.15:
        return chosen.choice(OUT if chosen.random() < 0.2 else LEAVES)
    one, other = expression(chosen, depth + 1), expression(chosen, depth + 1)
    match chosen.randrange(8):
        case 0:
            return f"({one} {chosen.choice(('+', '==', '<', '&&', '||', 'in', '*', '-', '/', '%'))} {other})"
        case 1 | 2:
            name = chosen.choice("abc")
            return f"body.l.{chosen.choice(LOOPS)}({name}, {one})"
        case 3:
            return f"[{', '.join([one] * chosen.randint(1, 20))}].map(x, x + x)"
        case 4:
            return f"body.s.matches('{chosen.choice(PATTERNS)}')"
        case 5:
            return f"({one} ? {other} : {one})"
        case 6:
            return "(" * chosen.randint(1, 300) + one + ")" * chosen.randint(1, 300)
        case _:
            return (
                f"{chosen.choice(('size', 'string', 'int', 'double', 'decimal', 'bytes', 'timestamp', 'role'))}({one})"
            )


def fuzz(stage: Stage, chosen: random.Random) -> None:
    """A batch of them, some of a million characters."""
    texts = [expression(chosen) for _ in range(BATCH - 2)] + ["a" * 1_000_000, "+".join(["body.s"] * 100_000)]
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=orjson.dumps(texts), capture_output=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"it ended: {done.stderr[-300:]!r}"
    (seconds, text), megabytes, out, worked = orjson.loads(done.stdout)
    assert not out, f"got out: {out[0]}"
    assert seconds < SECONDS, f"{seconds:.2f} s for {text[:300]}"
    assert megabytes < MEGABYTES, f"{megabytes} MB"
    assert worked, "none of them meant anything: nothing was tried"
    stage.faults += BATCH


ROWS = [Row("S14", "expressions that try to get out, or never to end", 500, 10_000, fuzz, any_store=True)]
