"""Events about the hub itself: rules, connectors, commands, parked work."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.domains.work import Cause
from schemas.fields import Data


class TimerFired(Data):
    """A timer that a rule set is due."""

    name: str = Field(description="what the timer is called")


RULES_CASE = "rules/hub"
"""The case of all events about the rules in force: they share one partition and one order."""


class RuleChange(Data):
    """A rule file was added, changed, removed or suspended. Subject: `rule/hub/<name>`.

    Version 2 carries the text. A text that is too long for one event comes in several, under the same digest.
    """

    digest: str | None = Field(default=None, description="of the new text; None when it is gone")
    previous: str | None = Field(default=None, description="digest of the old text; None when it is new")
    by: str | None = Field(default=None, description="who changed it, where that is known")
    file: str | None = Field(default=None, description="the file's name below the home")
    text: str | None = Field(default=None, description="the file's text, before ${env:…} is filled in")
    part: int = Field(default=1, description="which part of the text this is, from 1 on")
    parts: int = Field(default=1, description="how many parts the text has")


class WorldChange(Data):
    """Reference data that rules read has changed: people, or the calendar. Subject: `world/hub/<what>`."""

    what: str = Field(description="people or calendar")
    value: str = Field(description="sha256 of the whole text")
    text: str = Field(description="canonical JSON: of people ids, names, departments and roles, and no accounts")
    part: int = Field(default=1, description="which part of the text this is, from 1 on")
    parts: int = Field(default=1, description="how many parts the text has")


class RulesAnnounced(Data):
    """A home has announced its rules, people and calendar: from now on every worker evaluates with them. Subject: `rules/hub`.

    It comes after the events with the texts, so every reader of this event has already read them.
    """

    ruleset: str = Field(description="hash of `rules`")
    world: str = Field(description="hash of `people` and `calendar`")
    rules: dict[str, str] = Field(default_factory=dict, description="every rule's name and digest")
    people: str = Field(description="sha256 of the text of the people")
    calendar: str = Field(description="sha256 of the text of the calendar")
    before: dict[str, int] = Field(
        default_factory=dict,
        description="in a log's first announcement: partition → the offset before which unknown rules may have been in force",
    )


class RulesInForce(Data):
    """From this offset of a partition on, this rule set is in force. Subject: `rules/hub/<partition>`."""

    partition: int = Field(description="which")
    from_offset: int = Field(description="the first record that it evaluates")
    ruleset: str = Field(description="hash of the rules, as announced")
    world: str = Field(description="hash of people and calendar, as announced")
    previous: str | None = Field(default=None, description="the event before this one, of the same partition")
    doubt_to: int | None = Field(
        default=None,
        description="records before this offset may have been evaluated with the previous set: a worker ended",
    )
    after: dict[str, int] = Field(
        default_factory=dict,
        description="each outbox's last sequence before `from_offset`: finds the same position in a rebuilt log",
    )


class Shadowed(Data):
    """A command that a rule in shadow mode would have issued. Subject: `rule/hub/<name>`; the case is the evaluated event's."""

    type: str = Field(description="the type of the command")
    instance: str = Field(description="the instance that would have executed it")
    arguments: dict[str, Any] = Field(default_factory=dict, description="the arguments of the command")
    why: Cause


class ConnectorState(Data):
    """An instance was paused, resumed, or has been silent for longer than it should. Subject: `connector/hub/<name>`."""

    reason: str | None = Field(default=None, description="why, for people")


class CommandResult(Data):
    """How a command ended. Subject: `command/<instance>/<command id>`."""

    type: str = Field(description="the command's type")
    id: str | None = Field(default=None, description="the effect's id over there")
    arguments: dict[str, Any] = Field(default_factory=dict, description="its arguments, promises resolved")
    code: str | None = Field(default=None, description="HUB-E…, when it was parked or failed")
    reason: str | None = Field(default=None, description="why it failed, for people")
    attempts: int = Field(default=0, description="how often it was tried")
    why: Cause | None = None


class IgnoredDelivery(Data):
    """An accepted webhook delivery that matched no mapping: recorded, so that none is lost. Subject: `delivery/<instance>/<id>`."""

    body: str = Field(description="as it was received")


class PartitionNews(Data):
    """The processor halted before lost records of a partition, or that loss was repaired. Subject: `partition/hub/<n>`."""

    kind: str = Field(description="gap, gone or replaced")
    partition: int = Field(description="which")
    offset: int = Field(description="of the first record behind the loss")
    outbox: str = Field(default="", description="whose sequence has the gap")
    last: int = Field(description="the last sequence, or the next offset, before the loss")
    found: int = Field(description="what came instead of the one after it")
    code: str | None = Field(default=None, description="HUB-E…, when it halted")
    published: int = Field(default=0, description="how many events were published again")
    accepted: int = Field(default=0, description="how many are given up as lost")
    reason: str | None = Field(default=None, description="why, as given by the person who accepted it")
    by: str | None = Field(default=None, description="who did it")


class ParkedNote(Data):
    """Parked work was retried or discarded. Subject: the parked work."""

    parked: str = Field(description="id of the parked event or command")
    reason: str | None = Field(default=None, description="why, as given by the person who did it")
    by: str | None = Field(default=None, description="who did it")


class ParkedEdit(ParkedNote):
    """A correction of parked work; the original stays unchanged, the next retry reads the correction. Subject: the parked work.

    Exactly one of the three is set: `event` for an event (whole, under its own id), `arguments` for a command, `body` for a
    delivery (the beginning of a long one: then `sha256` identifies the whole body, which is in the ledger).
    """

    event: dict[str, Any] | None = Field(default=None, description="the corrected event, as CloudEvents JSON")
    arguments: dict[str, Any] | None = Field(default=None, description="the corrected arguments of a command")
    body: str | None = Field(default=None, description="the corrected bytes of a delivery, as text")
    sha256: str | None = Field(default=None, description="of the corrected bytes, when `body` is only their beginning")
