"""The verdict judges headway: what waits for too long is told, whoever is alive."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from hub.errors import LANGUAGES
from hub.health.status import (
    STAGES,
    Away,
    Facts,
    HealthLimits,
    HealthState,
    ProgramFact,
    ProgressTracker,
    Queue,
    Stage,
    StreamFact,
    assess,
)
from hub.health.words import DEAL_WON, duration, sentence, status_value, texts
from hub.rules.reload import BrokenFile

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
LIMITS = HealthLimits()


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def queue(stage: Stage = "rules", seconds: float = 100.0, where: str = "3", **more: object) -> Queue:
    return Queue(stage, where, 1, ago(seconds), "17", **more)  # type: ignore[arg-type]


def test_a_worker_that_stands_still_is_told_with_what_waits_for_it() -> None:
    found = assess(Facts(NOW, queues=(queue(types={DEAL_WON: 1}),)), LIMITS, {("rules", "3"): 30.0})
    assert found.state is HealthState.STALLED
    assert sentence(found, "zh-CN") == "规则处理停滞 1 分 40 秒，1 笔赢单在等"
    assert sentence(found, "en") == "The rules have stood still for 1 min 40 s; 1 won deal is waiting"
    stage = next(stage for stage in found.stages if stage.stage == "rules")
    assert (stage.waiting, stage.oldest, stage.state) == (1, 100.0, HealthState.STALLED)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "calls"])
def test_each_stage_is_judged_by_its_oldest(stage: Stage) -> None:
    assert assess(Facts(NOW, queues=(queue(stage, LIMITS.oldest),)), LIMITS, {}).state is HealthState.OK
    late = Facts(NOW, queues=(queue(stage, LIMITS.oldest + 1),))
    assert assess(late, LIMITS, {(stage, "3"): 60.0}).state is HealthState.STALLED
    moving = HealthState.OK if stage == "held" else HealthState.DEGRADED
    assert assess(late, LIMITS, {(stage, "3"): 0.5}).state is moving
    for still in (60.0, 0.5):
        for language in LANGUAGES:
            assert sentence(assess(late, LIMITS, {(stage, "3"): still}), language)


def test_programs_that_live_and_wait_for_nothing_are_well_and_dead_ones_never_are() -> None:
    ready = ProgramFact("processor", 1, "ready")
    assert assess(Facts(NOW, programs=(ready,)), LIMITS, {}).ok
    for state in ("frozen", "down"):
        found = assess(Facts(NOW, programs=(ready, ProgramFact("projector", 2, state))), LIMITS, {})
        assert found.state is HealthState.STALLED
        assert "看板程序" in sentence(found, "zh-CN")
    assert assess(Facts(NOW, programs=(ProgramFact("processor", 1, "starting"),)), LIMITS, {}).ok


def test_a_hub_that_does_not_run_and_stores_that_are_away_are_down() -> None:
    down = assess(Facts(NOW, running=False, streams=(StreamFact("crm", "deals", ago(900), 2.0),)), LIMITS, {})
    assert (down.state, sentence(down, "en")) == (HealthState.DOWN, "It is not running")
    assert [trouble.kind for trouble in down.troubles] == ["stopped"]
    gone = Away("broker", "HUB-E2104", {"zh-CN": "没有回答", "en": "no answer"})
    found = assess(Facts(NOW, away=(gone,), queues=(queue("boards", 60.0),)), LIMITS, {})
    assert (found.state, sentence(found, "en")) == (HealthState.DOWN, "Kafka does not answer (HUB-E2104)")


def test_a_system_that_fails_needs_a_person_and_does_not_make_the_hub_unwell() -> None:
    found = assess(Facts(NOW, queues=(queue("calls", 100, "pm", code="HUB-E4001"),)), LIMITS, {})
    assert found.ok
    assert found.worst is not None and found.worst.outside
    assert sentence(found, "zh-CN") == "都在流转，只有：pm 没有办成，1 条命令在等，最久 1 分 40 秒（HUB-E4001）"
    assert assess(Facts(NOW, queues=(queue("calls", 100, "pm", busy=True),)), LIMITS, {}).ok
    assert assess(Facts(NOW, queues=(queue("calls", 100, "pm"),)), LIMITS, {("calls", "pm"): 0.0}).ok


def test_calls_that_nobody_begins_are_the_hubs_own_trouble() -> None:
    found = assess(Facts(NOW, queues=(queue("calls", 20, "pm"),)), LIMITS, {("calls", "pm"): 20.0})
    assert found.state is HealthState.STALLED
    assert "pm" in sentence(found, "zh-CN")


def test_a_stream_that_was_read_long_ago_is_told_unless_its_interval_is_as_long() -> None:
    stale = StreamFact("tryton", "opportunities", ago(600), 2.0)
    assert [trouble.kind for trouble in assess(Facts(NOW, streams=(stale,)), LIMITS, {}).troubles] == ["stream"]
    slow = StreamFact("tryton", "opportunities", ago(600), 300.0)
    assert assess(Facts(NOW, streams=(slow,)), LIMITS, {}).troubles == ()
    refused = assess(Facts(NOW, streams=(stale,), instances={"tryton": "paused"}), LIMITS, {})
    assert [trouble.kind for trouble in refused.troubles] == ["instance"]


def test_a_halted_partition_is_told_once_and_not_as_a_slow_one() -> None:
    halt = {"partition": 3, "offset": 9, "code": "HUB-E6017"}
    found = assess(Facts(NOW, halted=(halt,), queues=(queue(),)), LIMITS, {})
    assert [trouble.kind for trouble in found.troubles] == ["halted"]
    assert found.state is HealthState.STALLED


def test_parked_work_is_told_and_leaves_the_hub_well() -> None:
    found = assess(Facts(NOW, parked={"event": 2, "command": 1}), LIMITS, {})
    assert (found.state, found.parked, sentence(found, "zh-CN")) == (HealthState.OK, 3, "都在流转，停放 3 项")


def test_files_that_are_broken_are_told_and_leave_the_hub_well() -> None:
    first, other = BrokenFile(code="HUB-E3120", place="rules/won.yaml:5:5"), BrokenFile(code="HUB-E3001", place="a:1:1")
    found = assess(Facts(NOW, broken=(first,)), LIMITS, {})
    assert found.ok
    assert sentence(found, "zh-CN") == "都在流转，只有：rules/won.yaml:5:5 有误（HUB-E3120），规则仍按改动前的执行"
    both = assess(Facts(NOW, broken=(first, other), instances={"pm": "paused"}), LIMITS, {})
    assert [trouble.kind for trouble in both.troubles] == ["files", "instance"]
    assert "rules/won.yaml:5:5 and 1 more have mistakes (HUB-E3120)" in sentence(both, "en")


def test_headway_is_measured_by_the_looks_and_begins_anew_with_each_step() -> None:
    headway = ProgressTracker()
    first = queue(seconds=1)
    assert headway.note(Facts(NOW, queues=(first,)), 10.0) == {("rules", "3"): 0.0}
    assert headway.note(Facts(NOW, queues=(first,)), 16.0) == {("rules", "3"): 6.0}
    moved = Queue("rules", "3", 1, ago(1), "18")
    assert headway.note(Facts(NOW, queues=(moved,)), 17.0) == {("rules", "3"): 0.0}
    assert headway.note(Facts(NOW), 18.0) == {}


def test_a_clock_that_was_set_back_makes_nothing_older() -> None:
    assert assess(Facts(NOW, queues=(queue(seconds=-500),)), LIMITS, {}).ok


def test_both_languages_say_the_same_facts() -> None:
    for name, entry in texts().items():
        facts = [set(re.findall(r"{(\w+)[^}]*}", entry[language])) - {"count"} for language in LANGUAGES]
        assert facts[0] == facts[1], name


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 秒"), (59, "59 秒"), (100, "1 分 40 秒"), (3700, "1 小时 1 分"), (90_000, "1 天 1 小时")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds, "zh-CN") == said


def test_programs_read_states_and_figures() -> None:
    told = status_value(assess(Facts(NOW, queues=(queue(),), parked={"event": 1}), LIMITS, {}))
    assert told["status"] == "stalled"
    assert told["parts"]["rules"] == {"status": "stalled", "waiting": 1, "oldest_seconds": 100.0}
    assert told["parts"]["boards"]["status"] == "ok"
    assert set(told["sentence"]) == set(LANGUAGES)
    assert set(told["troubles"][0]["sentence"]) == set(LANGUAGES)
    assert status_value(assess(Facts(NOW), LIMITS, {}), "en")["sentence"] == "All is moving"


def test_in_one_language_every_sentence_is_text() -> None:
    facts = Facts(NOW, queues=(queue(), queue("boards", where="deals")))
    told = status_value(assess(facts, LIMITS, {}), "zh-CN")
    assert [told["sentence"][:6], *(each["sentence"][:2] for each in told["troubles"])] == [
        "规则处理停滞",
        "规则",
        "看板",
    ]
