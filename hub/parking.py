"""How a record of the log is folded when it may be bad: it is parked, its case waits, and every other case goes on.

What is parked stays in the log; the case remembers where, in order, and `reread` brings the bytes back when a person has
asked to try again. So nothing is copied, nothing is lost, and a replay of the log parks and resumes at the same places.
A correction is an event of the case: the next try reads it in the place of what is parked, under the same id.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import orjson
from pydantic import ValidationError

from hub.case import Case, Held, altered
from hub.errors import FatalError, HubError, RejectedError, RetryableError
from hub.event_log import Record, Stored
from hub.outputs import Output, Parked, Settled
from hub.step import Rules, Step, decide, opened_by
from schemas.catalog import event_spec
from schemas.event import MAX_BYTES, is_reference
from schemas.recorded import AnyEvent, Recorded, read

WAITS = "HUB-E6010"
RETRIED, DISCARDED, EDITED = "hub.parked.retried", "hub.parked.discarded", "hub.parked.edited"

Reread = Callable[[Sequence[int]], Sequence[bytes]]
"""The bytes at these offsets of the case's partition, in the same order."""


class Folded(msgspec.Struct, frozen=True, gc=False):
    """The case after a record (None: the record names no case), and what to send before that case is kept."""

    case: Case | None
    outputs: tuple[Output, ...] = ()
    failed: bool = False


def fold(case: Case | None, record: Stored, rules: Rules, reread: Reread) -> Folded:
    """Fold one record of `hub.events` into its case. Never raises for what the record holds.

    Raises what `reread` raises, and FatalError and RetryableError of the shell's own making.
    """
    try:
        event = read_event(record)
    except RejectedError as error:
        return _unreadable(case, record, error)
    if case is not None and case.has_seen(event):
        return Folded(case)
    before = case or opened_by(event)
    if event.type in (RETRIED, DISCARDED):
        return _settle(before.remember(event), record.offset, event, rules, reread)
    if event.type == EDITED:
        return Folded(_edited(before.remember(event), record.offset, event))
    if before.held:
        return _park(before, record, event, RejectedError(WAITS, behind=before.held[0].event))
    done = _tried(before, event, rules)
    return _park(before, record, event, done) if isinstance(done, HubError) else Folded(done.case, done.outputs)


def read_event(record: Stored) -> Recorded:
    """The event of a record, its data lifted to the current version; raises RejectedError saying what is wrong."""
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


def lifted(event: Recorded) -> Recorded:
    """The event with its data as the current version of its type has it."""
    spec = event_spec(event.type)
    if event.dataschema == spec.dataschema:
        return event
    version = event.dataschema.rpartition(":")[2]
    if not version.isdecimal() or int(version) == spec.version:
        return event
    try:
        return altered(event, data=spec.lift(dict(event.data), int(version)), dataschema=spec.dataschema)
    except Exception as error:
        raise RejectedError("HUB-E6004", type=event.type, version=version, reason=_said(error)) from error


def _tried(case: Case, event: AnyEvent, rules: Rules, *, remembered: bool = False) -> Step | HubError:
    """The step, or why it failed. What no one foresaw parks the event too: it must not take the partition with it."""
    try:
        return decide(case, event, rules, remembered=remembered)
    except (FatalError, RetryableError):
        raise
    except HubError as error:
        return error
    except Exception as error:
        return RejectedError("HUB-E6005", reason=_said(error))


def _said(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"[:500]


def _park(case: Case, record: Stored, event: AnyEvent, error: HubError) -> Folded:
    held = Held(record.offset, event.id, error.code)
    parked = _parked(f"event/{event.id}", event, error, record.value or b"", record.offset)
    return Folded(altered(case.remember(event), held=(*case.held, held)), (parked,), failed=error.code != WAITS)


def _parked(ref: str, event: AnyEvent, error: HubError, body: bytes, mark: int | None) -> Parked:
    place = str(error.place) if error.place else None
    return Parked(
        ref, event.case, event.subject, error.code, dict(error.seen), place, error.seen.get("rule"), body, mark
    )


def _unreadable(case: Case | None, record: Stored, error: RejectedError) -> Folded:
    """Park a record that is no event. Its key still names the case, and that case waits; where it names none, nothing does.

    Of one that is too large only the beginning travels on, or the log would refuse that too; it has the record whole.
    """
    where = f"record/{record.topic}/{record.partition}/{record.offset}"
    key = record.key.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}") if record.key else None
    body = (record.value or b"")[: 2 * MAX_BYTES]
    parked = Parked(where, key, None, error.code, dict(error.seen), None, None, body, record.offset)
    if key is None or not is_reference(key):
        return Folded(None, (parked,), failed=True)
    known = case or Case(id=key, opened_by=key)
    return Folded(altered(known, held=(*known.held, Held(record.offset, where, error.code))), (parked,), failed=True)


def _edited(case: Case, offset: int, event: AnyEvent) -> Case:
    """Remember where the correction of what is parked stands; the next try reads it there."""
    if not isinstance(event.data.get("event"), dict):
        return case
    wanted = event.data.get("parked")
    held = tuple(altered(entry, edit=offset) if entry.event == wanted else entry for entry in case.held)
    return altered(case, held=held)


class Again(NamedTuple):
    """What another try of a parked record came to."""

    entry: Held
    done: Step | Parked

    @property
    def ref(self) -> str:
        """The name of the entry among all that is parked."""
        return _ref(self.entry.event)


def try_again(case: Case, rules: Rules, reread: Reread, mark: int | None = None) -> Iterator[Again]:
    """Try what waits in a case, in its order, until one fails again. Pure: this is what a retry does, and what it would do.

    `mark` is where the retry stands in the log.
    """
    places = [entry.offset if entry.edit is None else entry.edit for entry in case.held]
    for entry, raw in zip(case.held, reread(places) if places else (), strict=True):
        again = _again(case, entry, raw, rules, mark)
        yield again
        if isinstance(again.done, Parked):
            return
        case = again.done.case


def _settle(case: Case, offset: int, event: AnyEvent, rules: Rules, reread: Reread) -> Folded:
    """Take parked work up again in its order, as far as it goes; a discarded one is left out first.

    One that fails again is no new failure: it held its case before, and a person asked. One that the case does not hold was
    told of as parked by a worker that died before its state was kept, and went well when it was folded again.
    """
    wanted = str(event.data.get("parked") or "")
    outputs = list[Output](() if _holds(case, wanted) else [Settled(_ref(wanted), case.id, "done")])
    if event.type == DISCARDED:
        outputs += [Settled(_ref(entry.event), case.id, "discarded") for entry in case.held if entry.event == wanted]
        case = altered(case, held=tuple(entry for entry in case.held if entry.event != wanted))
    held = case.held
    for again in try_again(case, rules, reread, offset):
        if isinstance(again.done, Parked):
            return Folded(altered(case, held=_blamed(held, again.done.code)), (*outputs, again.done))
        case, held = again.done.case, held[1:]
        outputs += [*again.done.outputs, Settled(again.ref, case.id, "done")]
    return Folded(altered(case, held=()), tuple(outputs))


def _again(case: Case, entry: Held, raw: bytes, rules: Rules, mark: int | None) -> Again:
    ref = _ref(entry.event)
    body = raw if entry.edit is None else corrected(raw)
    try:
        event = read_event(Record("", 0, entry.offset, case.id.encode(), body))
    except RejectedError as error:
        cut = body[: 2 * MAX_BYTES]
        return Again(entry, Parked(ref, case.id, None, error.code, dict(error.seen), None, None, cut, mark))
    if not entry.event.startswith("record/"):
        # Whatever was corrected: its commands are those of this event.
        event = altered(event, id=entry.event)
    done = _tried(case, event, rules, remembered=True)
    return Again(entry, _parked(ref, event, done, body, mark) if isinstance(done, HubError) else done)


def corrected(raw: bytes) -> bytes:
    """What the record of a `hub.parked.edited` puts in the place of an event; it was looked at when it was folded."""
    return orjson.dumps(orjson.loads(raw)["data"]["event"])


def _ref(event: str) -> str:
    return event if event.startswith("record/") else f"event/{event}"


def _holds(case: Case, event: str) -> bool:
    return not event or any(entry.event == event for entry in case.held)


def _blamed(held: Sequence[Held], code: str) -> tuple[Held, ...]:
    return (altered(held[0], code=code), *held[1:])
