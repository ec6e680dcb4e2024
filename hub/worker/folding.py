"""Folding a chunk: every record in order, through the pure step, into outputs and states to send."""

from __future__ import annotations

from dataclasses import dataclass, field

from hub.case import Case
from hub.event_log import Outgoing
from hub.outputs import Parked
from hub.parking import Reread, fold
from hub.step import Rules
from hub.worker.chunks import Chunk
from hub.worker.state import PartitionState


@dataclass
class Folding:
    """What a chunk came to. Send `outputs`, then `states`, and only then call the chunk done."""

    outputs: list[Outgoing] = field(default_factory=list)
    states: list[Outgoing] = field(default_factory=list)
    parked: dict[tuple[str, str | None], Parked] = field(default_factory=dict)
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


def fold_chunk(chunk: Chunk, state: PartitionState, rules: Rules, reread: Reread) -> Folding:
    """Fold a chunk over a partition's state. A record that a case's state reflects already changes nothing.

    `state` is changed as it goes: if what is returned cannot be sent, the partition's state is to be read anew.
    """
    folding = Folding()
    outputs = folding.outputs
    touched: dict[bytes, tuple[Case, int]] = {}
    for record in chunk.records:
        key = record.key or b""
        if key in touched:
            case: Case | None = touched[key][0]
        elif record.offset <= state.reflects(key):
            folding.repeated += 1
            continue
        else:
            case = state.get(key)
        folded = fold(case, record, rules, reread)
        folding.applied += 1
        folding.failed += folded.failed
        for output in folded.outputs:
            if folded.failed and isinstance(output, Parked):
                folding.parked.setdefault((output.code, output.rule), output)
            sent = output.record()
            if sent is not None:
                outputs.append(sent)
        if folded.case is not None:
            touched[key] = (folded.case, record.offset)
    folding.states = [state.keep(key, case, offset) for key, (case, offset) in touched.items()]
    return folding
