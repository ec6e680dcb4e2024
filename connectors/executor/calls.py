"""One call, from SENDING to its end in the ledger. Runs in a thread of the instance's crew and never raises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from connectors.executor import events, results
from connectors.executor.lane import Lane
from connectors.executor.verdicts import Call, Failure, Verdict, judge, seen_of
from hub import metrics
from hub.clock import Clock
from hub.connector import Effect, Once, Sends
from hub.errors import HubError, RetryableError
from hub.failpoints import reach
from hub.ledger import outbox
from hub.ledger.ledger import Ledger

log = structlog.get_logger(__name__)
AGAIN = 0.5
"""Seconds until a result is written again that the database could not take."""


class TooLateError(Exception):
    """The call's time had run out before it began: another may have it by now."""


@dataclass
class Calls:
    """Makes calls and writes down how they ended. `ended` hears of each, after its commit."""

    ledger: Ledger
    clock: Clock
    ended: Callable[[], None]
    leaving: threading.Event

    def carry_out(self, lane: Lane, call: Call, sends: Sends) -> None:
        """Do what a command asks and note it, as often as it takes to note it."""
        try:
            self._carry_out(lane, call, sends)
        except TooLateError:
            log.warning("call.too_late", command=call.id, instance=lane.name)
        except Exception:  # the command stays SENDING, and its deadline brings it back
            log.exception("call.not_noted", command=call.id, instance=lane.name)
        finally:
            lane.finish(call.id)
            self.ended()

    def _carry_out(self, lane: Lane, call: Call, sends: Sends) -> None:
        reach("executor.before-call")
        began = self.clock.monotonic()
        ended = self._attempt(lane, call, sends)
        reach("executor.called")
        state = "done" if isinstance(ended, Effect) else type(ended.error).__name__
        seconds = max(0.0, self.clock.monotonic() - began)
        metrics.CALL_SECONDS.labels(lane.name, call.prepared.command.type, state).observe(seconds)
        refused = lane.learn(call.id, ended, began)
        now = self.clock.now()
        verdict = judge(call, ended, now)
        self._keep(lambda conn: self._write(conn, lane, call, verdict, refused))
        reach("executor.done")

    def _attempt(self, lane: Lane, call: Call, sends: Sends) -> Effect | Failure:
        looking = call.doubtful and call.once is Once.MARK
        try:
            found = sends.find(call.prepared.sent) if looking else None
            if found is not None:
                return found
            looking = False
            if self.clock.monotonic() > call.give_up_at:
                raise TooLateError
            return sends.send(call.prepared.sent)
        except HubError as error:
            return Failure(error, looking)
        except TooLateError:
            raise
        except Exception as error:  # its text is not logged: it may hold a secret
            log.error("connector.broke", command=call.id, **seen_of(lane.name, error))
            return Failure(error, looking, lane.crashed(call.id))

    def _write(self, conn: Connection, lane: Lane, call: Call, verdict: Verdict, refused: bool | None) -> None:
        now = self.clock.now()
        reach("executor.before-done")
        if refused is not None:
            reason = events.said(verdict.error) if verdict.error else ""
            news = events.paused(lane.name, reason, now) if refused else events.resumed(lane.name, now)
            outbox.record(conn, [news], results.HUB)
        if not results.end(conn, call, verdict, now):
            log.warning("call.taken_over", command=call.id, instance=lane.name)

    def _keep(self, work: Callable[[Connection], None]) -> None:
        """Write, for as long as the database is away: what was done must not be forgotten by us."""
        told = False
        while True:
            try:
                return self.ledger.writer.run(work)
            except RetryableError as error:
                if not told:
                    log.warning("result.waits", code=error.code, reason=error.message("en"))
                told = True
                if self.leaving.wait(AGAIN):
                    raise
