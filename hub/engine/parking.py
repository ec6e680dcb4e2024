"""Folds log records that may be bad: a bad record is parked (dead letter), its case waits, and every other case goes on.

A parked record stays in the log; its case stores the log offsets in order, and `reread` reads the bytes again when a person
requests a retry. So nothing is copied, nothing is lost, and a replay of the log parks and resumes at the same offsets.
A correction is an event of the case: the next retry reads it instead of the parked record, under the same id.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import orjson
from pydantic import ValidationError

from hub.engine.case import Case, HeldEvent, PartRecord, part_to_json, replace
from hub.engine.step import (
    EmitEvent,
    Output,
    ParkedEvent,
    SettledEvent,
    Step,
    StepRules,
    View,
    decide,
    derived_event,
    opened_by,
)
from hub.errors import FatalError, HubError, RejectedError, RetryableError
from hub.log.event_log import Record, StoredRecord
from schemas.decoding import AnyEvent, RecordedEvent, read
from schemas.envelope import MAX_BYTES, Event, derived_id, is_reference
from schemas.registry import event_spec

CASE_WAITS = "HUB-E6010"
DELIVERY_IGNORED = "hub.delivery.ignored"
MAX_RETRIED_EVENTS = 200
"""Parked events that one retry processes; for the rest the processor emits a further retry event."""
MAX_RETRIED_BYTES = 128 * 1024
"""Total size of the entities that one retry changes: they are stored in one state record."""
MAX_ENTITY_BYTES = 1 << 20
"""Size of an entity's state. An event that would make it larger is parked."""
UNMEASURED_BYTES = 0
"""Records of at most this size are folded without measuring the entity; 0: every entity is measured."""
PARKED_RETRIED, PARKED_DISCARDED, PARKED_EDITED = "hub.parked.retried", "hub.parked.discarded", "hub.parked.edited"

Reread = Callable[[Sequence[int]], Sequence[bytes]]
"""Reads the bytes at these offsets of the case's partition, in the same order."""


class Folded(msgspec.Struct, frozen=True, gc=False):
    """The case after a record (None: the record has no case, or opens none), and the outputs to send before the case is stored."""

    case: Case | None
    outputs: tuple[Output, ...] = ()
    failed: bool = False
    weight: int = 0
    """Upper bound, approximate, of the bytes added to the case."""


def fold(
    case: Case | None, record: StoredRecord, rules: StepRules, reread: Reread, small: int = UNMEASURED_BYTES
) -> Folded:
    """Fold one record of `hub.events` into its case. Never raises for the content of the record.

    The entity is measured when the record may add more than `small` bytes. Raises what `reread` raises, and FatalError and
    RetryableError from the rules or the shell.
    """
    try:
        event = read_event(record)
    except RejectedError as error:
        return _unreadable(case, record, error)
    if case is not None and case.has_seen(event):
        return Folded(case)
    before, weight = case or opened_by(event), weight_of(event, record.value or b"")
    if event.type in (PARKED_RETRIED, PARKED_DISCARDED):
        return _settled(before.remember(event), record.offset, event, rules, reread)
    if event.type == PARKED_EDITED:
        return Folded(_edited(before.remember(event), record.offset, event))
    if before.held:
        return _park(before, record, event, RejectedError(CASE_WAITS, behind=before.held[0].event), weight)
    result = _try_step(before, event, rules, measured=weight > small)
    if isinstance(result, HubError):
        return _park(before, record, event, result, weight)
    # An ignored delivery stays in the log only, unless a rule has requested work because of it.
    is_log_only = case is None and event.type == DELIVERY_IGNORED and not result.case.requested
    weight += COMMAND_STATE_BYTES * len(result.outputs)
    return Folded(None if is_log_only else result.case, result.outputs, weight=weight)


COMMAND_STATE_BYTES = 150
"""Maximum size of a command in the case's state: its id, its type and instance, and its project."""


def weight_of(event: AnyEvent, raw: bytes) -> int:
    """Upper bound of the bytes that an event adds to its case: its data, and the source and time of each field."""
    return len(raw) + len(event.data) * (len(event.source) + 48)


def park_instead(case: Case | None, record: StoredRecord, error: HubError) -> Folded:
    """Park a record that was folded, but whose outputs cannot be sent or whose state cannot be stored."""
    event = read_event(record)
    return _park(case or opened_by(event), record, event, error, len(record.value or b""))


def read_event(record: StoredRecord) -> RecordedEvent:
    """The event of a record, its data upcast to the current version; raises RejectedError with the reason."""
    if not record.value:
        raise RejectedError("HUB-E6001", reason="empty")
    if len(record.value) > 2 * MAX_BYTES:
        raise RejectedError("HUB-E6003", size=len(record.value))
    try:
        event = read(record.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RejectedError("HUB-E6001", reason=": ".join(filter(None, (where, first["msg"])))) from error
    if record.key is None or record.key != event.case.encode():
        raise RejectedError("HUB-E6002", key=(record.key or b"").decode(errors="replace"), case=event.case)
    return lifted(event)


def lifted(event: RecordedEvent) -> RecordedEvent:
    """The event with its data upcast to the current version of its type."""
    spec = event_spec(event.type)
    if event.dataschema == spec.dataschema:
        return event
    version = event.dataschema.rpartition(":")[2]
    if not version.isdecimal() or int(version) == spec.version:
        return event
    try:
        return replace(event, data=spec.lift(dict(event.data), int(version)), dataschema=spec.dataschema)
    except Exception as error:
        raise RejectedError("HUB-E6004", type=event.type, version=version, reason=_failure_text(error)) from error


def _try_step(
    case: Case, event: AnyEvent, rules: StepRules, *, remembered: bool = False, measured: bool = True
) -> Step | HubError:
    """The step, or the error. An unexpected exception parks the event too: it must not halt the partition."""
    try:
        result = decide(case, event, rules, remembered=remembered)
        if measured:
            _check_size(result.case, event.subject)
    except (FatalError, RetryableError):
        raise
    except HubError as error:
        return error
    except Exception as error:
        return RejectedError("HUB-E6005", reason=_failure_text(error))
    return result


def _size(case: Case, ref: str) -> int:
    return len(part_to_json(PartRecord(0, entity=case.entities[ref])))


def _check_size(case: Case, ref: str) -> None:
    size = _size(case, ref)
    if size > MAX_ENTITY_BYTES:
        raise RejectedError("HUB-E6025", subject=ref, size=size, most=MAX_ENTITY_BYTES)


def _failure_text(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"[:500]


def _park(case: Case, record: StoredRecord, event: AnyEvent, error: HubError, weight: int) -> Folded:
    held = HeldEvent(record.offset, event.id, error.code)
    parked = _parked(f"event/{event.id}", event, error, record.value or b"", record.offset)
    waiting = case.remember(event).with_held(held)
    return Folded(waiting, (parked,), failed=error.code != CASE_WAITS, weight=weight)


def _parked(ref: str, event: AnyEvent, error: HubError, body: bytes, mark: int | None) -> ParkedEvent:
    place = str(error.place) if error.place else None
    seen, rule = _shortened(error.seen), error.seen.get("rule")
    return ParkedEvent(ref, event.case, event.subject, error.code, seen, place, rule, body[: 2 * MAX_BYTES], mark)


def _unreadable(case: Case | None, record: StoredRecord, error: RejectedError) -> Folded:
    """Park a record that is no event. The case in its key waits; without a case in the key, no case waits.

    The parked entry holds only the beginning of an oversized record, which the broker would refuse; the log has the whole record.
    """
    ref = f"record/{record.topic}/{record.partition}/{record.offset}"
    key, body = _key(record), (record.value or b"")[: 2 * MAX_BYTES]
    names_case = key is not None and is_reference(key)
    case_id = key if names_case or key is None else key[:MAX_KEY_CHARS]
    parked = ParkedEvent(ref, case_id, None, error.code, _shortened(error.seen), None, None, body, record.offset)
    if key is None or not names_case:
        return Folded(None, (parked,), failed=True)
    known = case or Case(id=key, opened_by=key, spans=())
    held = HeldEvent(record.offset, ref, error.code)
    return Folded(known.with_held(held), (parked,), failed=True, weight=len(key))


MAX_KEY_CHARS = 400


def _key(record: StoredRecord) -> str | None:
    """The key as text. For a key that is no UTF-8 its repr, which is never a case id, so that it cannot match another case."""
    if record.key is None:
        return None
    try:
        key = record.key.decode()
    except UnicodeDecodeError:
        return repr(record.key[:MAX_KEY_CHARS])
    return key.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _shortened(seen: Mapping[str, Any]) -> dict[str, Any]:
    """The error's facts, each cut to `MAX_FACT_CHARS`."""
    return {
        name: str(fact)[:MAX_FACT_CHARS] if len(str(fact)) > MAX_FACT_CHARS else fact for name, fact in seen.items()
    }


MAX_FACT_CHARS = 2000


def _edited(case: Case, offset: int, event: AnyEvent) -> Case:
    """Store the log offset of a correction; the next retry reads the event from there.

    Such a case is never forgotten: only its state records which of several corrections was read.
    """
    if not isinstance(event.data.get("event"), dict):
        return case
    return replace(case.with_edit(str(event.data.get("parked") or ""), offset), spans=None)


class Retry(NamedTuple):
    """The result of retrying one parked record."""

    entry: HeldEvent
    done: Step | ParkedEvent

    @property
    def ref(self) -> str:
        """The entry's reference in the ledger's list of parked work."""
        return _ref(self.entry.event)


def try_again(case: Case, rules: StepRules, reread: Reread, mark: int | None = None) -> Iterator[Retry]:
    """Retry a case's parked events in order, until one fails again. Pure: a retry and its preview both call this.

    `mark` is the log offset of the retry event. No more than `MAX_RETRIED_EVENTS` are tried, and none after entities of
    `MAX_RETRIED_BYTES` in total have changed.
    """
    changed_bytes, entries = 0, list(islice(case.waiting(), MAX_RETRIED_EVENTS))
    for entry, raw in zip(entries, _read_bodies(entries, reread), strict=True):
        retry = _retry(case, entry, raw, rules, mark)
        if isinstance(retry.done, ParkedEvent):
            yield retry
            return
        case = retry.done.case.without_first()
        yield Retry(entry, Step(case, retry.done.outputs))
        changed_bytes += max(
            _size(case, output.entity.ref) for output in retry.done.outputs if isinstance(output, View)
        )
        if changed_bytes > MAX_RETRIED_BYTES:
            return


REREAD_BATCH = 50
"""Parked records that are read from the log at once."""


def _read_bodies(entries: Sequence[HeldEvent], reread: Reread) -> Iterator[bytes]:
    for at in range(0, len(entries), REREAD_BATCH):
        batch = entries[at : at + REREAD_BATCH]
        yield from reread([entry.offset if entry.edit is None else entry.edit for entry in batch])


def _settled(case: Case, offset: int, event: AnyEvent, rules: StepRules, reread: Reread) -> Folded:
    """Retry parked events in order until one fails; a discarded one is removed first.

    An event that fails again is no new failure: it already held its case, and a person requested the retry. An event that the case
    does not hold was reported as parked by a worker that died before storing its state, and succeeded when it was folded again.
    """
    parked = str(event.data.get("parked") or "")
    outputs = list[Output](() if _holds(case, parked) else [SettledEvent(_ref(parked), case.id, "done")])
    if event.type == PARKED_DISCARDED:
        discarded = [entry for entry in case.waiting() if entry.event == parked]
        outputs += [SettledEvent(_ref(entry.event), case.id, "discarded") for entry in discarded]
        case = case.without_held(parked) if discarded else case
    for retry in try_again(case, rules, reread, offset):
        if isinstance(retry.done, ParkedEvent):
            return Folded(_with_code(case, retry.done.code), (*outputs, retry.done), weight=MAX_ENTITY_BYTES)
        case = retry.done.case
        outputs += [*retry.done.outputs, SettledEvent(retry.ref, case.id, "done")]
    if case.held:
        outputs.append(EmitEvent(_next_retry(case, event)))
    # The weight of the retried events is not counted: the maximum, so that the case is stored at once.
    return Folded(case, tuple(outputs), weight=MAX_ENTITY_BYTES)


def _next_retry(case: Case, event: AnyEvent) -> Event:
    """The retry event for the remaining parked events: one event must not block a partition for as long as all of them take."""
    data = {"parked": case.held[0].event}
    return derived_event(event, PARKED_RETRIED, case.id, derived_id("go on", event.id), data)


def _retry(case: Case, entry: HeldEvent, raw: bytes, rules: StepRules, mark: int | None) -> Retry:
    ref = _ref(entry.event)
    body = raw if entry.edit is None else corrected(raw)
    try:
        event = read_event(Record("", 0, entry.offset, case.id.encode(), body))
    except RejectedError as error:
        cut = body[: 2 * MAX_BYTES]
        return Retry(entry, ParkedEvent(ref, case.id, None, error.code, _shortened(error.seen), None, None, cut, mark))
    if not entry.event.startswith("record/"):
        # A correction keeps the id of the event it corrects: command ids derive from it.
        event = replace(event, id=entry.event)
    result = _try_step(case, event, rules, remembered=True)
    return Retry(entry, _parked(ref, event, result, body, mark) if isinstance(result, HubError) else result)


def corrected(raw: bytes) -> bytes:
    """The corrected event in a `hub.parked.edited` record; folding that record has checked that it holds one."""
    return orjson.dumps(orjson.loads(raw)["data"]["event"])


def _ref(event: str) -> str:
    return event if event.startswith("record/") else f"event/{event}"


def _holds(case: Case, event: str) -> bool:
    return not event or any(entry.event == event for entry in case.waiting())


def _with_code(case: Case, code: str) -> Case:
    return replace(case, held=(replace(case.held[0], code=code), *case.held[1:]))
