"""What one event does to its case."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.engine.case import Case, Entity, HeldEvent, RequestedWork, from_json, to_json
from hub.engine.step import EmitCommand, EmitEvent, Step, View, step
from hub.replay.audit.fold import digest, fold_entities
from hub.replay.audit.reading import ENTITY_DEFAULTS
from schemas import registry
from schemas.decoding import AnyEvent
from schemas.domains.crm import Opportunity
from schemas.envelope import Command, Event
from schemas.registry import EventSpec
from tests.events import Decisions, ProjectRules, command, event, result, won


def asked(*steps: Step) -> list[Command]:
    return [output.command for done in steps for output in done.outputs if isinstance(output, EmitCommand)]


def derived(*steps: Step) -> list[Event]:
    return [output.event for done in steps for output in done.outputs if isinstance(output, EmitEvent)]


def run(events: list[Event], rules: ProjectRules, case: Case | None = None) -> list[Step]:
    steps = []
    for one in events:
        done = step(case, one, rules)
        case = done.case
        steps.append(done)
    return steps


def test_a_won_deal_asks_for_a_project_and_its_tasks() -> None:
    done = step(None, won(), ProjectRules())
    assert [c.type for c in asked(done)] == ["project.create", "task.create", "task.create"]
    assert done.case.opened_by == "opportunity/crm/O-1"
    assert done.case.entities["opportunity/crm/O-1"].stage == "won"


def test_the_same_event_again_changes_nothing() -> None:
    first = step(None, won(), ProjectRules())
    again = step(first.case, won(), ProjectRules())
    assert again == Step(first.case)


class Nothing:
    """Nothing of the case is apart."""

    def entity(self, ref: str) -> Entity | None:
        return None

    def requested(self, command: str) -> RequestedWork | None:
        return None

    def held(self, number: int) -> HeldEvent | None:
        return None

    def refs(self) -> Sequence[str]:
        return ()


@pytest.mark.parametrize("more", [{}, {"sequence": "5", "outbox": "b"}])
def test_the_short_way_to_the_next_case_keeps_every_field(more: dict[str, str]) -> None:
    told = won("O-2", case="opportunity/crm/O-1", **more)
    asked, held = {"c": RequestedWork("project.create", "pm")}, (HeldEvent(3, "e", "HUB-E6001"),)
    behind = ({7: held[0]}, (7, 8), 3, True, Nothing(), 4, 5, 6, (7, 8))
    before = Case("opportunity/crm/O-1", "x/y/z", {"a/b": Entity("a/b")}, asked, held, "a", 4, ("one",), *behind)
    plain = Case("", "")
    assert all(getattr(before, field) != getattr(plain, field) for field in before.__struct_fields__)
    assert before.after(told) == before.remember(told).with_entity(told)


def test_a_sequence_that_was_seen_is_a_repeat_and_a_later_one_is_not() -> None:
    rules = ProjectRules()
    first = step(None, won(sequence="4", outbox="a"), rules)
    assert step(first.case, won(id="other", sequence="3", outbox="a"), rules).outputs == ()
    assert step(
        first.case, event("crm.opportunity.changed", "opportunity/crm/O-1", sequence="5", outbox="a"), rules
    ).outputs


def test_a_new_ledger_counts_anew_and_its_events_are_no_repeats() -> None:
    rules = ProjectRules()
    first = step(None, won(sequence="400", outbox="a"), rules)
    lost = event("crm.opportunity.lost", "opportunity/crm/O-1", version="8", sequence="1", outbox="b")
    assert step(first.case, lost, rules).case.entities["opportunity/crm/O-1"].stage == "lost"


def test_won_again_without_leaving_won_asks_for_nothing_more() -> None:
    steps = run([won(version="7"), won(version="8")], ProjectRules())
    assert len(asked(steps[0])) == 3
    assert asked(steps[1]) == []


def test_won_lost_and_won_again_is_a_second_transition_under_ids_of_its_own() -> None:
    lost = event("crm.opportunity.lost", "opportunity/crm/O-1", version="8")
    steps = run([won(version="7"), lost, won(version="9")], ProjectRules())
    first, second = asked(steps[0]), asked(steps[2])
    assert len(first) == len(second) == 3
    assert not {c.id for c in first} & {c.id for c in second}


def test_late_news_of_a_won_deal_still_counts_once_and_takes_nothing_back() -> None:
    lost = event("crm.opportunity.lost", "opportunity/crm/O-1", version="9")
    steps = run([lost, won(version="7"), won(version="6")], ProjectRules())
    assert [len(asked(done)) for done in steps] == [0, 3, 0]
    assert steps[-1].case.entities["opportunity/crm/O-1"].stage == "lost"


def test_created_that_comes_late_does_not_reopen_what_was_completed() -> None:
    rules, case = ProjectRules(), "opportunity/crm/O-1"
    done = event("work.task.completed", "task/pm/5", case=case, version="2")
    made = event("work.task.created", "task/pm/5", case=case, data={"title": "T"})
    assert run([won(), done, made], rules)[-1].case.entities["task/pm/5"].stage == "completed"


def test_an_older_version_fills_in_and_overwrites_nothing() -> None:
    changed = event("crm.opportunity.changed", "opportunity/crm/O-1", version="3", data={"amount": "1", "note": "旧"})
    entity = run([won(version="7"), changed], ProjectRules())[-1].case.entities["opportunity/crm/O-1"]
    assert entity.data["amount"] == "880000"
    assert entity.data["note"] == "旧"
    assert entity.version == "7"


def test_versions_compare_as_numbers() -> None:
    newer = event("crm.opportunity.changed", "opportunity/crm/O-1", version="10", data={"amount": "2"})
    assert run([won(version="9"), newer], ProjectRules())[-1].case.entities["opportunity/crm/O-1"].data["amount"] == "2"


def test_a_project_is_completed_once_when_all_its_tasks_are() -> None:
    rules = ProjectRules()
    opened = step(None, won(), rules)
    project, first, second = asked(opened)
    case = opened.case.id
    story = [
        result(project, "9"),
        result(first, "1"),
        event("work.task.completed", "task/pm/1", case=case, version="1"),
        result(second, "2"),
        event("work.task.completed", "task/pm/2", case=case, version="1"),
    ]
    steps = run(story, rules, opened.case)
    assert [e.type for e in derived(*steps[:-1])] == []
    [completed] = derived(steps[-1])
    assert (completed.type, completed.subject, completed.case) == ("work.project.completed", "project/pm/9", case)
    after = run(
        [
            completed,
            event("work.task.reopened", "task/pm/2", case=case, version="2"),
            event("work.task.completed", "task/pm/2", case=case, version="3"),
        ],
        rules,
        steps[-1].case,
    )
    assert derived(*after) == []


def test_a_project_whose_tasks_were_all_cancelled_is_not_completed() -> None:
    rules = ProjectRules()
    opened = step(None, won(), rules)
    project, first, second = asked(opened)
    story = [result(project, "9"), result(first, "1"), result(second, "2")]
    story += [event("work.task.cancelled", f"task/pm/{n}", case=opened.case.id, version="1") for n in (1, 2)]
    assert derived(*run(story, rules, opened.case)) == []


def test_completion_waits_for_the_news_that_the_project_exists() -> None:
    rules = ProjectRules()
    opened = step(None, won(), rules)
    project, first, second = asked(opened)
    story = [result(first, "1"), result(second, "2")]
    story += [event("work.task.completed", f"task/pm/{n}", case=opened.case.id, version="1") for n in (1, 2)]
    steps = run([*story, result(project, "9")], rules, opened.case)
    assert [len(derived(done)) for done in steps] == [0, 0, 0, 0, 1]


def test_a_shadow_rule_leaves_a_trace_and_asks_for_nothing() -> None:
    class Shadow(ProjectRules):
        def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
            return Decisions(shadow=(command(event, "message.send", text="赢单"),))

    done = step(None, won(), Shadow())
    assert asked(done) == []
    [trace] = derived(done)
    assert (trace.type, trace.subject, trace.case) == ("hub.rule.shadowed", "rule/hub/test", "opportunity/crm/O-1")
    assert trace.data["arguments"] == {"text": "赢单"}


def test_every_event_gives_the_view_of_its_entity_with_sources() -> None:
    done = step(None, won(), ProjectRules())
    view = next(output for output in done.outputs if isinstance(output, View))
    assert view.entity.sources["amount"] == ("/connectors/crm", won().time)
    record = view.record()
    assert record is not None
    assert (record.topic, record.key) == ("hub.view.opportunity", b"opportunity/crm/O-1")


def test_a_case_survives_being_kept_and_read_back() -> None:
    rules = ProjectRules()
    opened = step(None, won(sequence="4", outbox="a"), rules)
    project = asked(opened)[0]
    case = step(opened.case, result(project, "9"), rules).case
    assert from_json(to_json(case, 41)) == (case, 41)


DEAL_REF = "opportunity/crm/O-1"
DELETED = EventSpec("crm.opportunity.deleted", Opportunity, "deleted")


@pytest.fixture
def deletable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue in which a source can delete a deal."""
    monkeypatch.setattr(registry, "EVENTS", {**registry.EVENTS, DELETED.type: DELETED})


def changed(version: str, clears: Sequence[str] = (), **data: object) -> Event:
    told = {**dict.fromkeys(clears), **data}
    return event("crm.opportunity.changed", DEAL_REF, version=version, data=told, clears=list(clears) or None)


def entity_after(*events: Event) -> Entity:
    return run(list(events), ProjectRules())[-1].case.entities[DEAL_REF]


def test_a_cleared_field_is_gone_with_its_value_and_an_older_version_does_not_bring_it_back() -> None:
    entity = entity_after(won(version="7"), changed("9", ["owner"]), changed("8", owner="person/li.lei"))
    assert "owner" not in entity.data
    assert entity.sources["owner"] == ("/connectors/crm", won().time)
    assert entity_after(won(version="7"), changed("9", ["owner"]), changed("10", owner="x")).data["owner"] == "x"


def test_an_older_version_clears_nothing_that_a_later_one_has_told() -> None:
    assert entity_after(won(version="7"), changed("6", ["owner"])).data["owner"] == "person/wang.fang"


def test_what_nobody_knew_is_not_brought_back_once_it_was_cleared() -> None:
    assert "due" not in entity_after(won(version="7"), changed("6", ["due"]), changed("5", due="2026-12-01")).data


def test_a_null_that_is_not_among_the_cleared_says_nothing() -> None:
    assert entity_after(won(version="7"), changed("8", owner=None)).data["owner"] == "person/wang.fang"


def test_a_field_that_is_cleared_and_has_a_value_has_that_value() -> None:
    told = event("crm.opportunity.changed", DEAL_REF, version="8", data={"owner": "x"}, clears=["owner", "name"])
    entity = entity_after(won(version="7"), told)
    assert (entity.data["owner"], "name" in entity.data) == ("x", False)


@pytest.mark.usefixtures("deletable")
def test_what_its_source_deletes_is_marked_and_revived_by_later_news_where_it_was() -> None:
    deleted = event("crm.opportunity.deleted", DEAL_REF, version="8")
    gone = entity_after(won(version="7"), deleted)
    assert (gone.stage, gone.data["amount"]) == ("deleted", "880000")
    assert entity_after(won(version="7"), deleted, changed("6", amount="1")).stage == "deleted"
    assert entity_after(won(version="7"), deleted, changed("9", amount="1")).stage == "won"


@pytest.mark.usefixtures("deletable")
def test_won_once_more_after_it_was_deleted_is_the_same_win() -> None:
    deleted = event("crm.opportunity.deleted", DEAL_REF, version="8")
    steps = run([won(version="7"), deleted, won(version="9")], ProjectRules())
    assert [len(asked(done)) for done in steps] == [3, 0, 0]
    lost = event("crm.opportunity.lost", DEAL_REF, version="10")
    assert len(asked(*run([lost, won(version="11")], ProjectRules(), steps[-1].case))) == 3


@pytest.mark.usefixtures("deletable")
def test_a_deleted_task_is_one_that_a_project_does_not_wait_for() -> None:
    rules = ProjectRules()
    opened = step(None, won(), rules)
    project, first, second = asked(opened)
    case = opened.case.id
    story = [result(project, "9"), result(first, "1"), result(second, "2")]
    story += [event("work.task.completed", "task/pm/1", case=case, version="1")]
    story += [event("crm.opportunity.deleted", "task/pm/2", case=case, version="1")]
    assert [made.subject for made in derived(*run(story, rules, opened.case))] == ["project/pm/9"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["created", "changed", "won", "lost", "deleted", "reopened"]),
            st.sampled_from([None, "1", "2", "3", "10"]),
            st.dictionaries(st.sampled_from("abc"), st.sampled_from([None, 1, 2]), max_size=3),
            st.lists(st.sampled_from(["a", "b", "why"]), max_size=2),
        ),
        max_size=8,
    )
)
def test_the_audits_own_fold_says_the_same(
    told: list[tuple[str, str | None, dict[str, int | None], list[str]]],
) -> None:
    with patch.object(registry, "EVENTS", {**registry.EVENTS, DELETED.type: DELETED}):
        events = [
            event(f"crm.opportunity.{name}", DEAL_REF, id=str(at), version=version, data=data, clears=clears)
            for at, (name, version, data, clears) in enumerate(told)
        ]
        case = Case(DEAL_REF, DEAL_REF)
        for each in events:
            case = case.with_entity(each)
        entities = orjson.loads(to_json(case, 0))["case"].get("entities", {})
        mine = {ref: digest({**ENTITY_DEFAULTS, **entity}) for ref, entity in entities.items()}
        assert mine == {ref: digest(thing) for ref, thing in fold_entities(events).items()}
