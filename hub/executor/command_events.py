"""The events that tell of commands, in the words of the catalogue. Pure: ids derive, times are handed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hub.engine.step import cause_of
from hub.errors import HubError
from schemas.envelope import Command, Event, derived_id, format_time, promised
from schemas.fields import Data
from schemas.registry import COMMANDS, CommandSpec, event_spec

SOURCE = "/hub/executor"
_ID = re.compile(r"\S.{0,300}")


def plain(text: str) -> str:
    """Text of an outside system as every database and JSON take it: no NUL, no half characters, not without end."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")[:2000]


def said(error: HubError) -> str:
    """What an error says, for people; its code alone when a connector from elsewhere has one that we have no words for."""
    try:
        return plain(error.message())
    except KeyError:
        return plain(error.code)


def spec_of(command: Command) -> CommandSpec:
    """The catalogue's entry; a type that it lacks ends as `hub.command.done`."""
    return COMMANDS.get(command.type) or CommandSpec(command.type, Data)


def made_by(command: Command, effect_id: str | None) -> str | None:
    """The object that a command made over there; None when it makes none, or its id cannot be part of a reference."""
    kind = spec_of(command).creates
    return f"{kind}/{command.instance}/{effect_id}" if kind and _ID.fullmatch(effect_id or "") else None


def requested(command: Command, now: datetime) -> Event:
    """A task is asked for: boards show it before its system has made it."""
    said = command.arguments
    project = promised(said.get("project")) or said.get("project") or None
    data = {**said, "title": str(said.get("title", "")), "project": project, "why": cause_of(command).model_dump()}
    return _event(
        command,
        "work.task.requested",
        f"request/{command.instance}/{command.id}",
        derived_id("requested", command.id),
        command.time,
        now,
        data,
    )


def result(command: Command, asked: Mapping[str, Any], effect_id: str | None, attempts: int, now: datetime) -> Event:
    """A command is done. `asked` are its arguments with promises resolved and persons as persons."""
    made = made_by(command, effect_id)
    type_ = spec_of(command).result if made else "hub.command.done"
    data = {**asked, "why": cause_of(command).model_dump()} if made else _ended(command, asked, attempts, id=effect_id)
    return _event(command, type_, made or _subject(command), result_id(command.id), format_time(now), now, data)


def result_id(command: str) -> str:
    """The id of the event that says that a command is done."""
    return derived_id("result", command, "done")


def parked(command: Command, error: HubError, attempts: int, now: datetime) -> Event:
    """A command cannot go on until a person has dealt with it."""
    data = _ended(command, command.arguments, attempts, code=error.code, reason=said(error))
    id_ = derived_id(
        "parked", command.id, format_time(now)
    )  # one command may park again: each time is a fact of its own
    return _event(command, "hub.command.parked", _subject(command), id_, format_time(now), now, data)


def _ended(command: Command, asked: Mapping[str, Any], attempts: int, **more: Any) -> dict[str, Any]:
    why = cause_of(command).model_dump()
    return {"type": command.type, "arguments": dict(asked), "attempts": attempts, "why": why, **more}


def _subject(command: Command) -> str:
    return f"command/{command.instance}/{command.id}"


def fired(timer: str, case: str, name: str, due_at: str, now: datetime) -> Event:
    """A timer came due."""
    return _of_hub(
        "hub.timer.fired", f"timer/hub/{timer}", case, derived_id("fired", timer), due_at, now, {"name": name}, timer
    )


def paused(instance: str, reason: str, now: datetime) -> Event:
    """An instance refuses us and is left alone for now."""
    return _of_instance(instance, "hub.connector.paused", now, {"reason": reason})


def resumed(instance: str, now: datetime) -> Event:
    """It lets us in again."""
    return _of_instance(instance, "hub.connector.resumed", now, {"reason": None})


def _of_instance(instance: str, type_: str, now: datetime, data: Mapping[str, Any]) -> Event:
    subject = f"connector/hub/{instance}"
    return _of_hub(type_, subject, subject, derived_id(type_, instance, format_time(now)), format_time(now), now, data)


def _event(
    command: Command, type_: str, subject: str, id_: str, time: str, now: datetime, data: Mapping[str, Any]
) -> Event:
    return _of_hub(type_, subject, command.case, id_, time, now, data, command.id)


def _of_hub(
    type_: str,
    subject: str,
    case: str,
    id_: str,
    time: str,
    now: datetime,
    data: Mapping[str, Any],
    cause: str | None = None,
) -> Event:
    return Event(
        id=id_,
        source=SOURCE,
        type=type_,
        subject=subject,
        time=time,
        recordedtime=format_time(now),
        dataschema=event_spec(type_).dataschema,
        partitionkey=case,
        correlationid=case,
        causationid=cause,
        data=dict(data),
    )
