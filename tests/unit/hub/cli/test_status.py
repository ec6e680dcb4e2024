"""`hub status`: answers whatever is down, and never makes what it only looks at."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from hub.cli import board_places
from hub.cli.status import lines
from hub.home import Home
from hub.ledger import commands, cursors, outbox
from hub.ledger.ledger import Ledger
from projections.folding import Place
from projections.store import BoardStore, write_places
from tests.events import AT, command, event, won
from tests.unit.hub.cli.conftest import Hub


def test_a_home_that_never_ran_is_told_and_left_untouched(home: Path, hub: Hub) -> None:
    ran = hub("status", "--home", home, "--json")
    assert ran.code == 0
    told = ran.json
    assert (told["running"], told["accepted"], told["held"], told["unpublished"]) == (False, 0, 0, 0)
    assert (told["programs"], told["processor"], told["boards"]) == ({}, None, {})
    assert set(told["connectors"]) == {"crm", "desk"}
    assert not (home / ".hub").exists()
    assert "is not running" in hub("status", "--home", home).out


def test_the_ledger_is_counted_while_the_hub_is_down(home: Path, hub: Hub) -> None:
    ledger = Ledger(Home.load(home).ledger_url)
    paused = event("hub.connector.paused", "connector/hub/crm", data={"reason": "no"})

    def work(conn: Connection) -> None:
        outbox.record(conn, [won(), paused], "crm")
        outbox.hold(conn, won("O-2"), "crm", AT)
        asked = command(won())
        commands.accept(conn, asked, asked.to_json(), AT)
        cursors.move(conn, "crm", "deals", "17", AT)

    ledger.writer.run(work)
    ledger.close()
    told = hub("status", "--home", home, "--json").json
    assert (told["accepted"], told["held"], told["unpublished"]) == (3, 1, 3)
    assert told["commands"] == {"new": 1}
    assert told["connectors"]["crm"]["state"] == "paused"
    assert told["connectors"]["crm"]["streams"]["deals"]["cursor"] == "17"
    assert told["connectors"]["desk"]["state"] == "ok"
    assert "✘ crm (http)  paused  deals" in "\n".join(lines(told))


def test_board_places_are_what_the_boards_store_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/boards.sqlite"
    assert board_places.board_places(url) == {}
    store = BoardStore(url)
    store.prepare()
    with store.writing() as conn:
        for name in ("tasks", "tasks__shadow"):
            owner = "INSERT INTO board_owners VALUES (?, 1, 1, '', 0, ?, 0, 0)"
            conn.exec_driver_sql(owner, (name, AT))
            write_places(conn, name, {0: Place(next_offset=5), 3: Place(next_offset=7)})
    store.close()
    (found,) = board_places.board_places(url).items()
    assert found == ("tasks", board_places.BoardPlace({0: 5, 3: 7}, AT))
    assert found[1].behind({0: 5, 1: 2, 3: 8}) == 3
