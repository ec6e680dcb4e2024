"""How a record of the log is folded when it may be bad: it is parked, its case waits, and every other case goes on.

What is parked stays in the log; the case remembers where, in order, and `reread` brings the bytes back when a person has
asked to try again. So nothing is copied, nothing is lost, and a replay of the log parks and resumes at the same places.
A correction is an event of the case: the next try reads it in the place of what is parked, under the same id.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import orjson
from pydantic import ValidationError

from hub.engine.case import Case, Held, PartRecord, altered, part_to_json
from hub.engine.step import Derive, Output, ParkedEvent, SettledEvent, Step, StepRules, View, decide, derived, opened_by
from hub.errors import FatalError, HubError, RejectedError, RetryableError
from hub.log.event_log import Record, Stored
from schemas.decoding import AnyEvent, RecordedEvent, read
from schemas.envelope import MAX_BYTES, Event, derived_id, is_reference
from schemas.registry import event_spec

WAITS = "HUB-E6010"
IGNORED = "hub.delivery.ignored"
RETRIES = 200
"""Parked events that one retry takes up; where more wait, an event of the hub's own retries the next ones."""
RETRIED_BYTES = 128 * 1024
"""Of the entities that one retry changes: they are kept in one record."""
LARGEST_ENTITY = 1 << 20
"""Bytes of an entity's state. An event that would make it larger is parked."""
SMALL = 0
"""Bytes that everything may have that a fold touches, for its size not to be measured: none, so each is measured."""
RETRIED, DISCARDED, EDITED = "hub.parked.retried", "hub.parked.discarded", "hub.parked.edited"

Reread = Callable[[Sequence[int]], Sequence[bytes]]
"""The bytes at these offsets of the case's partition, in the same order."""


class Folded(msgspec.Struct, frozen=True, gc=False):
    """The case after a record (None: the record names no case, or opens none), and what to send before that case is kept."""

    case: Case | None
    outputs: tuple[Output, ...] = ()
    failed: bool = False
    weight: int = 0
    """Bytes that it has added to the case at most, or nearly so."""


def fold(case: Case | None, record: Stored, rules: StepRules, reread: Reread, small: int = SMALL) -> Folded:
    """Fold one record of `hub.events` into its case. Never raises for what the record holds.

    An entity is measured where the record brings more than `small` bytes. Raises what `reread` raises, and FatalError and
    RetryableError of the shell's own making.
    """
    try:
        event = read_event(record)
    except RejectedError as error:
        return _unreadable(case, record, error)
    if case is not None and case.has_seen(event):
        return Folded(case)
    before, weight = case or opened_by(event), weight_of(event, record.value or b"")
    if event.type in (RETRIED, DISCARDED):
        return _settle(before.remember(event), record.offset, event, rules, reread)
    if event.type == EDITED:
        return Folded(_edited(before.remember(event), record.offset, event))
    if before.held:
        return _park(before, record, event, RejectedError(WAITS, behind=before.held[0].event), weight)
    done = _tried(before, event, rules, measured=weight > small)
    if isinstance(done, HubError):
        return _park(before, record, event, done, weight)
    # What matched nothing is kept by the log alone, unless a rule has begun something with it.
    kept = None if case is None and event.type == IGNORED and not done.case.asked else done.case
    return Folded(kept, done.outputs, weight=weight + ASKED * len(done.outputs))


ASKED = 150
"""Bytes that a case keeps of a command, at most: its id, what it was, and for which project."""


def weight_of(event: AnyEvent, raw: bytes) -> int:
    """How many bytes an event may add to its case: what it tells, and source and time of each field."""
    return len(raw) + len(event.data) * (len(event.source) + 48)


def park_instead(case: Case | None, record: Stored, error: HubError) -> Folded:
    """Park a record that was folded, and of which something cannot be sent or kept."""
    event = read_event(record)
    return _park(case or opened_by(event), record, event, error, len(record.value or b""))


def read_event(record: Stored) -> RecordedEvent:
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


def lifted(event: RecordedEvent) -> RecordedEvent:
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


def _tried(
    case: Case, event: AnyEvent, rules: StepRules, *, remembered: bool = False, measured: bool = True
) -> Step | HubError:
    """The step, or why it failed. What no one foresaw parks the event too: it must not take the partition with it."""
    try:
        done = decide(case, event, rules, remembered=remembered)
        if measured:
            _measure(done.case, event.subject)
    except (FatalError, RetryableError):
        raise
    except HubError as error:
        return error
    except Exception as error:
        return RejectedError("HUB-E6005", reason=_said(error))
    return done


def _size(case: Case, ref: str) -> int:
    return len(part_to_json(PartRecord(0, entity=case.entities[ref])))


def _measure(case: Case, ref: str) -> None:
    size = _size(case, ref)
    if size > LARGEST_ENTITY:
        raise RejectedError("HUB-E6025", subject=ref, size=size, most=LARGEST_ENTITY)


def _said(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"[:500]


def _park(case: Case, record: Stored, event: AnyEvent, error: HubError, weight: int) -> Folded:
    held = Held(record.offset, event.id, error.code)
    parked = _parked(f"event/{event.id}", event, error, record.value or b"", record.offset)
    waits = case.remember(event).with_held(held)
    return Folded(waits, (parked,), failed=error.code != WAITS, weight=weight)


def _parked(ref: str, event: AnyEvent, error: HubError, body: bytes, mark: int | None) -> ParkedEvent:
    place = str(error.place) if error.place else None
    seen, rule = _short(error.seen), error.seen.get("rule")
    return ParkedEvent(ref, event.case, event.subject, error.code, seen, place, rule, body[: 2 * MAX_BYTES], mark)


def _unreadable(case: Case | None, record: Stored, error: RejectedError) -> Folded:
    """Park a record that is no event. Its key still names the case, and that case waits; where it names none, nothing does.

    Of one that is too large only the beginning travels on, or the log would refuse that too; it has the record whole.
    """
    where = f"record/{record.topic}/{record.partition}/{record.offset}"
    key, body = _key(record), (record.value or b"")[: 2 * MAX_BYTES]
    names_case = key is not None and is_reference(key)
    where_from = key if names_case or key is None else key[:LONGEST_KEY]
    parked = ParkedEvent(where, where_from, None, error.code, _short(error.seen), None, None, body, record.offset)
    if key is None or not names_case:
        return Folded(None, (parked,), failed=True)
    known = case or Case(id=key, opened_by=key, spans=())
    held = Held(record.offset, where, error.code)
    return Folded(known.with_held(held), (parked,), failed=True, weight=len(key))


LONGEST_KEY = 400


def _key(record: Stored) -> str | None:
    """The key as a text. One that is no UTF-8 is no case's: it could be taken for another's."""
    if record.key is None:
        return None
    try:
        key = record.key.decode()
    except UnicodeDecodeError:
        return repr(record.key[:LONGEST_KEY])
    return key.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _short(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of an error, none longer than people read."""
    return {name: str(fact)[:MOST_SAID] if len(str(fact)) > MOST_SAID else fact for name, fact in seen.items()}


MOST_SAID = 2000


def _edited(case: Case, offset: int, event: AnyEvent) -> Case:
    """Remember where the correction of what is parked stands; the next try reads it there.

    Such a case is never forgotten: which of several corrections was read is told by what it remembers, and by nothing else.
    """
    if not isinstance(event.data.get("event"), dict):
        return case
    return altered(case.with_edit(str(event.data.get("parked") or ""), offset), spans=None)


class Again(NamedTuple):
    """What another try of a parked record came to."""

    entry: Held
    done: Step | ParkedEvent

    @property
    def ref(self) -> str:
        """The name of the entry among all that is parked."""
        return _ref(self.entry.event)


def try_again(case: Case, rules: StepRules, reread: Reread, mark: int | None = None) -> Iterator[Again]:
    """Try what waits in a case, in its order, until one fails again. Pure: this is what a retry does, and what it would do.

    `mark` is where the retry stands in the log. No more than `RETRIES` are tried, and none behind `RETRIED_BYTES` of entities.
    """
    spent, entries = 0, list(islice(case.waiting(), RETRIES))
    for entry, raw in zip(entries, _bodies(entries, reread), strict=True):
        again = _again(case, entry, raw, rules, mark)
        if isinstance(again.done, ParkedEvent):
            yield again
            return
        case = again.done.case.without_first()
        yield Again(entry, Step(case, again.done.outputs))
        spent += max(_size(case, output.entity.ref) for output in again.done.outputs if isinstance(output, View))
        if spent > RETRIED_BYTES:
            return


AT_ONCE = 50
"""Parked records that are read again together."""


def _bodies(entries: Sequence[Held], reread: Reread) -> Iterator[bytes]:
    for at in range(0, len(entries), AT_ONCE):
        some = entries[at : at + AT_ONCE]
        yield from reread([entry.offset if entry.edit is None else entry.edit for entry in some])


def _settle(case: Case, offset: int, event: AnyEvent, rules: StepRules, reread: Reread) -> Folded:
    """Take parked work up again in its order, as far as it goes; a discarded one is left out first.

    One that fails again is no new failure: it held its case before, and a person asked. One that the case does not hold was
    told of as parked by a worker that died before its state was kept, and went well when it was folded again.
    """
    wanted = str(event.data.get("parked") or "")
    outputs = list[Output](() if _holds(case, wanted) else [SettledEvent(_ref(wanted), case.id, "done")])
    if event.type == DISCARDED:
        gone = [entry for entry in case.waiting() if entry.event == wanted]
        outputs += [SettledEvent(_ref(entry.event), case.id, "discarded") for entry in gone]
        case = case.without_held(wanted) if gone else case
    for again in try_again(case, rules, reread, offset):
        if isinstance(again.done, ParkedEvent):
            return Folded(_blamed(case, again.done.code), (*outputs, again.done), weight=LARGEST_ENTITY)
        case = again.done.case
        outputs += [*again.done.outputs, SettledEvent(again.ref, case.id, "done")]
    if case.held:
        outputs.append(Derive(_go_on(case, event)))
    # Nobody has counted what was taken up: as much as may be, so that the case is kept at once.
    return Folded(case, tuple(outputs), weight=LARGEST_ENTITY)


def _go_on(case: Case, event: AnyEvent) -> Event:
    """The retry of what waits behind what was taken up: one event must not hold a partition for as long as all of it takes."""
    data = {"parked": case.held[0].event}
    return derived(event, RETRIED, case.id, derived_id("go on", event.id), data)


def _again(case: Case, entry: Held, raw: bytes, rules: StepRules, mark: int | None) -> Again:
    ref = _ref(entry.event)
    body = raw if entry.edit is None else corrected(raw)
    try:
        event = read_event(Record("", 0, entry.offset, case.id.encode(), body))
    except RejectedError as error:
        cut = body[: 2 * MAX_BYTES]
        return Again(entry, ParkedEvent(ref, case.id, None, error.code, _short(error.seen), None, None, cut, mark))
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
    return not event or any(entry.event == event for entry in case.waiting())


def _blamed(case: Case, code: str) -> Case:
    return altered(case, held=(altered(case.held[0], code=code), *case.held[1:]))
