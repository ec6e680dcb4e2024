"""The projector program: folds the log into boards and serves them, until SIGTERM.

`python -m hub.programs.projector --home DIR [--socket PATH]`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from hub.errors import FatalError, HubError
from hub.health.watch import watch_of
from hub.home import Home
from hub.ledger.database import DAMAGED, set_aside
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog
from hub.log.kafka_log import KafkaLog
from hub.programs.starting import open_home, report_error
from hub.projector import log_history, registry
from hub.projector.leftovers import remove_leftovers
from hub.projector.runners import BoardRunners
from hub.projector.store import BoardStore
from hub.runtime import files
from hub.runtime.program import begin, mark_ready, raise_file_limit
from hub.runtime.watchdog import HANG_TIMEOUT_S, Heartbeat, follow
from hub.web.app import make_app
from hub.web.live import Live
from hub.web.pages import PeopleFile
from hub.web.settings import WebSettings
from schemas.topics import EVENTS

log = structlog.get_logger("hub.projector")


def main(arguments: list[str] | None = None) -> int:
    """Run the boards of one home; returns the exit code."""
    begin()
    parser = argparse.ArgumentParser(prog="python -m hub.programs.projector", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--socket", type=Path, help="serve on this Unix socket, behind the hub's web server")
    parser.add_argument(
        "--patience",
        type=float,
        default=HANG_TIMEOUT_S,
        help="seconds for one piece of a thread's work, after which it counts as hung",
    )
    options = parser.parse_args(arguments)
    raise_file_limit()
    try:
        home = open_home("projector", options.home)
        return serve(home, options.socket, options.patience)
    except HubError as error:
        return report_error(error)


def settings_of(home: Home) -> WebSettings:
    """The settings of the web pages, from a home."""
    builtin = frozenset(name for name, entry in home.config.connectors.items() if entry.use == "builtin")
    return WebSettings(
        name=home.name,
        language=home.config.language,
        timezone=home.config.timezone,
        people=PeopleFile(home.path / "people.yaml"),
        builtin=builtin,
    )


def serve(home: Home, path: Path | None, patience: float = HANG_TIMEOUT_S) -> int:
    """Run until SIGTERM or SIGINT; returns 1, or raises a HubError, when a board failed. Moves a damaged store aside first."""
    try:
        return _serve(home, path, patience)
    except FatalError as error:
        if error.code == DAMAGED and error.seen["url"] == home.boards_url:
            log.error("boards.set_aside", code=error.code, reason=error.message(), to=str(set_aside(home.boards_url)))
        raise


def _serve(home: Home, path: Path | None, patience: float) -> int:
    store, ledger, live = BoardStore(home.boards_url), Ledger(home.ledger_url), Live(registry.boards())
    address, watch = home.web_address if path is None else None, watch_of(home, ledger)
    events, stop = KafkaLog(home.kafka_client()), threading.Event()
    offset_reader = events.places(EVENTS.name)
    config = _config(
        address, make_app(settings_of(home), store, ledger, live, offset_reader, watch.status, watch.rhythm)
    )
    server = Server(config, live, lambda: mark_ready(home.data, "projector"), patience)
    runners = BoardRunners(events, store, registry.all_projections().values(), live.on_commit, failed=server.end)

    def end() -> None:
        stop.set()
        server.end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end())
    try:
        _await_known_log(store, events, ledger, stop, end)
        runners.start()
        threading.Thread(
            target=remove_leftovers, args=(store, registry.all_projections(), stop), name="leftovers", daemon=True
        ).start()
        watch.start()
        # Not earlier: until this server listens, the proxy responds that the boards are starting.
        server.run(None if path is None else [files.listening_socket(path)])
    finally:
        stop.set()
        watch.stop()
        runners.stop()
        offset_reader.close()
        store.close()
        ledger.close()
    if isinstance(runners.error, HubError):
        raise runners.error
    if runners.error is not None:
        log.error("boards.failed", exc_info=runners.error)
    return 0 if runners.error is None else 1


def _await_known_log(
    store: BoardStore, events: EventLog, ledger: Ledger, stop: threading.Event, end: Callable[[], None]
) -> None:
    """Fold only the hub's own log. When that is replaced later, the program ends, and the supervisor restarts it."""
    store.prepare()

    def known() -> log_history.LogHistory | None:
        return log_history.ledger_history(ledger)

    log_history.await_known_log(store, events, known, registry.all_projections().values(), stop)
    threading.Thread(target=log_history.watch, args=(store, known, end, stop), name="history", daemon=True).start()


def _config(address: tuple[str, int] | None, app: FastAPI) -> uvicorn.Config:
    """uvicorn's settings. Without an address it serves on sockets that are passed to `run`."""
    host, port = address or ("", 0)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


class Server(uvicorn.Server):
    """A uvicorn server that closes the pages' event streams when it ends, and marks the program as ready."""

    def __init__(
        self, config: uvicorn.Config, live: Live, ready: Callable[[], None], patience: float = HANG_TIMEOUT_S
    ) -> None:
        super().__init__(config)
        self.live, self.ready, self.patience = live, ready, patience

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        Heartbeat.of_environment().follow(asyncio.get_running_loop())
        follow(asyncio.get_running_loop(), self.patience)
        await super().startup(sockets)
        if self.started:
            self.ready()

    def end(self) -> None:
        """Stop serving; may be called from any thread."""
        self.live.close()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal while serving; a second SIGINT does not wait for open connections."""
        self.live.close()
        super().handle_exit(sig, frame)


if __name__ == "__main__":
    sys.exit(main())
