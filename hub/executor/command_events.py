"""Builds the events about commands, timers and instances, by the catalogue's types. Pure: ids derive, times are passed in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hub.errors import HubError
from schemas.domains.work import cause_of
from schemas.envelope import Command, Event, derived_id, format_time, promised
from schemas.fields import Data
from schemas.registry import COMMANDS, CommandSpec, event_spec

SOURCE = "/hub/executor"
_ID = re.compile(r"\S.{0,300}")


def clean_text(text: str) -> str:
    """Text of an outside system as every database and JSON accept it: no NUL, no lone surrogates, at most 2,000 characters."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")[:2000]


def error_message(error: HubError) -> str:
    """An error's message for people; only its code when a third-party connector raised one that the hub has no text for."""
    try:
        return clean_text(error.message())
    except KeyError:
        return clean_text(error.code)


def spec_of(command: Command) -> CommandSpec:
    """The catalogue's entry; a type that it lacks ends as `hub.command.done`."""
    return COMMANDS.get(command.type) or CommandSpec(command.type, Data)


def created_ref(command: Command, effect_id: str | None) -> str | None:
    """The reference of the object that a command created; None when it creates none, or its id cannot be part of a reference."""
    kind = spec_of(command).creates
    return f"{kind}/{command.instance}/{effect_id}" if kind and _ID.fullmatch(effect_id or "") else None


def requested(command: Command, now: datetime) -> Event:
    """A task is requested: boards show it before its system has created it."""
    arguments, why = command.arguments, cause_of(command).model_dump()
    project = promised(arguments.get("project")) or arguments.get("project") or None
    data = {**arguments, "title": str(arguments.get("title", "")), "project": project, "why": why}
    return _command_event(
        command,
        "work.task.requested",
        f"request/{command.instance}/{command.id}",
        derived_id("requested", command.id),
        command.time,
        now,
        data,
    )


def result(
    command: Command, arguments: Mapping[str, Any], effect_id: str | None, attempts: int, now: datetime
) -> Event:
    """A command is done. `arguments` have promises resolved and persons not translated to accounts."""
    ref = created_ref(command, effect_id)
    type_ = spec_of(command).result if ref else "hub.command.done"
    data = (
        {**arguments, "why": cause_of(command).model_dump()}
        if ref
        else _command_data(command, arguments, attempts, id=effect_id)
    )
    return _command_event(command, type_, ref or _subject(command), result_id(command.id), format_time(now), now, data)


def result_id(command: str) -> str:
    """The id of a command's result event."""
    return derived_id("result", command, "done")


def parked(command: Command, error: HubError, attempts: int, now: datetime) -> Event:
    """A command is parked until a person has dealt with it."""
    data = _command_data(command, command.arguments, attempts, code=error.code, reason=error_message(error))
    # A command may park more than once: each time is an event of its own.
    id_ = derived_id("parked", command.id, format_time(now))
    return _command_event(command, "hub.command.parked", _subject(command), id_, format_time(now), now, data)


def _command_data(command: Command, arguments: Mapping[str, Any], attempts: int, **more: Any) -> dict[str, Any]:
    why = cause_of(command).model_dump()
    return {"type": command.type, "arguments": dict(arguments), "attempts": attempts, "why": why, **more}


def _subject(command: Command) -> str:
    return f"command/{command.instance}/{command.id}"


def fired(timer: str, case: str, name: str, due_at: str, now: datetime) -> Event:
    """A timer came due."""
    return _hub_event(
        "hub.timer.fired", f"timer/hub/{timer}", case, derived_id("fired", timer), due_at, now, {"name": name}, timer
    )


def paused(instance: str, reason: str, now: datetime) -> Event:
    """An instance refuses our credentials; its calls are paused."""
    return _instance_event(instance, "hub.connector.paused", now, {"reason": reason})


def resumed(instance: str, now: datetime) -> Event:
    """An instance accepts our credentials again."""
    return _instance_event(instance, "hub.connector.resumed", now, {"reason": None})


def _instance_event(instance: str, type_: str, now: datetime, data: Mapping[str, Any]) -> Event:
    subject = f"connector/hub/{instance}"
    return _hub_event(
        type_, subject, subject, derived_id(type_, instance, format_time(now)), format_time(now), now, data
    )


def _command_event(
    command: Command, type_: str, subject: str, id_: str, time: str, now: datetime, data: Mapping[str, Any]
) -> Event:
    return _hub_event(type_, subject, command.case, id_, time, now, data, command.id)


def _hub_event(
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
