"""Records that no program of the hub wrote: sound ones spoiled in every way that a random number picks. By a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

ODD: Sequence[Any] = (
    *(
        None,
        True,
        0,
        -1,
        7,
        2**63,
        2**64,
        -(2**70),
        10**400,
        1.5,
        1e308,
        float("inf"),
        float("nan"),
        "",
        " ",
        "\x00",
        "x" * 5000,
    ),
    *("\ud800", "²", "9" * 19, "9" * 40, "-1", "1e5", "2026-11-20T02:00:00.000000Z", "0001-01-01T00:00:00.000000Z"),
    *(
        "9999-12-31T23:59:59.999999Z",
        "not a time",
        "opportunity/crm/O-1",
        "task/pm/1",
        "person/li.lei",
        "\u202e",
        [],
        {},
    ),
    *([[]], [{}], {"": ""}, {"$promise": 7}, {"at": 7}, {"arguments": None}, [1] * 50, {"a": {"b": {"c": []}}}),
)
SEQUENCES = ("0", "1", "2", "7", "9" * 18, "9" * 19, "00000000000000000001", "-1", "x", 3, None)


def spoiled(chosen: random.Random, sound: Sequence[dict[str, Any]], outbox: str = "o1") -> bytes | None:
    """One record's bytes."""
    value = copy.deepcopy(chosen.choice(sound))
    for _ in range(chosen.choice((0, 1, 1, 2, 4))):
        _spoil(chosen, value)
    if chosen.random() < 0.6:
        value |= {
            "sequence": chosen.choice(SEQUENCES),
            "outbox": chosen.choice((outbox, outbox, "another", "", 7, None)),
        }
    raw = json.dumps(value).encode()
    return chosen.choice(_WAYS)(chosen, raw) if chosen.random() < 0.25 else raw


def _spoil(chosen: random.Random, value: dict[str, Any]) -> None:
    """Change, drop or add one thing somewhere in it."""
    at: Any = value
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = chosen.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and chosen.random() < 0.7:
            at = at[key]
            continue
        break
    match chosen.randrange(4):
        case 0:
            del at[key]
        case 1 if isinstance(at, dict):
            at[str(chosen.choice(ODD))[:40]] = copy.deepcopy(chosen.choice(ODD))
        case _:
            at[key] = copy.deepcopy(chosen.choice(ODD))


_WAYS = (
    lambda chosen, raw: None,
    lambda chosen, raw: b"",
    lambda chosen, raw: chosen.randbytes(chosen.randint(1, 300)),
    lambda chosen, raw: raw[: chosen.randrange(1, len(raw) + 1)],
    lambda chosen, raw: raw + b"}" * chosen.randrange(3),
    lambda chosen, raw: raw.replace(b'":', b'":' + b"[" * chosen.choice((1, 70, 20_000)), 1),
    lambda chosen, raw: raw[:-1] + b',"id":"twice","data":{}}',
    lambda chosen, raw: raw[:-1] + b',"sequence":"' + b"9" * chosen.choice((1, 18, 19, 25)) + b'","outbox":"o1"}',
    lambda chosen, raw: raw.replace(b"crm", b"\xff\xfe"),
    lambda chosen, raw: raw.replace(b"crm", b"\\ud800"),
    lambda chosen, raw: chosen.choice((b"[]", b"null", b"7", b'"x"', b"{}", b"NaN", b"-", b"[" * 100_000)),
)


def keys(chosen: random.Random, case: str) -> bytes | None:
    """What it lies under: mostly its case."""
    return chosen.choice(
        (case.encode(),) * 6 + (None, b"", b"no reference", b"\xff", b"opportunity/crm/another", b"place")
    )


def records(
    seed: int, count: int, sound: Sequence[dict[str, Any]], case: str, outbox: str = "o1"
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """So many keys and values."""
    chosen = random.Random(seed)
    for _ in range(count):
        yield keys(chosen, case), spoiled(chosen, sound, outbox)
