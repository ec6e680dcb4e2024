"""`hub audit` in words: what was found, in both languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hub.replay.audit
from hub.cli import audit, terminal
from hub.cli.audit import FINDINGS, NOT_FOUND_OUTSIDE, UNANSWERED
from hub.home import Home
from tests.unit.hub.cli.conftest import Hub

EQUAL = {
    "board": "tasks",
    "records": 9,
    "rows": 3,
    "built": "a",
    "live": "a",
    "equal": True,
    "differing": [],
    "differing_count": 0,
}
OTHER = {**EQUAL, "live": "b", "equal": False, "differing": ["task/pm/T-1"], "differing_count": 1}
REPORT = {"ok": True, "counts": {"accepted": 9, "in_the_log": 9}, "findings": [], "boards": [EQUAL]}


def test_every_finding_of_the_audit_is_known_in_chinese() -> None:
    sources = Path(hub.replay.audit.__path__[0]).glob("*.py")
    told = {
        found.strip()
        for source in sources
        for found in re.findall(r'report\.find\(\s*f?"([^"{]+)', source.read_text("utf-8"))
    }
    assert len(told) >= 20
    assert told | {"boards that are not the fold of the log", NOT_FOUND_OUTSIDE, UNANSWERED} == set(FINDINGS)


def test_a_balance_that_holds_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "all holds" in "\n".join(audit.lines(REPORT))
    findings = [
        {
            "what": "gaps in the sequence of partition 3",
            "count": 1,
            "examples": ["000000000007"],
            "place": "hub.events/3",
        }
    ]
    shown = "\n".join(audit.lines({**REPORT, "ok": False, "findings": findings, "boards": [OTHER]}))
    assert "✘ gaps in the sequence of partition 3: 1  000000000007" in shown
    assert "hub.events/3 → close the gap: hub repair" in shown
    assert "differs from the log in 1 rows → hub rebuild tasks" in shown
    assert "all holds" not in shown
    monkeypatch.setattr(terminal.speech, "language", "zh-CN")
    assert "序号有缺口，分区 3" in "\n".join(audit.lines({**REPORT, "ok": False, "findings": findings}))


def test_what_outside_systems_say_is_part_of_the_balance(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    gone = {"command": "c-1", "type": "task.create", "case": "opportunity/crm/O-7", "id": "T-9"}
    told = {"instance": "pm", "found": 7, "missing": [gone], "unanswered": 2, "unasked": 1, "young": 0}
    asked: list[str] = []

    def ask(module: str, arguments: list[str], _known: object) -> Iterator[dict[str, object]]:
        asked.append(f"{module} {arguments[-1]}")
        yield {"outside": {**told, "error": {"code": "HUB-E4001"}}}

    balance = {**REPORT, "findings": []}
    monkeypatch.setattr("hub.cli.other_programs.ask", ask)
    monkeypatch.setattr(audit, "_of_log_and_ledger", lambda *_, **_more: balance)
    monkeypatch.setattr(audit, "_boards", lambda *_: iter([EQUAL]))
    report = audit.full_audit(Home.load(home), "127.0.0.1:1", "2026-11-21T00:00:00Z")
    assert asked == ["hub.ops.reconciling 2026-11-21T00:00:00Z"]
    assert not report["ok"]
    shown = "\n".join(audit.lines(report))
    assert "outside pm: found 7  missing 1  unanswered 2" in shown
    assert "✘ done, but not found in its system: 1  opportunity/crm/O-7 task.create T-9" in shown
    assert "✘ done, and its system gave no answer: 2  HUB-E4001" in shown


@pytest.mark.parametrize("command", [("audit",), ("rebuild", "tasks"), ("events", "tail")])
def test_a_hub_that_does_not_run_is_said_so(home: Path, hub: Hub, command: tuple[str, ...]) -> None:
    ran = hub(*command, "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (5, "HUB-E2011")


def test_what_was_told_with_other_content_is_a_note_and_no_failure() -> None:
    shown = list(audit.lines({**REPORT, "counts": {"accepted": 9, "conflicts": 3}}))
    assert any(
        "! delivered again with other content, the first counts: 3" in line and "events conflicts" in line
        for line in shown
    )
    assert "all holds" in shown[-1]


def test_the_last_line_names_what_is_not_processed_yet() -> None:
    waiting = {**REPORT, "counts": {"accepted": 9, "in_the_log": 9, "cases_behind": 1}}
    *_, last = audit.lines(waiting)
    assert last == "  ! all holds so far, and not all is processed yet: cases behind 1"
    stalled = {"status": "stalled", "sentence": "The rules have stood still for 20 s; 1 won deal is waiting"}
    *_, last = audit.lines({**waiting, "health": stalled})
    assert last.startswith("  ✘ all holds so far, and not all is processed yet: cases behind 1  The rules have stood")
    *_, last = audit.lines({**REPORT, "health": {"status": "ok", "sentence": "All is moving"}})
    assert "all holds: nothing lost" in last
