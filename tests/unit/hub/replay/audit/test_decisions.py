"""`hub audit --decisions`: the log under its own rules gives every recorded request, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from sqlalchemy import delete

from hub.ledger import commands, positions
from hub.ledger.ledger import Ledger
from hub.replay.audit.decisions import compare
from hub.replay.audit.report import Report
from hub.rules.book import RuleBook
from schemas.envelope import Command
from schemas.topics import COMMANDS
from tests.events import AT, command, event, won
from tests.unit.hub.processor.rule_stage import TASK, Stage
from tests.unit.hub.processor.test_in_force import crashing, deals

EXTRA = "requests that the log's own rules do not give"
MISSING = "requests that the log's own rules give, and the ledger lacks"


class Audited(Stage):
    """A stage whose requests are taken into a ledger."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite")

    def accept(self) -> None:
        told = [
            (Command.from_json(r.value or b""), r.value or b"")
            for (topic, _), found in self.log.records.items()
            for r in found
            if topic == COMMANDS.name and b'"record"' not in (r.value or b"")
        ]

        def work(conn: object) -> None:
            commands.accept_all(conn, told, AT)  # type: ignore[arg-type]
            held = {p: positions.claim(conn, "executor", COMMANDS.name, p) for p in range(12)}  # type: ignore[arg-type]
            positions.advance(conn, held, self.log.ends(COMMANDS.name))  # type: ignore[arg-type]

        self.ledger.writer.run(work)
        self.relay()

    def audit(self) -> Report:
        report = Report()
        with self.ledger.reading() as conn:
            compare(report, self.log, conn, RuleBook(self.history(), {}))
        return report


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Audited]:
    made = Audited(tmp_path)
    yield made
    made.ledger.close()


def found(report: Report) -> dict[str, int]:
    return {finding.what: finding.count for finding in report.findings}


def changed(stage: Audited) -> None:
    """Deals under one set of rules, then under another."""
    home = stage.home(won=TASK % "a", gone=TASK % "g")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.home(won="if: event.subject.endsWith('7')\n" + TASK % "c", more=TASK % "m")
    (home / "rules" / "gone.yaml").unlink()
    worker.look()
    stage.append(deals(100))
    stage.append([event("crm.opportunity.changed", f"opportunity/crm/O-{n}", version="9") for n in range(10)])
    worker.fold(7)
    stage.accept()


def test_every_request_is_given_and_no_more(stage: Audited) -> None:
    changed(stage)
    report = stage.audit()
    assert found(report) == {}
    assert report.counts["requests_given"] == report.counts["requests_recorded"] == 2 * 30 + 3 + 30


def test_what_is_too_much_and_what_is_missing_is_found(stage: Audited) -> None:
    changed(stage)
    some = next(iter(stage.commands()))
    odd = command(won("O-1"))

    def work(conn: object) -> None:
        conn.execute(delete(commands.commands).where(commands.commands.c.id == some))  # type: ignore[attr-defined]
        commands.accept(conn, odd, orjson.dumps(odd.model_dump()), AT)  # type: ignore[arg-type]

    stage.ledger.writer.run(work)
    report = stage.audit()
    assert found(report) == {MISSING: 1, EXTRA: 1}
    assert report.findings[0].examples == (some,)
    assert odd.id in report.findings[1].examples[0]


def test_what_is_on_its_way_is_no_finding(stage: Audited) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.accept()
    stage.append(deals(100))
    worker.fold()  # folded, and the executor has read nothing of it
    stage.append(deals(200))  # not folded
    assert found(stage.audit()) == {}


def test_a_chunk_that_two_sets_judged_is_explained_by_both(stage: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    home = stage.home(won=TASK % "a", gone=TASK % "g")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.append(deals(100))
    with crashing(monkeypatch, "worker.outputs-delivered"), pytest.raises(Exception, match="worker"):
        worker.fold()
    (home / "rules" / "gone.yaml").unlink()
    stage.worker(home).fold()
    stage.accept()
    assert found(stage.audit()) == {}


def test_a_chunk_of_a_large_case_that_two_sets_judged_is_explained_by_both(
    stage: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.processor.state.LARGE_CASE_BYTES", 200)
    case, ref = "opportunity/crm/O-1", "account/crm/A"
    knows = f"if: case.entities['{ref}'].data.level == 'a' && case.entities['{case}'].stage == 'won'\n"
    home = stage.home(gone=knows + TASK % "g")
    worker = stage.worker(home)
    stage.append([event("crm.account.changed", ref, case=case, data={"level": "b"})])
    for n in range(10):
        stage.append([event("work.task.created", f"task/pm/{n}", case=case, data={"title": "x" * 100})])
        worker.fold()
    stage.accept()
    worker.fold()
    # The account's new level and the won deal are judged by a worker that ends before anybody knows that they were.
    stage.append(
        [event("crm.account.changed", ref, case=case, version="2", data={"level": "a"}), won("O-1", case=case)]
    )
    with crashing(monkeypatch, "worker.outputs-delivered"), pytest.raises(Exception, match="worker"):
        worker.fold()
    (home / "rules" / "gone.yaml").unlink()
    stage.home(more=TASK % "m")
    stage.worker(home).fold()
    stage.accept()
    assert sorted(each["rule"] for each in stage.commands().values()) == ["gone", "more"], stage.notes("parked")
    assert found(stage.audit()) == {}


def test_what_unknown_rules_have_asked_for_is_only_counted(stage: Audited) -> None:
    home = stage.home(won=TASK % "a")
    worker = stage.worker(home)
    stage.append(deals())
    worker.fold()
    stage.accept()
    for partition in range(12):  # as if a version had judged that wrote of no rules
        for topic in ("hub.events", COMMANDS.name):
            kept = [r for r in stage.log.records[topic, partition] if r.key != b"rules/hub"]
            stage.log.records[topic, partition] = [r._replace(offset=at) for at, r in enumerate(kept)]
    stage.relayed = 0
    (home / ".hub" / "rules-told.json").unlink()
    (home / ".hub" / "rules-history.json").unlink(missing_ok=True)
    stage.committed = {p: len(stage.log.records["hub.events", p]) for p in range(12)}
    worker = stage.worker(home)
    stage.append(deals(100))
    worker.fold()
    stage.accept()
    report = stage.audit()
    assert found(report) == {}
    assert report.counts["requests_of_unknown_rules"] == 30
    assert report.counts["requests_given"] == 30
