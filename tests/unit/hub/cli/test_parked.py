"""`hub parked`: listed by cause, shown with bytes, asked for where the programs look."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection

from hub.home import Home
from hub.ledger import commands, outbox, parked, refused
from hub.ledger.ledger import Ledger
from hub.ledger.refused import Reason, Refusal
from schemas.envelope import Command, Event
from tests.events import AT, command, won
from tests.unit.hub.cli.conftest import Hub

DEAL = "opportunity/crm/O-1"
BROKEN = {"instance": "crm", "reason": "KeyError"}


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    opened = Ledger(Home.load(home).ledger_url)
    yield opened
    opened.close()


def aside(ledger: Ledger, ref: str, kind: str = "event", **more: Any) -> int:
    """Park something; its number."""
    row = {
        "ref": ref, "kind": kind, "case_id": DEAL, "subject": DEAL, "code": "HUB-E3140", "seen": {"role": "chief", "near": "lead"},
        "place": "rules/won_deal.yaml:7:30", "rule": "won", "body": b'{"a": 1}', "parked_at": AT, **more,
    }  # fmt: skip
    ledger.writer.run(lambda conn: parked.park(conn, row))
    with ledger.reading() as conn:
        found = parked.find(conn, ref)
    assert found is not None
    return int(found.id)


def parked_command(ledger: Ledger, number: int, **arguments: Any) -> None:
    asked = command(won(f"O-{number}"), **arguments)

    def work(conn: Connection) -> None:
        table = commands.commands
        commands.accept(conn, asked, asked.to_json(), AT)
        conn.execute(table.update().where(table.c.id == asked.id).values(state="PARKED"))

    ledger.writer.run(work)
    aside(ledger, f"command/{asked.id}", "command", case_id=asked.case, body=asked.to_json())


def recorded(ledger: Ledger, type_: str) -> list[Event]:
    with ledger.reading() as conn:
        rows = conn.execute(outbox.outbox.select().where(outbox.outbox.c.type == type_)).all()
    return [Event.from_json(row.body) for row in rows]


def state(ledger: Ledger, ref: str) -> str:
    with ledger.reading() as conn:
        found = parked.find(conn, ref)
    assert found is not None
    return str(found.state)


def test_nothing_is_parked_where_nothing_ever_ran(home: Path, hub: Hub) -> None:
    ran = hub("parked", "list", "--home", home, "--json")
    assert (ran.code, ran.json, hub("parked", "--home", home).code) == (0, [], 0)
    assert not (home / ".hub").exists()


def test_entries_of_one_cause_stand_together(home: Path, hub: Hub, ledger: Ledger) -> None:
    for number in range(3):
        aside(ledger, f"event/e{number}", subject=f"opportunity/crm/O-{number}")
    aside(ledger, "delivery/crm/1", "delivery", code="HUB-E6105", seen=BROKEN, place=None, rule=None, instance="crm")
    ran = hub("parked", "--home", home)
    told = ran.out
    assert (ran.code, hub("parked", "list", "--home", home).code) == (6, 6)
    assert told.count("nobody holds the role 'chief'") == 1
    assert "3 entries" in told
    assert "did you mean lead?" in told
    assert told.index("HUB-E3140") < told.index("HUB-E6105")
    answer = hub("parked", "--home", home, "--json").json
    assert (answer["count"], [cause["count"] for cause in answer["causes"]]) == (4, [3, 1])
    assert answer["causes"][0]["example"]["ref"] == "event/e0"
    assert hub("parked", "--connector", "crm", "--home", home, "--json").json["count"] == 1
    assert hub("parked", "--limit", 1, "--home", home, "--json").json["more"] == 1
    name = answer["causes"][1]["cause"]
    assert [one["ref"] for one in hub("parked", "list", "--cause", name, "--home", home, "--json").json] == [
        "delivery/crm/1"
    ]
    ran = hub("parked", "list", "--cause", "nothing", "--home", home)
    assert ran.error and ran.error.code == "HUB-E6208"


def test_the_list_is_filtered_and_paged(home: Path, hub: Hub, ledger: Ledger) -> None:
    for number in range(5):
        aside(ledger, f"event/e{number}", rule="even" if number % 2 == 0 else "odd")
    first = hub("parked", "list", "--limit", 2, "--home", home, "--json").json
    assert [one["ref"] for one in first] == ["event/e0", "event/e1"]
    then = hub("parked", "list", "--limit", 2, "--after", first[-1]["id"], "--home", home, "--json").json
    assert [one["ref"] for one in then] == ["event/e2", "event/e3"]
    assert f"--after {first[-1]['id']}" in hub("parked", "list", "--limit", 2, "--home", home).out
    assert len(hub("parked", "list", "--rule", "odd", "--home", home, "--json").json) == 2
    assert hub("parked", "list", "--case", "opportunity/crm/O-9", "--home", home, "--json").json == []
    assert len(hub("parked", "list", "--since", AT, "--home", home, "--json").json) == 5
    assert hub("parked", "list", "--since", "2999-01-01", "--home", home, "--json").json == []
    assert hub("parked", "list", "--state", "done", "--home", home, "--json").json == []
    ran = hub("parked", "list", "--since", "noon", "--home", home)
    assert ran.error and ran.error.code == "HUB-E6209"


def test_an_entry_is_found_by_number_ref_and_id(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "event/e1")
    for name in (number, "event/e1", "e1"):
        assert hub("parked", "show", name, "--home", home, "--json").json["ref"] == "event/e1"
    told = hub("parked", "show", number, "--home", home).out
    assert '"a": 1' in told
    assert "rules/won_deal.yaml:7:30" in told
    ran = hub("parked", "show", "e2", "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (1, "HUB-E6203")


def test_a_case_is_asked_for_once_and_stays_parked_until_the_hub_runs(home: Path, hub: Hub, ledger: Ledger) -> None:
    aside(ledger, "event/e1")
    aside(ledger, "event/e2", code="HUB-E6010", seen={"behind": "e1"}, place=None, rule=None)
    ran = hub("parked", "retry", "--all", "--by", "li.lei", "--home", home, "--json")
    assert ran.code == 6
    assert [entry["ref"] for entry in ran.json["parked"]] == ["event/e1", "event/e2"]
    (asked,) = recorded(ledger, "hub.parked.retried")
    assert (asked.subject, asked.case, asked.data) == (DEAL, DEAL, {"parked": "e1", "reason": None, "by": "li.lei"})


def test_a_record_of_a_case_is_named_by_its_whole_ref(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "record/hub.events/3/7", subject=None)
    assert hub("parked", "discard", number, "--reason", "junk", "--home", home).code == 6
    (asked,) = recorded(ledger, "hub.parked.discarded")
    assert asked.data["parked"] == "record/hub.events/3/7"
    assert asked.case == DEAL


@pytest.mark.parametrize("case", [None, "no reference"])
def test_what_belongs_to_no_case_can_only_be_discarded(home: Path, hub: Hub, ledger: Ledger, case: str | None) -> None:
    number = aside(ledger, "record/hub.events/3/7", case_id=case, subject=None)
    ran = hub("parked", "retry", number, "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (1, "HUB-E6205")
    assert hub("parked", "retry", "--all", "--home", home, "--json").json["asked"] == 0
    assert hub("parked", "discard", number, "--reason", "junk", "--home", home).code == 0
    assert state(ledger, "record/hub.events/3/7") == "discarded"
    (told,) = recorded(ledger, "hub.parked.discarded")
    assert (told.subject, told.data["reason"]) == ("record/hub.events/3/7", "junk")
    ran = hub("parked", "discard", number, "--reason", "again", "--home", home)
    assert ran.error and ran.error.code == "HUB-E6204"


def test_a_command_is_reopened_or_given_up(home: Path, hub: Hub, ledger: Ledger) -> None:
    for number in (1, 2):
        parked_command(ledger, number)
    first, second = (command(won(f"O-{number}")).id for number in (1, 2))
    ran = hub("parked", "retry", first, "--home", home, "--json")
    assert (ran.code, ran.json["working"]) == (0, [first])
    assert hub("parked", "discard", second, "--reason", "no", "--home", home).code == 0
    with ledger.reading() as conn:
        rows = [commands.get(conn, each) for each in (first, second)]
    assert [row.state for row in rows if row is not None] == ["NEW", "DISCARDED"]


def test_a_delivery_is_marked_for_the_program_that_keeps_it(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "delivery/crm/1", "delivery", instance="crm", case_id=None)
    assert hub("parked", "retry", number, "--by", "me", "--home", home).code == 6
    with ledger.reading() as conn:
        row = parked.get(conn, number)
    assert row is not None
    assert (row.asked, row.asked_by) == ("retry", "me")


def test_which_entries_must_be_said(home: Path, hub: Hub) -> None:
    assert hub("parked", "retry", "--home", home).code == 2
    assert hub("parked", "retry", "1", "--all", "--home", home).code == 2


def test_show_tells_attempts_what_waits_and_masks_secrets(home: Path, hub: Hub, ledger: Ledger) -> None:
    (home / "rules" / "won_deal.yaml").write_text("\n" * 6 + "if: event.data.amount > 1\n", "utf-8")
    body = b'{"id": "e1", "data": {"amount": "1", "api_key": "hunter2", "nested": [{"password": "hunter2"}]}}'
    number = aside(ledger, "event/e1", body=body, mark=1)
    aside(ledger, "event/e1", code="HUB-E6005", seen={"reason": "KeyError"}, mark=2)
    aside(ledger, "event/e2", code="HUB-E6010", seen={"behind": "e1"}, place=None, rule=None)
    told = hub("parked", "show", number, "--home", home, "--json").json
    assert [(one["number"], one["code"]) for one in told["attempts"]] == [(1, "HUB-E3140"), (2, "HUB-E6005")]
    assert told["source"] == "if: event.data.amount > 1"
    assert (told["waiting"]["count"], told["waiting"]["entries"][0]["ref"]) == (1, "event/e2")
    out = hub("parked", "show", number, "--home", home).out
    assert "hunter2" not in out + told["body"]
    assert '"amount": "1"' in out
    assert "try 2" in out


def sound(**more: Any) -> bytes:
    return won(**more).to_json()


def test_an_event_is_corrected_once_and_keeps_its_bytes(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, f"event/{won().id}", body=sound())
    edit = ("parked", "edit", number, "--set", "data.amount=12", "--by", "li.lei", "--reason", "typo", "--home", home)
    asked = hub(*edit)
    assert asked.code == 1, "nobody answered the question"
    assert "--yes" in asked.out
    assert "Abort" not in asked.out
    assert recorded(ledger, "hub.parked.edited") == []
    assert '+    "amount": "12"' in asked.out
    assert hub(*edit, "--yes").code == 0
    (told,) = recorded(ledger, "hub.parked.edited")
    assert (told.case, told.data["parked"], told.data["by"], told.data["reason"]) == (DEAL, won().id, "li.lei", "typo")
    assert told.data["event"]["data"]["amount"] == "12"
    again = hub(*edit, "--yes")
    assert again.error and again.error.code == "HUB-E6214"
    shown = hub("parked", "show", number, "--home", home, "--json").json
    assert (shown["edits"], '"amount": "880000"' in shown["body"], '"amount": "12"' in shown["correction"]) == (
        1,
        True,
        True,
    )
    assert [done["what"] for done in shown["done"]] == ["edited"]


def test_a_file_replaces_the_whole_of_a_poison_record(home: Path, hub: Hub, ledger: Ledger, tmp_path: Path) -> None:
    number = aside(ledger, "record/hub.events/0/0", body=b"{", subject=None)
    (tmp_path / "right.json").write_bytes(sound())
    assert hub("parked", "edit", number, "--file", tmp_path / "right.json", "--yes", "--home", home).code == 0
    (told,) = recorded(ledger, "hub.parked.edited")
    assert Event.model_validate(told.data["event"]) == won()


def test_the_editor_sees_no_secrets_and_takes_none_away(
    home: Path, hub: Hub, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\nfile = pathlib.Path(sys.argv[1])\ntext = file.read_text('utf-8')\n"
        "assert 'hunter2' not in text\nfile.write_text(text.replace('880000', '7'), 'utf-8')\n",
        "utf-8",
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    monkeypatch.delenv("VISUAL", raising=False)
    number = aside(ledger, f"event/{won().id}", body=sound(data={**won().data, "token": "hunter2"}))
    ran = hub("parked", "edit", number, "--yes", "--home", home)
    assert (ran.code, "hunter2" in ran.out) == (0, False)
    (told,) = recorded(ledger, "hub.parked.edited")
    assert (told.data["event"]["data"]["amount"], told.data["event"]["data"]["token"]) == ("7", "hunter2")
    monkeypatch.setenv("EDITOR", str(tmp_path / "none"))
    ran = hub("parked", "edit", number, "--yes", "--home", home)
    assert ran.error and ran.error.code == "HUB-E6213"


@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ("id=another", "HUB-E6212"), ("partitionkey=opportunity/crm/O-2", "HUB-E6212"), ("data.currency=yuan", "HUB-E6212"),
        ("data.name", "HUB-E6210"), ("id.x=1", "HUB-E6210"), ("time=noon", "HUB-E6212"), ("data.amount=880000", "HUB-E6214"),
    ],
)  # fmt: skip
def test_a_correction_that_cannot_be_is_not_recorded(
    home: Path, hub: Hub, ledger: Ledger, setting: str, code: str
) -> None:
    number = aside(ledger, f"event/{won().id}", body=sound())
    ran = hub("parked", "edit", number, "--set", setting, "--yes", "--home", home)
    assert ran.error and ran.error.code == code
    assert recorded(ledger, "hub.parked.edited") == []


def test_a_corrected_command_is_sent_under_its_own_id(home: Path, hub: Hub, ledger: Ledger) -> None:
    asked = command(won(), title="T")
    parked_command(ledger, 1, title="T")
    ran = hub("parked", "edit", asked.id, "--set", "type=task.update", "--yes", "--home", home)
    assert ran.error and ran.error.code == "HUB-E6212"
    assert hub("parked", "edit", asked.id, "--set", "arguments.title=T2", "--yes", "--home", home).code == 0
    (told,) = hub("parked", "preview", asked.id, "--home", home, "--json").json
    assert (told["outcome"], told["commands"][0]["arguments"]) == ("sends", {"title": "T2"})
    assert hub("parked", "retry", asked.id, "--home", home).code == 0
    with ledger.reading() as conn:
        row = commands.get(conn, asked.id)
    assert row is not None
    assert (row.state, Command.from_json(row.body)) == ("NEW", command(won(), title="T2"))
    assert [event.data["arguments"] for event in recorded(ledger, "hub.parked.edited")] == [{"title": "T2"}]


def test_a_record_without_a_case_enters_the_log_as_it_was_corrected(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "record/hub.events/3/7", case_id=None, subject=None, body=sound(subject=DEAL), rule=None)
    assert hub("parked", "edit", number, "--set", "data.amount=5", "--yes", "--home", home).code == 0
    assert hub("parked", "retry", number, "--home", home).code == 0
    assert state(ledger, "record/hub.events/3/7") == "done"
    (told,) = recorded(ledger, "crm.opportunity.won")
    assert (told.id, told.data["amount"]) == (won().id, "5")


def test_who_asks_twice_has_asked_once_until_it_fails_again(home: Path, hub: Hub, ledger: Ledger) -> None:
    aside(ledger, "event/e1", mark=1)
    for _ in range(2):
        hub("parked", "retry", "e1", "--home", home)
    assert len(recorded(ledger, "hub.parked.retried")) == 1
    aside(ledger, "event/e1", mark=2)
    hub("parked", "retry", "e1", "--home", home)
    assert len(recorded(ledger, "hub.parked.retried")) == 2


def test_a_cause_is_retried_as_a_whole(home: Path, hub: Hub, ledger: Ledger) -> None:
    for number in range(3):
        aside(ledger, f"event/e{number}", case_id=f"opportunity/crm/O-{number}")
    aside(ledger, "event/other", case_id="opportunity/crm/O-9", code="HUB-E6005", seen={"reason": "x"})
    ran = hub("parked", "retry", "--cause", "HUB-E3140", "--home", home, "--json")
    assert (ran.code, ran.json["asked"]) == (6, 3)
    assert [event.case for event in recorded(ledger, "hub.parked.retried")] == [
        f"opportunity/crm/O-{n}" for n in range(3)
    ]


def test_several_are_discarded_with_one_reason(home: Path, hub: Hub, ledger: Ledger) -> None:
    numbers = [aside(ledger, f"record/hub.events/3/{n}", case_id=None, subject=None) for n in range(2)]
    assert hub("parked", "discard", *numbers, "--reason", " ", "--home", home).code == 2
    assert hub("parked", "discard", *numbers, "--reason", "junk", "--home", home).code == 0
    assert [event.data["reason"] for event in recorded(ledger, "hub.parked.discarded")] == ["junk", "junk"]
    assert hub("parked", "--home", home, "--json").json["count"] == 0


def test_a_preview_of_a_delivery_asks_the_mapping(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "delivery/gone/1", "delivery", instance="gone", case_id=None, headers={})
    ran = hub("parked", "preview", number, "--home", home, "--json")
    assert (ran.code, [(one["outcome"], one["code"]) for one in ran.json]) == (6, [("fails", "HUB-E6107")])


def test_what_an_older_hub_kept_of_headers_that_are_no_text_is_shown(home: Path, hub: Hub, ledger: Ledger) -> None:
    more: dict[str, Any] = {
        "headers": {"x-operator": "\udccd\udcf5"},
        "body": b"\xef\xbb\xbf" + rb'{"a": "cut \ud83d"}',
    }
    number = aside(ledger, "delivery/crm/1", "delivery", instance="crm", case_id=None, **more)
    shown = hub("parked", "show", number, "--home", home, "--json")
    assert shown.json["headers"] == {"x-operator": "\ufffd\ufffd"}
    assert orjson.loads(shown.json["body"]) == {"a": "cut \ufffd"}
    hub("parked", "show", number, "--home", home).out.encode()


def refuse(ledger: Ledger, number: int, body: bytes = b"{no json}", **more: Any) -> int:
    """Keep a refused push; its number."""
    refusal = Refusal(
        instance="crm", ref=f"delivery/crm/m-{number}", delivery=f"m-{number}", code="HUB-E3130", seen={"reason": "x"},
        headers={"x-more": "kept"}, body=body, at=datetime(2026, 11, 20, tzinfo=UTC),
    )  # fmt: skip
    ledger.writer.run(lambda conn: refused.store(conn, replace(refusal, **more)))
    with ledger.reading() as conn:
        return int(refused.page(conn)[0].id)


def test_refused_pushes_are_counted_listed_and_shown(home: Path, hub: Hub, ledger: Ledger) -> None:
    refuse(ledger, 1)
    number = refuse(ledger, 2, b"x" * 20_000)
    forged = {Reason("crm", "HUB-E7008"): 7}
    ledger.writer.run(lambda conn: refused.count(conn, forged, datetime.now(UTC)))
    told = hub("parked", "--refused", "--home", home, "--json").json
    assert [(each["code"], each["signed"], each["times"]) for each in told["counts"]] == [
        ("HUB-E3130", True, 2),
        ("HUB-E7008", False, 7),
    ]
    assert (told["kept"], [each["delivery"] for each in told["entries"]]) == (2, ["m-2", "m-1"])
    listed = hub("parked", "list", "--refused", "-n", 1, "--home", home, "--json").json
    (earlier,) = hub("parked", "list", "--refused", "--after", listed[0]["id"], "--home", home, "--json").json
    assert earlier["delivery"] == "m-1"
    one = hub("parked", "show", number, "--refused", "--home", home, "--json").json
    assert (one["size"], len(one["body"]), one["headers"]) == (20_000, 16 * 1024, {"x-more": "kept"})
    for arguments in (["--refused"], ["list", "--refused"], ["show", number, "--refused"]):
        out = hub("parked", *arguments, "--home", home).out
        assert "m-2" in out and "HUB-E3130" in out and "not JSON: x" in out


def test_no_refused_push_is_said_so(home: Path, hub: Hub, ledger: Ledger) -> None:
    assert "no push was refused" in hub("parked", "--refused", "--home", home).out
    assert hub("parked", "show", 7, "--refused", "--home", home).error is not None


def test_where_nothing_ever_ran_no_push_was_refused(home: Path, hub: Hub) -> None:
    assert hub("parked", "--refused", "--home", home, "--json").json == {"counts": [], "kept": 0, "entries": []}
    assert hub("parked", "list", "--refused", "--home", home, "--json").json == []


def test_a_ledger_of_an_older_hub_is_looked_at_all_the_same(home: Path, hub: Hub, ledger: Ledger) -> None:
    with ledger.engine.begin() as conn:
        for table in (refused.refused, refused.refusals):
            table.drop(conn)
    assert hub("parked", "--refused", "--home", home, "--json").json["counts"] == []
    assert hub("parked", "list", "--refused", "--home", home, "--json").json == []
    assert hub("status", "--home", home, "--json").json["refused"] == []


def test_a_kind_that_there_is_not_is_refused(home: Path, hub: Hub) -> None:
    for words in (("parked",), ("parked", "list")):
        assert hub(*words, "--kind", "bogus", "--home", home).code == 2
