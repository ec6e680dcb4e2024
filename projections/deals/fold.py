"""The deals board: one row per sales opportunity, with its value, its stage and the progress of its delivery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.kit.last_writer_wins import LastWriterWins, order_of
from hub.kit.projection import Projection, Row
from projections.deals.table import EMPTY, deals
from projections.tasks.fold import COMMAND_TYPES, PARKED_NOTES, STEPS, TASK_TYPES, request_of, state_of
from schemas.envelope import Event
from schemas.registry import EVENTS, event_spec

STAGES = ("won", "open", "lost")
DELETED = "deleted"
_OPPORTUNITY = frozenset(type_ for type_ in EVENTS if type_.startswith("crm.opportunity."))
_PROJECT = ("work.project.created", "work.project.completed", "work.project.deleted")
_FIELDS = ("name", "account", "amount", "currency", "owner")


def keys_of(event: Event) -> tuple[str, ...]:
    """The opportunity of the event; for a project or task event, the opportunity whose case it belongs to."""
    if event.type in _OPPORTUNITY:
        return (event.subject,)
    followed = event.type in _PROJECT or event.type in TASK_TYPES or event.type in COMMAND_TYPES
    return (event.case,) if followed and event.case.startswith("opportunity/") else ()


def next_deal(known: Mapping[str, Row | None], event: Event) -> Mapping[str, Row | None]:
    """Fold one event into its deal. Project and task events of a case without an opportunity row change nothing."""
    ((key, row),) = known.items()
    if event.type in _OPPORTUNITY:
        return {key: _opportunity(row, event)}
    if row is None:
        return {}
    return {key: _project(row, event) if event.type in _PROJECT else _task(row, event)}


def _opportunity(row: Row | None, event: Event) -> Row:
    deal = LastWriterWins(row, {**EMPTY, "case_id": event.case})
    order, stage = order_of(event), event_spec(event.type).stage
    if stage != DELETED:
        deal.write(order, {name: event.data.get(name) for name in _FIELDS} | {"changed_at": event.time})
        deal.clear(order, [name for name in event.clears or () if name in _FIELDS and event.data.get(name) is None])
    if stage is not None:
        deal.step(order, stage, event.time)
    return deal.row(stage=_stage(deal))


def _stage(deal: LastWriterWins) -> str:
    """The stage entered last. A deleted opportunity reappears when its source reports a later change."""
    if deal.is_last(DELETED, ("changed_at",)):
        return DELETED
    newest = EMPTY["stage"]
    for stage in STAGES:
        if deal.after(stage, newest):
            newest = stage
    return str(newest)


def _project(row: Row, event: Event) -> Row:
    deal, order = LastWriterWins(row, EMPTY), order_of(event)
    if event.type == "work.project.deleted":
        deal.clear(order, ("project", "project_name"))
        return deal.row()
    deal.write(order, {"project": event.subject, "project_name": event.data.get("name")})
    if event.type == "work.project.completed":
        deal.step(order, "delivered", event.time)
    return deal.row(delivered=bool(deal.reached("delivered")))


def _task(row: Row, event: Event) -> Row:
    tasks = {**row["tasks"]}
    request = request_of(event)
    ref = event.subject if event.kind == "task" else request
    if ref is None or isinstance(tasks.get(ref), str) or (event.type in PARKED_NOTES and ref not in tasks):
        return row  # not our task, a request that became a task, or a parked note on another command
    task = LastWriterWins(tasks.get(ref), {"marks": {}, "times": {}})
    if request is not None and request != ref:
        if isinstance(pending := tasks.get(request), dict):
            task.take_over(pending)
        tasks[request] = ref
    task.step(order_of(event), STEPS.get(event.type, "changed"), event.time)
    tasks[ref] = task.row()
    return {**row, "tasks": tasks, **_counted(tasks)}


def _counted(tasks: Mapping[str, Any]) -> dict[str, int]:
    states = [
        state_of(LastWriterWins(task, {}), exists=ref.startswith("task/"))
        for ref, task in tasks.items()
        if isinstance(task, dict)
    ]
    return {
        "tasks_total": sum(state not in ("cancelled", DELETED) for state in states),
        "tasks_done": states.count("completed"),
        "tasks_parked": states.count("parked"),
    }


PROJECTION = Projection(
    name="deals",
    title={"zh-CN": "商机", "en": "Deals"},
    version=2,
    table=deals,
    keys=keys_of,
    fold=next_deal,
)
