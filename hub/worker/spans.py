"""Where the records of a case lie in its partition: stretches of the log that hold them all, and perhaps some of others.

Written as one short row of numbers: the first offset, how many behind it belong to the stretch, and then for each further
stretch how far it lies behind the last one's end, and how many behind its first. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

NEAR = 16
"""Records of others that are read past rather than that a stretch begins."""
STRETCHES = 32
"""Of one case. Where more would be needed, those are joined that have the fewest records between them."""
MOST_READ = 10_000
"""Records in the stretches of one case. Where there are more, the case keeps none: to read them again would hold up the others."""

Spans = tuple[int, ...]


def with_offsets(spans: Spans | None, offsets: Sequence[int]) -> Spans | None:
    """The spans with further records, behind all that they hold; None once they hold too many."""
    if spans is None:
        return None
    found = list(spans)
    last = end_of(spans)
    for offset in offsets:
        if last is not None and offset - last <= NEAR:
            found[-1] += offset - last
        else:
            found += (offset if last is None else offset - last, 0)
            if len(found) > 2 * STRETCHES:
                _join(found)
        last = offset
    return tuple(found) if length(found) <= MOST_READ else None


def _join(found: list[int]) -> None:
    """Join the two stretches that have the fewest records between them."""
    at = min(range(2, len(found), 2), key=found.__getitem__)
    found[at - 1] += found[at] + found[at + 1]
    del found[at : at + 2]


def end_of(spans: Sequence[int]) -> int | None:
    """The last offset in them."""
    return sum(spans) if spans else None


def length(spans: Sequence[int]) -> int:
    """How many records lie in them."""
    return sum(spans[1::2]) + len(spans) // 2


def stretches(spans: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last offset of each, in order."""
    last = 0
    for at in range(0, len(spans), 2):
        first = last + spans[at]
        last = first + spans[at + 1]
        yield first, last


def together(many: Iterable[Sequence[int]], near: int) -> list[tuple[int, int]]:
    """All stretches of several spans in order, those joined that lie near to each other."""
    found = list[tuple[int, int]]()
    for first, last in sorted(stretch for spans in many for stretch in stretches(spans)):
        if found and first - found[-1][1] <= near:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def packed(spans: Sequence[int]) -> bytes:
    """In as few bytes as it takes: seven bits of each number in one."""
    found = bytearray()
    for number in spans:
        while number > 127:
            found.append(number & 127 | 128)
            number >>= 7
        found.append(number)
    return bytes(found)


def unpacked(raw: bytes) -> Spans:
    """What `packed` gave."""
    found, number, shift = list[int](), 0, 0
    for byte in raw:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number, shift = 0, 0
    return tuple(found)
