"""The hub as a target of its own commands: a task, project or message consists of its events.

There is no table to write. The executor records the effect as an event, and boards project the log; so nothing can be
executed twice, and no outcome is uncertain.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from connectors.builtin.mapping import effect
from hub.errors import RejectedError
from hub.kit.connector import Connector, Effect, Idempotency, Instance, RateLimits
from hub.kit.settings import Settings, expected, read, short
from schemas.envelope import Command
from schemas.registry import COMMANDS

COMMAND_TYPES = frozenset({"project.create", "task.create", "task.update", "message.send"})


class BuiltinSettings(Settings):
    """An instance in hub.yaml: `tasks: {use: builtin}`. It has no settings."""


class BuiltinTarget:
    """Carries out commands: the effect is the id of the object that the command creates."""

    @property
    def command_types(self) -> frozenset[str]:
        """All types that the hub has boards for."""
        return COMMAND_TYPES

    @property
    def limits(self) -> RateLimits:
        """High limits: no system is called."""
        return RateLimits(per_second=10_000.0, at_once=4, settle=0.0)

    def idempotency(self, type_: str) -> Idempotency:
        """Class A: the command's id is the object's id, so the same command is the same object."""
        return Idempotency.KEY

    def send(self, command: Command) -> Effect:
        """As `CommandSink.send`; raises RejectedError for arguments that no task, project or message can have."""
        if command.type not in COMMAND_TYPES:
            raise RejectedError("HUB-E4250", type=command.type, known=", ".join(sorted(COMMAND_TYPES)))
        try:
            COMMANDS[command.type].model.model_validate(command.arguments)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = f"{command.type}.{'.'.join(map(str, first['loc']))}"
            seen: dict[str, Any] = {"instance": command.instance, "field": field, "expected": expected(first)}
            raise RejectedError("HUB-E4251", **seen, got=short(first["input"])) from error
        return effect(command)

    def find(self, command: Command) -> Effect | None:
        """As `CommandSink.find`; the answer is always what `send` returns."""
        return self.send(command)


def connect(instance: Instance) -> Connector:
    """Make the connector of one instance. Raises FatalError for any setting: there are none."""
    read(BuiltinSettings, instance)
    return Connector(instance, sends=BuiltinTarget(), knows_persons=True, check=lambda: instance.name)
