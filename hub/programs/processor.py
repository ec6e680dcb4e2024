"""The processor program: folds `hub.events` into cases and publishes the resulting commands and events, until SIGTERM.

`python -m hub.programs.processor --home DIR`.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import signal
import sys
from pathlib import Path

import faust
import structlog

from hub.errors import HubError
from hub.home import RULES_ANNOUNCED, RULES_BROKEN, RULES_HISTORY, Home
from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.processor.app import Processor, make_app
from hub.processor.halting import PARTITION_STALL_S
from hub.processor.rule_announcements import RuleAnnouncer
from hub.processor.rule_history import RuleHistory
from hub.processor.stale_writes import CHECK_INTERVAL_S
from hub.programs.starting import open_home, report_error
from hub.rules.book import RuleBook
from hub.runtime.program import begin, mark_ready, raise_file_limit, tune_gc
from hub.runtime.watchdog import Heartbeat, exit_now
from schemas.topics import EVENTS

EXIT_CRASHED = 72
log = structlog.get_logger("hub.processor")


def main(arguments: list[str] | None = None) -> int:
    """Run one worker; returns its exit code."""
    begin()
    parser = argparse.ArgumentParser(prog="python -m hub.programs.processor", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--copy", help="which copy of the worker this is, where a hub runs several; else HUB_COPY's")
    parser.add_argument(
        "--patience",
        type=float,
        default=PARTITION_STALL_S,
        help="seconds without progress after which a worker ends itself",
    )
    parser.add_argument(
        "--looks",
        type=float,
        default=CHECK_INTERVAL_S,
        help="seconds between two checks for stale writes of an expired worker",
    )
    options = parser.parse_args(arguments)
    raise_file_limit()
    try:
        home = open_home("processor", options.home)
        return asyncio.run(serve(home, options.copy or home.copy, options.patience, options.looks))
    except HubError as error:
        return report_error(error)


async def serve(
    home: Home, copy: str, patience: float = PARTITION_STALL_S, stale_check_s: float = CHECK_INTERVAL_S
) -> int:
    """Run until SIGTERM or SIGINT, or until Faust has crashed: then the supervisor starts another worker."""
    store = home.rule_store()
    client = home.kafka_client()
    events = KafkaLog(client)
    # An unavailable log fails here with its error code, not with Faust's traceback.
    await asyncio.to_thread(ensure_topics, client, replication=home.config.kafka.replication)
    await asyncio.to_thread(events.ends, EVENTS.name)
    writer = events.gathering_writer()
    history = await asyncio.to_thread(RuleHistory, events, home.data / RULES_HISTORY)
    book = RuleBook(history.history, home.environ)
    announcer = RuleAnnouncer(
        store, history, book, events, writer, home.data / RULES_ANNOUNCED, home.data / RULES_BROKEN
    )
    rules = await asyncio.to_thread(announcer.begin)
    ready = functools.partial(mark_ready, home.data, "processor")
    processor = Processor(events, rules, writer, ready, history.catch_up, home.config.cases.forgets)
    instance = f"hub-{home.name}-{copy}"
    app = make_app(processor, client, data=home.data, instance=instance, patience=patience, stale_check_s=stale_check_s)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    Heartbeat.of_environment().follow(asyncio.get_running_loop())
    await app.start()
    tune_gc()
    watching = asyncio.create_task(announcer.watch(rules))
    if await until_over(app, stop):
        exit_now(EXIT_CRASHED)  # Faust's parts may hang when they are stopped after a crash
    watching.cancel()
    await app.stop()
    processor.writer.close()
    return 0


async def until_over(app: faust.App, stop: asyncio.Event) -> bool:
    """Wait until `stop` is set; True when the app crashed first."""
    while not stop.is_set():
        if app.crashed or app.should_stop:
            log.error("worker.crashed", reason=repr(app.crash_reason))
            return True
        try:
            await asyncio.wait_for(stop.wait(), 0.25)
        except TimeoutError:
            continue
    return False


if __name__ == "__main__":
    sys.exit(main())
