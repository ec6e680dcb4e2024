"""Checks that effects still exist: `python -m hub.ops.reconciling --home DIR --since TIME`, for `hub audit --outside`.

A system may confirm an effect and lose it, or a person may delete it later; neither ledger nor log knows. So every command done
since TIME is looked up by its idempotency mark, as after a crash, within its system's rate limit; nothing is changed. Writes one
JSON line an instance: how many effects were `found`, are `missing` (with their ids), were not looked up because the system has no
lookup (`unasked`) or because they are too `young` for a reliable one, and for how many the lookup failed (`unanswered`).
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

from hub.errors import HubError, RejectedError
from hub.executor.argument_resolution import ResolvedCommand, ledger_resolver, resolve_arguments
from hub.executor.instances import Instances, InstanceState
from hub.executor.retry_policy import crash_context
from hub.home import Home
from hub.kit import registry
from hub.kit.connector import CommandSink, Idempotency
from hub.ledger import commands
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.ops.connector_checks import as_value, write_line
from hub.people_watcher import PeopleWatcher
from hub.runtime.clock import Clock, SystemClock
from schemas.envelope import Command, parse_time

MAX_CONSECUTIVE_FAILURES = 3
"""Lookups in a row that fail until the rest of the instance is skipped, as its system seems unreachable."""


@dataclass
class InstanceReport:
    """The result of the lookups at one instance."""

    instance: str
    found: int = 0
    unasked: int = 0
    young: int = 0
    unanswered: int = 0
    missing: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    """Why the last lookup counted in `unanswered` failed."""
    failing: int = 0

    def failed(self, error: HubError) -> None:
        """Count a lookup that the system did not answer."""
        self.broke(error)
        self.failing += 1

    def broke(self, error: HubError) -> None:
        """Count a lookup that failed in our own code; it does not show that the system is unreachable."""
        self.unanswered, self.error = self.unanswered + 1, as_value(error)

    def as_value(self) -> dict[str, Any]:
        """As JSON."""
        return {name: value for name, value in vars(self).items() if name != "failing"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one JSON line an instance; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hub.ops.reconciling")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--since", required=True, metavar="TIME", help="RFC 3339, UTC")
    options = parser.parse_args(arguments)
    try:
        home = Home.load(options.home)
        connectors = {name: registry.connect(instance) for name, instance in home.instances.items()}
        ledger = Ledger(home.ledger_url)
        try:
            instances = Instances(connectors, PeopleWatcher(home), SystemClock())
            for report in reconcile(ledger, instances, options.since, SystemClock()):
                write_line({"outside": report.as_value()})
        finally:
            ledger.close()
    except HubError as error:
        write_line({"error": as_value(error)})
    return 0


def reconcile(ledger: Ledger, instances: Instances, since: str, clock: Clock) -> Iterator[InstanceReport]:
    """Look up all effects of commands done since then; one report an instance. Raises RetryableError while the ledger is away."""
    reports: dict[str, InstanceReport] = {}
    for row in _done(ledger, since):
        state = instances.of(row.instance)
        _check(reports.setdefault(row.instance, InstanceReport(row.instance)), ledger, instances, state, row, clock)
    yield from reports.values()


def _done(ledger: Ledger, since: str) -> Iterator[AnyRow]:
    """The rows page by page, each page in its own transaction: lookups are slow."""
    after = 0
    while True:
        with ledger.reading() as conn:
            rows = commands.done(conn, since, after)
        yield from rows
        if not rows:
            return
        after = rows[-1].seq


def _check(
    report: InstanceReport, ledger: Ledger, instances: Instances, state: InstanceState, row: AnyRow, clock: Clock
) -> None:
    """Look up the effect of one command, and count the result."""
    sends = state.sends
    if sends is None or row.type not in sends.command_types or sends.idempotency(row.type) is not Idempotency.LOOKUP:
        report.unasked += 1
    elif parse_time(row.updated_at) + timedelta(seconds=state.limits.settle) > clock.now():
        report.young += 1
    elif report.failing >= MAX_CONSECUTIVE_FAILURES:
        report.unanswered += 1
    else:
        try:
            exists = _look_up(_resolved(ledger, instances, state, row), state, sends, clock)
        except HubError as error:
            report.failed(error)
            return
        except SQLAlchemyError:  # the ledger fails: every other command would fail too
            raise
        except Exception as error:  # our bug: the other commands are still looked up
            report.broke(RejectedError("HUB-E4066", **crash_context(state.name, error)))
            return
        report.failing = 0
        report.found += exists
        if not exists:
            report.missing.append({"command": row.id, "type": row.type, "case": row.case_id, "id": row.effect_id})


def _resolved(ledger: Ledger, instances: Instances, state: InstanceState, row: AnyRow) -> ResolvedCommand:
    with ledger.reading() as conn:
        return resolve_arguments(Command.from_json(row.body), ledger_resolver(conn), instances.target(state))


def _look_up(resolved: ResolvedCommand, state: InstanceState, sends: CommandSink, clock: Clock) -> bool:
    while wait := state.rate_limiter.take(clock.monotonic()):
        time.sleep(wait)
    return sends.find(resolved.sent) is not None


if __name__ == "__main__":
    sys.exit(main())
