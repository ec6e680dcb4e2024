"""Previews a retry: the same pure step, with the rules of the current files, on the current case; nothing is changed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from hub.cli.terminal import speech, text
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub
    from hub.engine.case import Case
    from hub.engine.parking import Retry
    from hub.engine.step import Output, ParkedEvent, StepRules
    from hub.ledger.database import AnyRow
    from hub.log.event_log import EventLog


def preview(hub: RunningHub, entries: Sequence[AnyRow]) -> list[dict[str, Any]]:
    """The outcome of each entry, and of everything retried with it; a case of events once, in its order.

    Raises FatalError when the broker or the rules cannot be read.
    """
    cases = dict.fromkeys(str(entry.case_id) for entry in entries if entry.kind == "event")
    outcomes = [each for case in cases for each in of_case(hub.log(), case, hub.home.rules)] if cases else []
    outcomes += [_of_command(entry) for entry in entries if entry.kind == "command"]
    deliveries = [entry.id for entry in entries if entry.kind == "delivery"]
    return [*outcomes, *(_of_deliveries(hub, deliveries) if deliveries else ())]


def of_case(log: EventLog, name: str, rules: StepRules) -> Iterator[dict[str, Any]]:
    """The outcomes of retrying a case, entry by entry, up to the first that fails again; the rest waits behind it."""
    from hub.engine.parking import try_again
    from hub.log.event_log import records_at
    from hub.log.partitioner import partition_of
    from schemas.topics import EVENTS, PARTITIONS

    partition = partition_of(name.encode(), PARTITIONS)
    case = case_now(log, name, partition)
    if case is None:
        return
    reached = 0
    for again in try_again(case, rules, functools.partial(records_at, log, EVENTS.name, partition)):
        reached += 1
        yield _of_event(again, name)
    for held in islice(case.waiting(), reached, None):
        ref = held.event if held.event.startswith("record/") else f"event/{held.event}"
        yield {"ref": ref, "case": name, "outcome": "waits"}


def case_now(log: EventLog, name: str, partition: int) -> Case | None:
    """The case in the processor's state; None when it has none of that name."""
    from hub.log.event_log import read_to_end
    from hub.processor.state import PART_SEPARATOR, PartitionState
    from schemas.topics import STATE

    key, state = name.encode(), PartitionState(partition)
    for batch in read_to_end(log, STATE.name, {partition: log.starts(STATE.name)[partition]}):
        state.take(r for r in batch if r.key is not None and r.key.partition(PART_SEPARATOR)[0] == key)
    return state.get(key)


def _of_event(again: Retry, case: str) -> dict[str, Any]:
    from hub.engine.step import ParkedEvent

    if isinstance(again.done, ParkedEvent):
        return {"ref": again.ref, "case": case, "outcome": "fails", **failure(again.done)}
    return {"ref": again.ref, "case": case, "outcome": "done", **outputs_as_value(again.done.outputs)}


def failure(parked: ParkedEvent) -> dict[str, Any]:
    """Why it would be parked again."""
    error = HubError(parked.code, **parked.seen)
    texts = {"message": error.message(speech.language), "fix": error.fix(speech.language)}
    return {"code": parked.code, "place": parked.place, "rule": parked.rule, **texts}


def outputs_as_value(outputs: Iterable[Output]) -> dict[str, Any]:
    """The commands and the events of the case that would follow."""
    from hub.engine.step import EmitCommand, EmitEvent

    made = list(outputs)
    commands = [_command(output.command) for output in made if isinstance(output, EmitCommand)]
    events = [_event(output.event) for output in made if isinstance(output, EmitEvent)]
    return {"commands": commands, "events": events}


def _command(command: Any) -> dict[str, Any]:
    return {name: getattr(command, name) for name in ("id", "type", "instance", "rule", "arguments")}


def _event(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in ("id", "type", "subject", "data")}


def _of_command(entry: AnyRow) -> dict[str, Any]:
    """The executor would send it, or first look up whether it was done; the system's answer cannot be predicted."""
    from hub.cli.parked_bytes import current_bytes, parsed
    from schemas.envelope import Command

    if parsed(current_bytes(entry)) is None:
        return {"ref": entry.ref, "outcome": "never"}
    command = Command.from_json(current_bytes(entry))
    outcome = "looks" if entry.seen.get("doubtful") else "sends"
    return {"ref": entry.ref, "case": entry.case_id, "outcome": outcome, "commands": [_command(command)], "events": []}


def _of_deliveries(hub: RunningHub, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The events that the current mapping would make of them, from the program that loads the connectors."""
    from hub.cli.other_programs import ask, error_of

    for answer in ask("hub.ops.previewing", [*map(str, numbers), "--home", str(hub.home.path)]):
        if "error" in answer and "ref" not in answer:
            raise error_of(answer["error"])
        if "error" in answer:
            error = error_of(answer["error"])
            texts = {"message": error.message(speech.language), "fix": error.fix(speech.language)}
            place = str(error.place) if error.place else None
            yield {"ref": answer["ref"], "outcome": "fails", "code": error.code, "place": place, "rule": None, **texts}
        else:
            yield {"ref": answer["ref"], "outcome": "told", "commands": [], "events": answer["events"]}


OUTCOMES = {
    "done": ("✔", "会成功", "would go through"),
    "told": ("✔", "会成为事件", "would become events"),
    "sends": ("✔", "会再次发送", "would be sent again"),
    "looks": ("✔", "会先查询是否已完成，再决定是否发送", "would first be looked up, and sent only if it was not done"),
    "waits": ("…", "仍排在后面", "would still wait behind it"),
    "fails": ("✘", "仍会失败", "would fail again"),
    "never": ("✘", "不能重试", "cannot be tried again"),
}


def lines(outcomes: Sequence[Mapping[str, Any]], secrets: set[str]) -> Iterator[str]:
    """A preview for people."""
    from hub.cli.parked_bytes import masked
    from hub.cli.rules import arguments

    for each in outcomes:
        mark, *words = OUTCOMES[each["outcome"]]
        yield f"  {mark} {each['ref']}  {text(*words)}"
        if "code" in each:
            yield f"      {each['code']} {each['place'] or ''}  {masked(each['message'], secrets)}"
            yield f"      → {each['fix']}"
        for command in each.get("commands", ()):
            yield f"      → {command['type']} @{command['instance']}  {arguments(masked(command['arguments'], secrets))}"
        for event in each.get("events", ()):
            yield f"      + {event['type']}  {event['subject']}"
    yield text("（预演：什么也没有做）", "(a preview: nothing was done)")
