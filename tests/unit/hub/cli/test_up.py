"""What `hub up` says: business facts and alarms, one line each, in both languages."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer

from hub.cli import terminal
from hub.cli.event_lines import line_of
from hub.cli.terminal import EXIT_INTERRUPTED, SAME_SIGNAL_S, ShutdownSignals, StopSignal
from hub.cli.up import UpReporter, ignore_output_errors, running
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.ops.supervisor import Supervisor
from schemas.topics import EVENTS
from tests.events import event, won

NAMES = {"person/li.lei": "李雷"}


def said(what: str, facts: Mapping[str, Any], capsys: pytest.CaptureFixture[str], json: bool = False) -> str:
    UpReporter(json)(what, facts)
    return capsys.readouterr().out


def test_an_alarm_says_where_what_and_the_way_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.speech, "language", "en")
    rule = {"program": "processor", "place": "rules/a.yaml:5:9", "code": "HUB-E3110", "reason": "no", "fix": "mend it"}
    facts = {"level": "error", **rule}
    assert said("alarm", facts, capsys) == "  ✘ processor  rules/a.yaml:5:9  HUB-E3110  no\n    → mend it\n"
    away = {"level": "warning", "program": "connectors", "instance": "pm", "code": "HUB-E4001"}
    assert said("alarm", away, capsys) == "  ! connectors  pm  HUB-E4001\n"
    assert '"what":"alarm"' in said("alarm", facts, capsys, json=True)


def test_a_program_that_ended_has_its_last_plain_words_and_its_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.speech, "language", "en")
    facts = {"program": "processor", "code": -11, "last": ["Segmentation fault"], "log": "logs/processor.log"}
    shown = said("ended", facts, capsys)
    assert (
        shown
        == "  ✘ processor ended (-11), starting it again\n      Segmentation fault\n      log logs/processor.log\n"
    )
    broker = said("ended", {"program": "broker", "code": -9, "last": [], "log": ""}, capsys)
    assert broker == "  ✘ broker ended (-9), starting it again\n"


@pytest.mark.parametrize(
    ("language", "shown"), [("zh-CN", "→ 消息 已立项 见看板 · 李雷"), ("en", "→ message 已立项 见看板 · 李雷")]
)
def test_a_message_is_told_by_its_text_and_its_receiver(language: str, shown: str) -> None:
    asked = {"to": "person/li.lei", "text": "已立项\n见看板"}
    data = {"type": "message.send", "arguments": asked, "attempts": 1}
    told = line_of(event("hub.command.done", "command/desk/c1", data=data), language, NAMES)
    assert told is not None
    assert told.endswith(shown)


def test_people_are_told_by_name_and_strangers_as_they_are() -> None:
    for assignee, name in (("person/li.lei", "李雷"), ("person/gone", "person/gone")):
        made = event("work.task.created", "task/desk/t1", data={"title": "启动会", "assignee": assignee})
        told = line_of(made, "zh-CN", NAMES)
        assert told is not None
        assert told.endswith(f"→ 任务 启动会 · {name}")
    assert line_of(event("crm.account.changed", "account/crm/a1", data={"name": "A"}), "en", NAMES) is None


def test_a_signal_while_the_hub_starts_ends_it_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []

    class Starting(Supervisor):
        def __init__(self) -> None: ...

        def start(self) -> None:
            raise StopSignal

        def stop(self) -> None:
            done.append("stopped")

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(typer.Exit) as raised, running(Starting(), UpReporter(json=True)):
            done.append("begun")
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert raised.value.exit_code == 0
    assert done == ["stopped"]
    assert "stopping" in capsys.readouterr().out


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), OSError(5, "closed"), ValueError("closed")])
def test_who_keeps_a_hub_running_does_not_end_by_what_cannot_be_said(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    silenced: list[bool] = []
    monkeypatch.setattr("hub.cli.up.discard_output", lambda: silenced.append(True))

    def says() -> None:
        raise error

    with ignore_output_errors():
        says()
    assert silenced == [True] * isinstance(error, BrokenPipeError)


class Signals:
    """Signals that come at certain seconds, and what they did."""

    def __init__(self) -> None:
        self.now, self.killed, self.left = 0.0, 0, list[int]()
        self.stopping = ShutdownSignals(self._kill, self.left.append, lambda: self.now)

    def _kill(self) -> None:
        self.killed += 1
        raise OSError("gone already")

    def come(self, at: float) -> None:
        self.now = at
        self.stopping.on_signal()


def test_the_first_signal_stops_in_order_and_a_second_one_ends_everything() -> None:
    signals = Signals()
    with pytest.raises(StopSignal):
        signals.come(10.0)
    signals.come(10.0 + SAME_SIGNAL_S / 2)  # to the program and to its group
    assert (signals.killed, signals.left) == (0, [])
    signals.come(11.5)
    assert (signals.killed, signals.left) == (1, [EXIT_INTERRUPTED])


def test_a_stop_that_nobody_asked_for_is_not_broken_into_and_can_be_cut_short() -> None:
    signals = Signals()
    signals.stopping.begin()
    signals.come(0.5)
    assert signals.left == []
    signals.come(3.0)
    assert signals.left == [EXIT_INTERRUPTED]


def test_the_tail_begins_before_the_first_fact() -> None:
    """What is pushed while the programs start is said, each fact on its line."""
    log, said_lines, both = MemoryLog(), list[str](), threading.Event()
    writer = log.writer()

    class Hears(UpReporter):
        def fact(self, line: str) -> None:
            said_lines.append(line)
            if len(said_lines) == 2:
                both.set()

    teller = Hears(json=True)

    def append(*deals: str) -> None:
        events = [won(deal) for deal in deals]
        writer.append([Outgoing(EVENTS.name, each.case.encode(), each.to_json()) for each in events])

    class Started(Supervisor):
        def __init__(self) -> None:
            config, people = SimpleNamespace(language="en", timezone="UTC"), SimpleNamespace(names={})
            self.home = cast("Any", SimpleNamespace(config=config, people=people))

        def log(self) -> Any:
            return log

        def start(self) -> None:
            append("O-0")
            teller("topics", {})
            append("O-1", "O-2")
            teller("ready", {"url": "http://x"})

        def stop(self) -> None: ...

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with running(Started(), teller):
            assert both.wait(30)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert [line.split()[1] for line in said_lines] == ["won", "won"]
