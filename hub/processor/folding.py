"""Folds a chunk: passes every record in order through the pure step and collects the outputs and states to send."""

from __future__ import annotations

from dataclasses import dataclass, field

from hub.engine.case import Case, replace
from hub.engine.parking import Folded, Reread, fold, park_instead
from hub.engine.step import ParkedEvent, StepRules
from hub.errors import RejectedError
from hub.log.event_log import MAX_RECORD_BYTES, Outgoing, StoredRecord
from hub.processor.case_expiry import advance_clock, with_offsets
from hub.processor.source import Chunk
from hub.processor.state import CaseParts, PartitionState


@dataclass
class Folding:
    """The result of a chunk. Send `outputs`, then `states`, and only then mark the chunk as done."""

    outputs: list[Outgoing] = field(default_factory=list)
    states: list[Outgoing] = field(default_factory=list)
    parked: dict[tuple[str, str | None], ParkedEvent] = field(default_factory=dict)
    """The first failure of each code and rule: enough for the log."""
    applied: int = 0
    repeated: int = 0
    failed: int = 0

    def and_then(self, other: Folding) -> Folding:
        """This result followed by that of the next records."""
        return Folding(
            self.outputs + other.outputs,
            self.states + other.states,
            {**other.parked, **self.parked},
            self.applied + other.applied,
            self.repeated + other.repeated,
            self.failed + other.failed,
        )


MAX_CASE_BYTES = 128 * 1024
"""Bytes that a case may accumulate in a chunk before it is stored, so that none of its records is too large for the log."""


class OpenCase:
    """A case that a chunk is folding: its current value, the value it was read with, and the offset it reflects."""

    __slots__ = ("before", "case", "clock", "offset", "offsets", "parts", "remaining_bytes", "stored_offset")

    def __init__(self, case: Case | None, size: int, offset: int) -> None:
        self.case = self.before = case
        self.parts = case.apart if case is not None and isinstance(case.apart, CaseParts) else None
        self.stored_offset = self.offset = offset
        self.offsets = list[int]()
        self.clock = ""
        self.remaining_bytes = MAX_CASE_BYTES - size
        """Bytes that it may still accumulate before it must be stored."""

    def take(self, case: Case, offset: int, weight: int, clock: str) -> None:
        """Set the case after a record, and the partition's clock then."""
        self.case, self.offset, self.clock = case, offset, clock
        self.offsets.append(offset)
        self.remaining_bytes -= weight
        if self.parts is not None:
            self.remaining_bytes -= self.parts.taken()


def fold_chunk(chunk: Chunk, state: PartitionState, rules: StepRules, reread: Reread) -> Folding:
    """Fold a chunk over a partition's state. A record that a case's state reflects already changes nothing.

    `state` is changed in place: if the result cannot be sent, the partition's state must be read again.
    """
    folding = Folding()
    open_cases: dict[bytes, OpenCase] = {}
    for record in chunk.records:
        key = record.key or b""
        open_case = open_cases.get(key)
        if open_case is None:
            offset = state.reflects(key)
            if record.offset <= offset:
                folding.repeated += 1
                state.clock = advance_clock(state.clock, record.value)
                continue
            if key in state.forgotten:
                raise RuntimeError(f"a forgotten case must be restored first: {key!r}")
            open_case = open_cases[key] = OpenCase(*state.read(key), offset)
        folded = fold_record(open_case.case, record, rules, reread, folding.outputs, open_case.remaining_bytes)
        folding.applied += 1
        state.clock = advance_clock(state.clock, record.value)
        if folded.failed:
            _note(folding, folded)
        if folded.case is not None:
            open_case.take(folded.case, record.offset, folded.weight, state.clock)
            if open_case.remaining_bytes < 0:
                folding.states += _store(state, key, open_case)
                open_cases[key] = OpenCase(*state.read(key), record.offset)
    for key, open_case in open_cases.items():
        folding.states += _store(state, key, open_case)
    return folding


def fold_record(
    case: Case | None,
    record: StoredRecord,
    rules: StepRules,
    reread: Reread,
    outputs: list[Outgoing],
    remaining_bytes: int = 0,
) -> Folded:
    """Fold one record, and add its outputs to `outputs`. An output that cannot be encoded or is too large parks the record."""
    folded = fold(case, record, rules, reread, remaining_bytes)
    try:
        _add_outputs(outputs, folded)
    except RejectedError as error:
        folded = park_instead(case, record, error)
        _add_outputs(outputs, folded)
    return folded


def _store(state: PartitionState, key: bytes, open_case: OpenCase) -> list[Outgoing]:
    if open_case.case is None or open_case.offset == open_case.stored_offset:
        return []
    case = replace(open_case.case, spans=with_offsets(open_case.case.spans, open_case.offsets))
    return state.keep(key, case, open_case.offset, open_case.before, open_case.clock)


def _note(folding: Folding, folded: Folded) -> None:
    folding.failed += 1
    for output in folded.outputs:
        if isinstance(output, ParkedEvent):
            folding.parked.setdefault((output.code, output.rule), output)


def _add_outputs(outputs: list[Outgoing], folded: Folded) -> None:
    """Add a record's outputs; raises RejectedError, and adds none, if one cannot be encoded or is too large for the log."""
    count = len(outputs)
    try:
        for output in folded.outputs:
            record = output.record()
            if record is None:
                continue
            outputs.append(record)
            if len(record.value or b"") > MAX_SENT_BYTES:
                raise RejectedError("HUB-E6027", size=len(record.value or b""), most=MAX_SENT_BYTES, topic=record.topic)
    except Exception as error:
        del outputs[count:]
        if isinstance(error, RejectedError):
            raise
        raise RejectedError("HUB-E6005", reason=f"{type(error).__name__}: {error}"[:500]) from error


MAX_SENT_BYTES = MAX_RECORD_BYTES - 64 * 1024
"""Bytes of the largest value that the log accepts, less a margin for its key and the log's own overhead."""
