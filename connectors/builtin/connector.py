"""The hub as a target of its own commands: a task, project or message *is* the events that tell of it.

There is no table to write. The executor records the effect as an event, and boards show what the log says; so nothing can
be done twice, and nothing can be doubtful.
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

TAKES = frozenset({"project.create", "task.create", "task.update", "message.send"})


class BuiltinSettings(Settings):
    """An instance in hub.yaml: `tasks: {use: builtin}`. There is nothing to set."""


class BuiltinTarget:
    """Carries out commands by naming what they make."""

    @property
    def takes(self) -> frozenset[str]:
        """All that the hub has boards for."""
        return TAKES

    @property
    def limits(self) -> RateLimits:
        """Nothing is called, so nothing need be spared."""
        return RateLimits(per_second=10_000.0, at_once=4, settle=0.0)

    def once(self, type_: str) -> Idempotency:
        """The key is the name: the same command is the same object."""
        return Idempotency.KEY

    def send(self, command: Command) -> Effect:
        """As `Sends.send`; raises RejectedError for arguments that no task, project or message can have."""
        if command.type not in TAKES:
            raise RejectedError("HUB-E4250", type=command.type, known=", ".join(sorted(TAKES)))
        try:
            COMMANDS[command.type].model.model_validate(command.arguments)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = f"{command.type}.{'.'.join(map(str, first['loc']))}"
            seen: dict[str, Any] = {"instance": command.instance, "field": field, "expected": expected(first)}
            raise RejectedError("HUB-E4251", **seen, got=short(first["input"])) from error
        return effect(command)

    def find(self, command: Command) -> Effect | None:
        """As `Sends.find`; asked for or not, the answer is what `send` gives."""
        return self.send(command)


def connect(instance: Instance) -> Connector:
    """Make an instance. Raises FatalError for any setting: there are none."""
    read(BuiltinSettings, instance)
    return Connector(instance, sends=BuiltinTarget(), knows_persons=True, check=lambda: instance.name)
