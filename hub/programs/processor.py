"""The processor: folds `hub.events` into cases and sends what follows, until SIGTERM.

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

from hub.config.home import RULES_BROKEN, RULES_HISTORY, RULES_TOLD, Home
from hub.errors import HubError
from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.processor.app import Processor, make_app
from hub.processor.halting import PATIENCE
from hub.processor.rule_announcements import RuleNews
from hub.processor.rule_history import RuleHistory
from hub.processor.stale_writes import EVERY
from hub.rules.book import RuleBook
from hub.runtime.logs import configure
from hub.runtime.program import begin, collect_seldom, keep_private, raise_file_limit, say_ready
from hub.runtime.watchdog import Heart, exit_now
from schemas.topics import EVENTS

EXIT_CRASHED = 72
log = structlog.get_logger("hub.processor")


def main(arguments: list[str] | None = None) -> int:
    """Run one worker; its exit code."""
    begin()
    parser = argparse.ArgumentParser(prog="python -m hub.programs.processor", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--copy", help="which copy of the worker this is, where a hub runs several; else HUB_COPY's")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, help="seconds without headway after which a worker ends itself"
    )
    parser.add_argument(
        "--looks", type=float, default=EVERY, help="seconds between two looks for what a sleeper says late"
    )
    chosen = parser.parse_args(arguments)
    raise_file_limit()
    try:
        home = Home.load(chosen.home)
        configure("worker", home.secrets)
        keep_private(home.data)
        return asyncio.run(serve(home, chosen.copy or home.copy, chosen.patience, chosen.looks))
    except HubError as error:
        sys.stderr.write(f"{error.code} {error.message()}\n  → {error.fix()}\n")
        return 1


async def serve(home: Home, copy: str, patience: float = PATIENCE, looks: float = EVERY) -> int:
    """Run until told to stop, or until Faust has crashed: then the supervisor starts another."""
    store = home.rule_store()
    client = home.kafka_client()
    events = KafkaLog(client)
    # A log that is away is told of here by its code, not by Faust's traceback.
    await asyncio.to_thread(ensure_topics, client, replication=home.config.kafka.replication)
    await asyncio.to_thread(events.ends, EVENTS.name)
    writer = events.gathering_writer()
    history = await asyncio.to_thread(RuleHistory, events, home.data / RULES_HISTORY)
    book = RuleBook(history.history, home.environ)
    news = RuleNews(store, history, book, events, writer, home.data / RULES_TOLD, home.data / RULES_BROKEN)
    judged = await asyncio.to_thread(news.begin)
    ready = functools.partial(say_ready, home.data, "worker")
    processor = Processor(events, judged, writer, ready, history.catch_up, home.config.cases.forgets)
    instance = f"hub-{home.name}-{copy}"
    app = make_app(processor, client, data=home.data, instance=instance, patience=patience, looks=looks)
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    Heart.of_environment().follow(asyncio.get_running_loop())
    await app.start()
    collect_seldom()
    watching = asyncio.create_task(news.watch(judged))
    if await until_over(app, told):
        exit_now(EXIT_CRASHED)  # Faust's parts may hang when they are stopped after a crash
    watching.cancel()
    await app.stop()
    processor.writer.close()
    return 0


async def until_over(app: faust.App, told: asyncio.Event) -> bool:
    """Wait until told to stop; True when the app has crashed first."""
    while not told.is_set():
        if app.crashed or app.should_stop:
            log.error("worker.crashed", reason=repr(app.crash_reason))
            return True
        try:
            await asyncio.wait_for(told.wait(), 0.25)
        except TimeoutError:
            continue
    return False


if __name__ == "__main__":
    sys.exit(main())
