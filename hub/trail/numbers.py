"""What the trail keeps of ids and names: numbers of 48 bits, which a database holds in six bytes.

Two names may have one number: at 10⁷ events one look-up in 30 million meets another's. So what is found by a number is checked
against the event itself.
"""

from __future__ import annotations

import functools
import re
from hashlib import blake2b

_HALF = 1 << 47
"""Numbers are signed: a half of them lies below zero."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_START = re.compile(r"[0-9a-f]{1,8}|[0-9a-f]{8}-([0-9a-f]{0,4}|[0-9a-f]{4}-[0-9a-f-]*)")


def of_id(id: str) -> int:
    """The number of an event's or a command's id. Of a UUID it is the first twelve digits, so that their order is the ids'."""
    if len(id) == 36 and _UUID.fullmatch(id) is not None:
        return int(id[:8] + id[9:13], 16) - _HALF
    return of_name(id)


def starting(start: str) -> tuple[int, int] | None:
    """The first and the last number of UUIDs that start so; None for what no UUID starts with."""
    if _START.fullmatch(start) is None:
        return None
    digits = start[:8] + start[9:13]
    return int(digits.ljust(12, "0"), 16) - _HALF, int(digits.ljust(12, "f"), 16) - _HALF


@functools.lru_cache(50_000)
def of_name(name: str) -> int:
    """The number of a reference, or of any other text. Most events are of a case that had some before."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=6).digest()) - _HALF


def of_word(ref: str) -> int:
    """The number of a bare id: what follows the last stroke, in any case of letters."""
    return of_name(bare(ref))


def bare(ref: str) -> str:
    """The last part of a reference, as it is looked up."""
    return ref.rpartition("/")[2].casefold()


@functools.lru_cache(10_000)
def of_type(name: str) -> int:
    """The number of an event's type: of 31 bits, as there are few."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=4).digest()) >> 1


def of_thing(ref: str, case: str) -> int:
    """The number of an object in a case, of 63 bits: nothing checks it."""
    return int.from_bytes(blake2b(f"{ref}\n{case}".encode(errors="surrogatepass"), digest_size=8).digest()) >> 1
