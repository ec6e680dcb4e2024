"""The registry of event and command types: model, version, upcasters, and the stage that an event gives its entity."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.domains import crm, desk, erp, hub, im, work
from schemas.fields import Data, Deleted

Model = type[Data]
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Converts data of one version to the next. Total: it may add and rename fields, but must accept all data of the old version."""


@dataclass(frozen=True)
class EventSpec:
    """One type of event.

    `stage` is the state that the entity enters: a further event of the same stage, without another stage in between, is no new
    transition. A type without a stage is an occurrence: each event counts. `opens` marks the entity's first stage: it never
    replaces a later one, whatever the order of arrival. `upcasters[n]` converts version n to n + 1.
    """

    type: str
    model: Model
    stage: str | None = None
    opens: bool = False
    version: int = 1
    upcasters: Mapping[int, Upcaster] = field(default_factory=dict)
    log_only: frozenset[str] = frozenset({"why"})
    """Fields of the data that do not belong to the entity's state and remain in the log only."""

    @functools.cached_property
    def dataschema(self) -> str:
        """The URN of the current version."""
        return f"urn:hub:{self.type}:{self.version}"

    def lift(self, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Upcast data of an older version to the current one; data of an unknown newer version is returned unchanged."""
        for step in range(version, self.version):
            data = self.upcasters[step](data)
        return data


@dataclass(frozen=True)
class CommandSpec:
    """One type of command: its arguments, the event that reports its effect, and the kind of object that it `creates`."""

    type: str
    model: Model
    result: str = "hub.command.done"
    creates: str | None = None


_OPENING = {"created", "filed", "requested", "issued"}


def _events(prefix: str, model: Model, *names: str, **stages: str) -> list[EventSpec]:
    plain = [EventSpec(f"{prefix}.{name}", model) for name in names]
    staged = [EventSpec(f"{prefix}.{name}", model, stage, opens=name in _OPENING) for name, stage in stages.items()]
    return plain + staged


_TEXTS = frozenset({"why", "text"})

_DELETED = (
    *("crm.opportunity", "crm.account", "crm.complaint"),
    *("erp.order", "erp.stock", "erp.invoice", "erp.expense"),
    *("im.message", "im.card", "work.project", "work.task"),
    *("desk.demand", "desk.change", "desk.approval"),
)
"""Event prefixes of the kinds of object that can be deleted in their system."""

_ALL = [
    *_events("crm.opportunity", crm.Opportunity, "changed", created="open", won="won", lost="lost", reopened="open"),
    *_events("crm.account", crm.Account, "changed"),
    *_events("crm.complaint", crm.Complaint, filed="filed"),
    *_events("erp.order", erp.Order, confirmed="confirmed", shipped="shipped"),
    *_events("erp.stock", erp.Stock, "changed", "ran_low"),
    *_events("erp.invoice", erp.Invoice, issued="issued", paid="paid"),
    *_events("erp.expense", erp.Expense, "booked"),
    *_events("im.message", im.Message, "posted"),
    *_events("im.card", im.CardAnswer, "answered"),
    *_events("work.project", work.Project, created="open", completed="completed"),
    *_events("work.task", work.TaskRequest, requested="requested"),
    *_events(
        "work.task", work.Task, "assigned", "changed", "overdue", created="open", accepted="accepted", started="started"
    ),
    *_events("work.task", work.Task, completed="completed", reopened="open", cancelled="cancelled"),
    *_events("desk.demand", desk.Demand, "changed", filed="filed", planned="planned", done="done", declined="declined"),
    *_events("desk.change", desk.Change, "changed", filed="filed", done="done", declined="declined"),
    *_events("desk.approval", desk.Approval, requested="requested", granted="granted", rejected="rejected"),
    *_events("desk.feedback", desk.Feedback, "given"),
    *(EventSpec(f"{prefix}.deleted", Deleted, "deleted") for prefix in _DELETED),
    *_events("hub.timer", hub.TimerFired, "fired"),
    EventSpec("hub.rule.changed", hub.RuleChange, version=2, upcasters={1: dict}, log_only=_TEXTS),
    *_events("hub.rule", hub.RuleChange, "suspended"),
    EventSpec("hub.world.changed", hub.WorldChange, log_only=_TEXTS),
    *_events("hub.rules", hub.RulesAnnounced, "announced"),
    *_events("hub.rules", hub.RulesInForce, "in_force"),
    *_events("hub.rule", hub.Shadowed, "shadowed"),
    *_events("hub.connector", hub.ConnectorState, "paused", "resumed", "silent"),
    *_events("hub.command", hub.CommandResult, "done", "failed", "parked"),
    *_events("hub.delivery", hub.IgnoredDelivery, "ignored"),
    *_events("hub.partition", hub.PartitionNews, "halted", "repaired"),
    *_events("hub.parked", hub.ParkedNote, "retried", "discarded"),
    *_events("hub.parked", hub.ParkedEdit, "edited"),
]

EVENTS: Mapping[str, EventSpec] = {spec.type: spec for spec in _ALL}

ENDS: Mapping[str, frozenset[str]] = {
    "opportunity": frozenset({"won", "lost"}),
    "order": frozenset({"shipped"}),
    "invoice": frozenset({"paid"}),
    "project": frozenset({"completed"}),
    "task": frozenset({"completed", "cancelled"}),
    "demand": frozenset({"done", "declined"}),
    "change": frozenset({"done", "declined"}),
    "approval": frozenset({"granted", "rejected"}),
}
"""Kind of object → its final stages. Kinds without a final stage are absent. A deleted object of any kind has ended, too."""

COMMANDS: Mapping[str, CommandSpec] = {
    spec.type: spec
    for spec in [
        CommandSpec("project.create", work.ProjectCreate, result="work.project.created", creates="project"),
        CommandSpec("task.create", work.TaskCreate, result="work.task.created", creates="task"),
        CommandSpec("task.update", work.TaskUpdate),
        CommandSpec("message.send", work.MessageSend),
        CommandSpec("card.update", work.CardUpdate),
        CommandSpec("record.update", work.RecordUpdate),
        CommandSpec("finance.post", work.FinancePost),
        CommandSpec("approval.request", work.ApprovalRequest),
        CommandSpec("timer.set", work.TimerSet),
    ]
}


def event_spec(type_: str) -> EventSpec:
    """The type's entry; an unregistered type is an occurrence with free data."""
    return EVENTS.get(type_) or EventSpec(type_, Data)


def json_schema(type_: str) -> dict[str, Any]:
    """JSON Schema 2020-12 of the current version of an event's data or a command's arguments; KeyError if unknown."""
    spec: EventSpec | CommandSpec = EVENTS[type_] if type_ in EVENTS else COMMANDS[type_]
    schema = spec.model.model_json_schema()
    version = spec.version if isinstance(spec, EventSpec) else 1
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:hub:{type_}:{version}",
        **schema,
    }
