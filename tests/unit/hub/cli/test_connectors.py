"""`hub connectors`: the catalogue, what is connected, and whether it answers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.hub.cli.conftest import Hub


@pytest.fixture
def pm(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A system that answers, connected as `pm`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        post = 'post: "${env:PM_URL}/tasks", json: {mark: "${command.id}"}'
        send = f'{{task.create: {{{post}, once: {{header: Key}}, id: "${{response.id}}"}}}}'
        told = (home / "hub.yaml").read_text()
        (home / "hub.yaml").write_text(f"{told}  pm:\n    use: http\n    send: {send}\n")
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("PM_URL", url)
        yield url
        server.shutdown()


def test_what_there_is_and_what_is_connected(home: Path, hub: Hub) -> None:
    told = hub("connectors", "list", "--home", home, "--json").json
    assert {"builtin", "http", "redmine", "tryton"} <= {each["name"] for each in told["connectors"]}
    assert [(each["name"], each["use"], each["faces"], each["state"]) for each in told["instances"]] == [
        ("crm", "http", ["receives"], "ok"),
        ("desk", "builtin", ["sends"], "ok"),
    ]
    assert "✔ crm" in hub("connectors", "list", "--home", home).out


def test_a_system_that_answers(home: Path, hub: Hub, pm: str) -> None:
    ran = hub("connectors", "check", "--home", home, "--json")
    assert ran.code == 0
    assert {each["name"]: each["said"] for each in ran.json["instances"]}["pm"] == pm


def test_a_system_that_does_not_answer_is_exit_4(
    home: Path, hub: Hub, pm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PM_URL", "http://127.0.0.1:1")
    ran = hub("connectors", "check", "pm", "--home", home, "--json")
    assert ran.code == 4
    (told,) = ran.json["instances"]
    assert (told["name"], told["ok"], told["error"]["code"]) == ("pm", False, "HUB-E4001")
    assert hub("connectors", "check", "crm", "--home", home).code == 0


def test_an_unknown_connection(home: Path, hub: Hub) -> None:
    ran = hub("connectors", "check", "nope", "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (4, "HUB-E4054")


def test_a_connector_is_described_by_itself_or_by_what_uses_it(home: Path, hub: Hub) -> None:
    by_use, by_instance = (
        hub("connectors", "describe", name, "--home", home, "--json").json for name in ("http", "crm")
    )
    assert by_use == by_instance
    told = hub("connectors", "describe", "http", "--home", home).out
    assert "receive.verify.secret (required, secret)" in told
