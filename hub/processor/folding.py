"""Folding a chunk: every record in order, through the pure step, into outputs and states to send."""

from __future__ import annotations

from dataclasses import dataclass, field

from hub.engine.case import Case, altered
from hub.engine.parking import Folded, Reread, fold, park_instead
from hub.engine.step import ParkedEvent, StepRules
from hub.errors import RejectedError
from hub.log.event_log import LARGEST, Outgoing, Stored
from hub.processor.case_expiry import later, with_offsets
from hub.processor.source import Chunk
from hub.processor.state import CaseParts, PartitionState


@dataclass
class Folding:
    """What a chunk came to. Send `outputs`, then `states`, and only then call the chunk done."""

    outputs: list[Outgoing] = field(default_factory=list)
    states: list[Outgoing] = field(default_factory=list)
    parked: dict[tuple[str, str | None], ParkedEvent] = field(default_factory=dict)
    """What failed, the first of each code and rule: for the log, where a thousand would say no more."""
    applied: int = 0
    repeated: int = 0
    failed: int = 0

    def and_then(self, later: Folding) -> Folding:
        """This, and what came of the records behind it."""
        return Folding(
            self.outputs + later.outputs,
            self.states + later.states,
            {**later.parked, **self.parked},
            self.applied + later.applied,
            self.repeated + later.repeated,
            self.failed + later.failed,
        )


ROOM = 128 * 1024
"""Bytes that a case may gather in a chunk before it is kept, so that none of its records is too large for the log."""


class Hand:
    """A case that a chunk is at work on: as it is, as it was read, and up to which offset."""

    __slots__ = ("before", "case", "clock", "kept", "offset", "offsets", "parts", "room")

    def __init__(self, case: Case | None, size: int, offset: int) -> None:
        self.case = self.before = case
        self.parts = case.apart if case is not None and isinstance(case.apart, CaseParts) else None
        self.kept = self.offset = offset
        self.offsets = list[int]()
        self.clock = ""
        self.room = ROOM - size
        """Bytes that may still come for it to be surely not too much."""

    def take(self, case: Case, offset: int, weight: int, clock: str) -> None:
        """The case after a record, and the partition's clock then."""
        self.case, self.offset, self.clock = case, offset, clock
        self.offsets.append(offset)
        self.room -= weight
        if self.parts is not None:
            self.room -= self.parts.taken()


def fold_chunk(chunk: Chunk, state: PartitionState, rules: StepRules, reread: Reread) -> Folding:
    """Fold a chunk over a partition's state. A record that a case's state reflects already changes nothing.

    `state` is changed as it goes: if what is returned cannot be sent, the partition's state is to be read anew.
    """
    folding = Folding()
    hands: dict[bytes, Hand] = {}
    for record in chunk.records:
        key = record.key or b""
        hand = hands.get(key)
        if hand is None:
            offset = state.reflects(key)
            if record.offset <= offset:
                folding.repeated += 1
                state.clock = later(state.clock, record.value)
                continue
            if key in state.forgotten:
                raise RuntimeError(f"a forgotten case has to be brought back first: {key!r}")
            hand = hands[key] = Hand(*state.read(key), offset)
        folded = followed(hand.case, record, rules, reread, folding.outputs, hand.room)
        folding.applied += 1
        state.clock = later(state.clock, record.value)
        if folded.failed:
            _note(folding, folded)
        if folded.case is not None:
            hand.take(folded.case, record.offset, folded.weight, state.clock)
            if hand.room < 0:
                folding.states += _kept(state, key, hand)
                hands[key] = Hand(*state.read(key), record.offset)
    for key, hand in hands.items():
        folding.states += _kept(state, key, hand)
    return folding


def followed(
    case: Case | None, record: Stored, rules: StepRules, reread: Reread, outputs: list[Outgoing], room: int = 0
) -> Folded:
    """Fold one record, and add to `outputs` what is to be sent. What cannot be written, or the log would not take, parks it."""
    folded = fold(case, record, rules, reread, room)
    try:
        _send(outputs, folded)
    except RejectedError as error:
        folded = park_instead(case, record, error)
        _send(outputs, folded)
    return folded


def _kept(state: PartitionState, key: bytes, hand: Hand) -> list[Outgoing]:
    if hand.case is None or hand.offset == hand.kept:
        return []
    case = altered(hand.case, spans=with_offsets(hand.case.spans, hand.offsets))
    return state.keep(key, case, hand.offset, hand.before, hand.clock)


def _note(folding: Folding, folded: Folded) -> None:
    folding.failed += 1
    for output in folded.outputs:
        if isinstance(output, ParkedEvent):
            folding.parked.setdefault((output.code, output.rule), output)


def _send(outputs: list[Outgoing], folded: Folded) -> None:
    """Add what is to be sent; raises RejectedError, and adds nothing, for what cannot be written or the log would not take."""
    count = len(outputs)
    try:
        for output in folded.outputs:
            record = output.record()
            if record is None:
                continue
            outputs.append(record)
            if len(record.value or b"") > LARGEST_SENT:
                raise RejectedError("HUB-E6027", size=len(record.value or b""), most=LARGEST_SENT, topic=record.topic)
    except Exception as error:
        del outputs[count:]
        if isinstance(error, RejectedError):
            raise
        raise RejectedError("HUB-E6005", reason=f"{type(error).__name__}: {error}"[:500]) from error


LARGEST_SENT = LARGEST - 64 * 1024
"""Bytes of a value that the log still takes, with its key and what the log adds."""
