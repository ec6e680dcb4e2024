"""The connectors program as users run it, beside a real broker: a home, pushes over HTTP, and what came of them in the log."""

from __future__ import annotations

import http.client
import signal
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from hub.log.event_log import read_to_end
from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.runtime.program import is_ready
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS
from tests.broker.program import Program, until
from tests.kafka_fixture import client_of, let_in
from tests.ports import free_port
from tests.pushing import SECRET, deal, signed
from tests.remade_topics import make_anew

HOME = """
name: stage
kafka: {{bootstrap: "{kafka}"}}
ledger: {ledger}
web: {{host: {host}, port: {port}}}
connectors:
  crm:
    use: http
    receive:
      verify: {{scheme: standard-webhooks, secret: "${{env:CRM_SECRET}}"}}
      events:
        - if: body.type == "deal.won"
          type: crm.opportunity.won
          subject: "opportunity/crm/${{body.deal.id}}"
          version: "${{body.deal.version}}"
          time: "${{body.at}}"
          data:
            name: "${{body.deal.title}}"
            account: "${{body.deal.customer}}"
            amount: "${{decimal(body.deal.amount)}}"
            currency: "${{body.deal.currency}}"
            owner: "${{body.deal.owner}}"
"""
PEOPLE = "people:\n  {id}: {{name: 王芳, accounts: {{crm: U-3}}}}\n"


@dataclass
class Stage:
    """One home and its ledger; programs may be started on it, killed and started again."""

    folder: Path
    kafka: str
    ledger_url: str = "sqlite"
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    programs: list[Program] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        ensure_topics(client_of(self.kafka))
        let_in(self.data, self.kafka)
        self.people("wang.fang")
        self.settings()

    @classmethod
    def anew(cls, folder: Path, kafka: str, ledger_url: str = "sqlite") -> Stage:
        """A stage whose log is its own: a new ledger takes the place of the one that wrote the log before."""
        client = client_of(kafka)
        ensure_topics(client)
        make_anew(client, EVENTS.name, COMMANDS.name)
        return cls(folder, kafka, ledger_url)

    def settings(self, **changed: Any) -> None:
        """Write hub.yaml."""
        told = {"kafka": self.kafka, "ledger": self.ledger_url, "host": self.host, "port": self.port, **changed}
        (self.folder / "hub.yaml").write_text(HOME.format(**told), "utf-8")

    def people(self, id_: str) -> None:
        """Write people.yaml: who has the account U-3."""
        (self.folder / "people.yaml").write_text(PEOPLE.format(id=id_), "utf-8")

    @property
    def data(self) -> Path:
        return self.folder / ".hub"

    @property
    def url(self) -> str:
        """The ledger's."""
        return f"sqlite:///{self.data}/ledger.sqlite" if self.ledger_url == "sqlite" else self.ledger_url

    def start(self, fail: str = "", ready: bool = True, beside: bool = False, patience: float | None = None) -> Program:
        """Start a program; `beside` another it gets a home of its own that shares the ledger, as on another machine."""
        home = Stage(self.folder / "beside", self.kafka, self.url) if beside else self
        command = [sys.executable, "-m", "hub.programs.connectors", "--home", str(home.folder)]
        command += ["--patience", str(patience)] if patience is not None else []
        program = Program(command, {"CRM_SECRET": SECRET, "HUB_FAIL": fail, "HUB_DATA": str(home.data)})
        self.programs.append(program)
        if ready:
            until(
                lambda: is_ready(home.data, "connectors", program.pid) or not program.running,
                "the program is ready",
                60.0,
            )
            assert fail or program.running, program.last_words()
        return program

    def push(self, number: int | str, *, version: int = 7, **more: Any) -> int | None:
        """Push a won deal; the status of the answer, None when none came."""
        body = deal(number, version=version, **more)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", "/webhooks/crm", body, signed(body, f"msg-{number}-{version}"))
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return answer.status

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Ask the program something."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, orjson.loads(answer.read())
        finally:
            connection.close()

    def counts(self) -> dict[str, int]:
        """What the outbox holds."""
        ledger = Ledger(self.url)
        try:
            with ledger.reading() as conn:
                return outbox.counts(conn)
        finally:
            ledger.close()

    def drained(self, seconds: float = 60.0) -> None:
        """Wait until all is relayed."""
        until(lambda: self.counts()["unpublished"] == 0, "the outbox is relayed", seconds)

    def log(self) -> dict[int, list[Event]]:
        """Partition → the events of this stage's ledger, in the order of the log."""
        ledger = Ledger(self.url)
        mine = ledger.outbox_id
        ledger.close()
        log = KafkaLog(client_of(self.kafka))
        told = defaultdict[int, list[Event]](list)
        for batch in read_to_end(log, "hub.events", log.starts("hub.events")):
            for record in batch:
                event = Event.from_json(record.value or b"")
                if event.outbox == mine:
                    assert record.key == event.case.encode()
                    told[record.partition].append(event)
        return told

    def stop_all(self) -> None:
        """End whatever still runs."""
        for program in self.programs:
            program.process.send_signal(signal.SIGCONT)
            program.close()


def check_log(log: dict[int, list[Event]]) -> set[str]:
    """Hold a log to its promise: as a reader counts, no number is missing, and each is one event's. The subjects in it."""
    for events in log.values():
        last, numbered = 0, dict[int, str]()
        for event in events:
            sequence = int(event.sequence or 0)
            assert sequence <= last + 1, f"{last} is followed by {sequence}"
            assert numbered.setdefault(sequence, event.id) == event.id
            last = max(last, sequence)
    return {event.subject for events in log.values() for event in events}
