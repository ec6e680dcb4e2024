"""The boards as users meet them: a log in memory, the real runners, the real web on a port of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from hub.health.rhythm import Rhythm
from hub.health.status import HealthStatus
from hub.ledger.ledger import Ledger
from hub.log.event_log import OffsetReader
from hub.log.memory_log import MemoryLog
from hub.projector import registry
from hub.projector.runners import BoardRunners
from hub.projector.store import BoardStore
from hub.web.app import make_app
from hub.web.live import Live
from hub.web.settings import PersonName, WebSettings
from schemas.topics import EVENTS
from tests.board_events import Relay, eventually

PEOPLE = {
    "person/li.lei": PersonName("李雷", {"zh": "交付部", "en": "Delivery"}),
    "person/wang.fang": PersonName("王芳", {"zh": "销售部", "en": "Sales"}),
    "person/han.meimei": PersonName("韩梅梅", {"zh": "财务部", "en": "Finance"}),
}


@dataclass
class Site:
    """A web that runs, and the way to make things happen behind it."""

    url: str
    relay: Relay
    store: BoardStore
    ledger: Ledger
    live: Live


SETTINGS = WebSettings(name="acme", people=PEOPLE, builtin=frozenset({"own"}))


@contextmanager
def serve(
    folder: Path,
    relay: Relay | None = None,
    *,
    runners: bool = True,
    places: OffsetReader | None = None,
    verdict: Callable[[], HealthStatus | None] = lambda: None,
    rhythm: Rhythm | None = None,
) -> Iterator[Site]:
    """Run it until the end of the block; without runners, as a web that others fold for. `places` read the log."""
    store, live = BoardStore(f"sqlite:///{folder}/boards.sqlite"), Live(registry.boards())
    ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite")
    sender = relay or Relay(MemoryLog())
    crew = BoardRunners(sender.log, store, registry.all_projections().values(), live.on_commit)
    if runners:
        crew.start()
    else:
        store.prepare(registry.all_projections().values())
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        make_app(SETTINGS, store, ledger, live, places or sender.log.places(EVENTS.name), verdict, rhythm),
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", sender, store, ledger, live)
    finally:
        live.close()
        server.should_exit = True
        thread.join(10)
        crew.stop()
        store.close()
        ledger.close()
        listener.close()
    assert crew.error is None, crew.error
