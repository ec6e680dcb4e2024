"""One call, from SENDING to its end in the ledger. Runs in a thread of the instance's crew and never raises."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Connection

from connectors.executor import events, results
from connectors.executor.lane import Lane
from connectors.executor.verdicts import Call, Failure, Verdict, judge, seen_of
from hub import metrics
from hub.clock import Clock
from hub.connector import Effect, Once, Sends
from hub.errors import HubError, RetryableError, UnreadableError
from hub.failpoints import reach
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from schemas.event import HUB, Event

log = structlog.get_logger(__name__)
AGAIN = 0.5
"""Seconds until a result is written again that the database could not take."""


class TooLateError(Exception):
    """The call's time had run out before it began: another may have it by now."""


@dataclass(frozen=True)
class Ended:
    """How a call ended, to be written. `refused` is True where the instance begins to refuse us, False where that ends."""

    lane: Lane
    call: Call
    verdict: Verdict
    refused: bool | None

    def news(self, now: datetime) -> list[Event]:
        """What is told of the instance."""
        if self.refused is None:
            return []
        reason = events.said(self.verdict.error) if self.verdict.error else ""
        return [events.paused(self.lane.name, reason, now) if self.refused else events.resumed(self.lane.name, now)]


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
        lane.answered(call.id)
        now = self.clock.now()
        verdict = judge(call, ended, now)
        self._keep(Ended(lane, call, verdict, refused))
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
        except UnreadableError as error:
            return Failure(error, looking, unread=lane.unreadable(call.id))
        except HubError as error:
            return Failure(error, looking)
        except TooLateError:
            raise
        except Exception as error:  # its text is not logged: it may hold a secret
            log.error("connector.broke", command=call.id, **seen_of(lane.name, error))
            return Failure(error, looking, lane.crashed(call.id))

    def _write(self, conn: Connection, ended: Sequence[Ended]) -> Sequence[None]:
        """What ends at the same time is written together: a statement costs several times what a row of it does."""
        now = self.clock.now()
        reach("executor.before-done")
        outbox.record(conn, [news for each in ended for news in each.news(now)], HUB)
        written = results.end_all(conn, [(each.call, each.verdict) for each in ended], now)
        for each, ours in zip(ended, written, strict=True):
            if not ours:
                log.warning("call.taken_over", command=each.call.id, instance=each.lane.name)
        return [None] * len(ended)

    def _keep(self, ended: Ended) -> None:
        """Write, for as long as the database is away: what was done must not be forgotten by us."""
        told = False
        while True:
            try:
                return self.ledger.writer.gather(self._write, ended).result()
            except RetryableError as error:
                if not told:
                    log.warning("result.waits", **error.fields())
                told = True
                if self.leaving.wait(AGAIN):
                    raise
