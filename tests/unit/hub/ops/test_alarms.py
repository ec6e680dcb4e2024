"""What of a program's log reaches the terminal."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from hub.ops.programs import ALARM_REPEAT_S, Alarms, plain_lines

BROKEN = {
    "program": "processor",
    "code": "HUB-E3110",
    "place": "rules/won.yaml:5:39",
    "reason": "cannot be read",
    "event": "rules.broken",
    "level": "error",
    "exception": "Traceback",
}


def line(**changed: object) -> str:
    return orjson.dumps({**BROKEN, **changed}).decode()


@dataclass
class Time:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_error_with_a_code_is_an_alarm_without_its_traceback() -> None:
    assert Alarms().of(line(fix="mend it")) == {
        "level": "error",
        "program": "processor",
        "code": "HUB-E3110",
        "place": "rules/won.yaml:5:39",
        "reason": "cannot be read",
        "fix": "mend it",
    }
    assert "place" not in (Alarms().of(line(place="")) or {"place": ""})


def test_nothing_else_is() -> None:
    alarms = Alarms()
    nothing = [line(level="info"), "Traceback (most recent call last):", "", "[1]", '"x"']
    nothing.append(orjson.dumps({"level": "error", "event": "a library's"}).decode())
    assert [alarms.of(each) for each in nothing] == [None] * len(nothing)


def test_the_same_alarm_comes_once_a_minute_and_another_at_once() -> None:
    clock = Time()
    alarms = Alarms(clock)
    assert alarms.of(line())
    clock.now += ALARM_REPEAT_S / 2
    assert alarms.of(line()) is None
    assert alarms.of(line(reason="in other words")) is None
    assert alarms.of(line(place="rules/lost.yaml:1:1"))
    assert alarms.of(line(level="warning", instance="pm", place=""))
    clock.now += ALARM_REPEAT_S / 2
    assert alarms.of(line())


def test_last_words_are_those_that_are_no_entries_of_the_log() -> None:
    said = [line(), "Fatal Python error: Segmentation fault", " ", line(level="info"), "one", "two", "three"]
    assert plain_lines(said) == ["one", "two", "three"]
    assert plain_lines(said[:4]) == ["Fatal Python error: Segmentation fault"]
    assert plain_lines([line()]) == []
