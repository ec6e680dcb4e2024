"""The fold of the inbox."""

from __future__ import annotations

from hub.projector.folding import fold
from projections.inbox.fold import PROJECTION
from schemas.envelope import Event
from tests.board_events import Deal, event

DEAL = Deal(1)


def done(type_: str) -> Event:
    data = {"type": type_, "id": "m1", "arguments": {"to": "person/li.lei", "text": "赢单"}, "why": DEAL.why(0)}
    return event("hub.command.done", "command/own/c1", data, case=DEAL.case)


def test_a_sent_message_is_a_row() -> None:
    row = fold(PROJECTION, [done("message.send")], {})["command/own/c1"].after
    assert row is not None
    assert (row["person"], row["text"], row["instance"]) == ("person/li.lei", "赢单", "own")
    assert row["why"]["rule"] == "won-deal-to-delivery"


def test_other_commands_are_not() -> None:
    assert fold(PROJECTION, [done("task.update"), DEAL.won()], {}) == {}
