"""Whether what is done is still there: `python -m hub.ops.reconciling --home DIR --since TIME`, for `hub audit --outside`.

A system may say "done" and lose it, or a person may have deleted it since: neither ledger nor log can tell. So each command that is
done since then is looked up by its mark, as after a crash, at the pace that its system allows; nothing is changed anywhere. Says
one JSON line an instance: how many were `found`, are `missing` (with their names), were not asked for because its system cannot
be asked (`unasked`) or they are too `young` to be found surely, and how many it gave no answer for (`unanswered`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from hub.config.home import Home
from hub.errors import HubError, RejectedError
from hub.executor.argument_resolution import Prepared, from_ledger, prepare
from hub.executor.instances import Instances, InstanceState
from hub.executor.retry_policy import seen_of
from hub.kit import registry
from hub.kit.connector import CommandSink, Idempotency
from hub.ledger import commands
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.ops.connector_checks import as_value, tell
from hub.people import PeopleWatcher
from hub.runtime.clock import Clock, SystemClock
from schemas.envelope import Command, parse_time

IN_A_ROW = 3
"""Answers that fail, one after the other, until the rest of an instance is not asked for: it seems away."""


@dataclass
class InstanceReport:
    """What an instance says of what was done there."""

    instance: str
    found: int = 0
    unasked: int = 0
    young: int = 0
    unanswered: int = 0
    missing: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    """Why the last one that is `unanswered` is."""
    failing: int = 0

    def failed(self, error: HubError) -> None:
        """It gave no answer."""
        self.broke(error)
        self.failing += 1

    def broke(self, error: HubError) -> None:
        """The question could not be put, which says nothing of whether the system is there."""
        self.unanswered, self.error = self.unanswered + 1, as_value(error)

    def as_value(self) -> dict[str, Any]:
        """For the line."""
        return {name: value for name, value in vars(self).items() if name != "failing"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell of each instance."""
    parser = argparse.ArgumentParser(prog="python -m hub.ops.reconciling")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--since", required=True, metavar="TIME", help="RFC 3339, UTC")
    asked = parser.parse_args(arguments)
    try:
        home = Home.load(asked.home)
        connectors = {name: registry.connect(instance) for name, instance in home.instances.items()}
        ledger = Ledger(home.ledger_url)
        try:
            for told in reconcile(
                ledger, Instances(connectors, PeopleWatcher(home), SystemClock()), asked.since, SystemClock()
            ):
                tell({"outside": told.as_value()})
        finally:
            ledger.close()
    except HubError as error:
        tell({"error": as_value(error)})
    return 0


def reconcile(ledger: Ledger, lanes: Instances, since: str, clock: Clock) -> Iterator[InstanceReport]:
    """Ask for everything that was done since then; an instance after the other. Raises RetryableError while the ledger is away."""
    told: dict[str, InstanceReport] = {}
    for row in _done(ledger, since):
        lane = lanes.of(row.instance)
        _ask(told.setdefault(row.instance, InstanceReport(row.instance)), ledger, lanes, lane, row, clock)
    yield from told.values()


def _done(ledger: Ledger, since: str) -> Iterator[AnyRow]:
    """Page by page, each a look of its own: the systems take their time."""
    after = 0
    while True:
        with ledger.reading() as conn:
            rows = commands.done(conn, since, after)
        yield from rows
        if not rows:
            return
        after = rows[-1].seq


def _ask(
    told: InstanceReport, ledger: Ledger, lanes: Instances, lane: InstanceState, row: AnyRow, clock: Clock
) -> None:
    """Ask for one, and count the answer."""
    sends = lane.sends
    if sends is None or row.type not in sends.takes or sends.once(row.type) is not Idempotency.MARK:
        told.unasked += 1
    elif parse_time(row.updated_at) + timedelta(seconds=lane.limits.settle) > clock.now():
        told.young += 1
    elif told.failing >= IN_A_ROW:
        told.unanswered += 1
    else:
        try:
            is_there = _look(_prepared(ledger, lanes, lane, row), lane, sends, clock)
        except HubError as error:
            told.failed(error)
            return
        except SQLAlchemyError:  # the ledger's trouble, which no other command is spared
            raise
        except Exception as error:  # a bug of ours: the others are asked for
            told.broke(RejectedError("HUB-E4066", **seen_of(lane.name, error)))
            return
        told.failing = 0
        told.found += is_there
        if not is_there:
            told.missing.append({"command": row.id, "type": row.type, "case": row.case_id, "id": row.effect_id})


def _prepared(ledger: Ledger, lanes: Instances, lane: InstanceState, row: AnyRow) -> Prepared:
    with ledger.reading() as conn:
        return prepare(Command.from_json(row.body), from_ledger(conn), lanes.target(lane))


def _look(asked: Prepared, lane: InstanceState, sends: CommandSink, clock: Clock) -> bool:
    while wait := lane.pace.take(clock.monotonic()):
        time.sleep(wait)
    return sends.find(asked.sent) is not None


if __name__ == "__main__":
    sys.exit(main())
