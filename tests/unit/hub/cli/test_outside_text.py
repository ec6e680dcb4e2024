"""Text from outside never steers a terminal: no command lets a control character, a bidi override or a line of its own through."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Connection

from hub.cli import event_lines as facts
from hub.cli import up
from hub.cli.render import ERRORS, cut, marked, marked_json
from hub.home import Home
from hub.ledger import commands, outbox, parked
from hub.ledger.ledger import Ledger
from tests.events import AT, command, event, won
from tests.unit.hub.cli.conftest import Hub

FORGED = "✔ a line that the hub never said"
HOSTILE = f"\x1b[2J\x1b]0;pwned\x07\x08\x7f\x9b31m\u202e\u2066\u200b\ufeff\u2028\x85\r\n{FORGED}\n\t网关"
LONG = "长" * 60_000
ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
FOLDER = Path(__file__).parents[4] / "hub" / "cli"


def data(title: str) -> dict[str, object]:
    return {"name": title, "account": title, "amount": "880000", "currency": "CNY", "owner": "person/wang.fang"}


BAD, HUGE = won("O-1", data=data(HOSTILE), actor="person/\x1b[31m\u202e"), won("O-2", data=data(LONG))
TASK = command(BAD, "task.create", 0, title=HOSTILE, assignee=HOSTILE)


@pytest.fixture
def home_with_outside_text(home: Path) -> Path:
    """Hostile names in events, commands, answers and parked work of every kind."""
    ledger = Ledger(Home.load(home).ledger_url)

    def work(conn: Connection) -> None:
        outbox.record(conn, [BAD, HUGE], "crm")
        commands.accept(conn, TASK, TASK.to_json(), AT)
        table = commands.commands
        conn.execute(table.update().values(state="PARKED", code="HUB-E4220", reason=HOSTILE, response=HOSTILE))
        for kind, ref, body in (
            ("command", f"command/{TASK.id}", TASK.to_json()),
            ("event", f"event/{BAD.id}", BAD.to_json()),
            ("delivery", "delivery/crm/1", HOSTILE.encode()),
        ):
            parked.park(conn, {
                "ref": ref, "kind": kind, "case_id": BAD.case, "subject": HOSTILE, "code": "HUB-E3140", "instance": "crm",
                "seen": {"role": HOSTILE, "near": LONG}, "place": None, "rule": HOSTILE, "body": body, "parked_at": AT,
                "headers": {"x-title": HOSTILE},
            })  # fmt: skip

    ledger.writer.run(work)
    ledger.close()
    (home / "events.json").write_bytes(orjson.dumps([BAD.model_dump(exclude_none=True)]))
    (home / "rules" / "won_deal.yaml").write_text(
        (home / "rules" / "won_deal.yaml").read_text("utf-8").replace("owner:", "ownr:").replace("rule:", '"x\\e[2J":'),
        "utf-8",
    )
    return home


COMMANDS = (
    ("why", "O-1"), ("why", "O-2"), ("why", TASK.id), ("events", "show", BAD.id), ("parked",), ("parked", "list"),
    ("parked", "show", "1"), ("parked", "show", "2"), ("parked", "show", "3"), ("parked", "retry", "--all"),
    ("parked", "discard", "2", "--reason", HOSTILE), ("validate",), ("why", HOSTILE), ("rules", "list"), ("config", "show"),
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("machine", [False, True], ids=["people", "json"])
def test_no_command_lets_it_through(
    home_with_outside_text: Path, hub: Hub, words: tuple[str, ...], machine: bool
) -> None:
    told = hub(*words, "--home", home_with_outside_text, *(["--json"] if machine else [])).out
    assert ACTING.findall(told) == []
    assert not [line for line in told.splitlines() if line.strip().startswith(FORGED)]
    if not machine and words[:2] != ("events", "show"):
        assert max(map(len, told.split("\n")), default=0) <= 1_000


@pytest.mark.parametrize("text", [HOSTILE, LONG], ids=["hostile", "long"])
@pytest.mark.parametrize("json", [False, True], ids=["people", "json"])
def test_what_hub_up_says_of_it_is_harmless(text: str, json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    teller = up.UpReporter(json)
    teller.fact(facts.line_of(won("O-1", data=data(text)), "en", {}) or "")
    done = event("hub.command.parked", "command/im/1", data={"type": text, "code": "HUB-E4220", "reason": text})
    teller.fact(facts.line_of(done, "zh-CN", {}) or "")
    teller("alarm", {"level": "error", "instance": text, "reason": marked(text), "code": "HUB-E3140"})
    told = capsys.readouterr().out
    assert ACTING.findall(told) == []
    assert told.count("\n") == 3
    assert max(map(len, told.splitlines())) <= (200_000 if json else 1_000)


def test_an_error_keeps_its_lines(home: Path, hub: Hub) -> None:
    """Only CEL's caret has a line of its own."""
    rule = home / "rules" / "won_deal.yaml"
    rule.write_text(re.sub(r"(?m)^if:.*$", "if: event.data.amount >=", rule.read_text("utf-8")), "utf-8")
    told = hub("validate", "--home", home).out.split("\n")
    at = next(number for number, line in enumerate(told) if "HUB-E3110" in line)
    assert told[at + 1].strip() == "event.data.amount >="
    assert told[at + 2].strip(". ") == "^"
    assert told[at + 3].strip().startswith("→")


def test_every_word_goes_through_one_place() -> None:
    """What prints by itself would not be looked at."""
    own = re.compile(r"(?<!\w)(print|typer\.echo|click\.echo|sys\.std(out|err)\.write)\(")
    found = {file.name: own.findall(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.py"))}
    assert [name for name, calls in found.items() if calls and name != "terminal.py"] == []


def test_marks() -> None:
    assert marked("a\x1b[2J\u202eb\u200bc\nd") == "a\\x1b[2J\\u202eb\\u200bc\\nd"
    assert marked("网关 ✔ é") == "网关 ✔ é"
    assert marked_json(orjson.dumps("\x7f\x9b\u202e\U000e0041").decode()) == '"\\u007f\\u009b\\u202e\\udb40\\udc41"'
    assert orjson.loads(marked_json(orjson.dumps(HOSTILE).decode())) == HOSTILE
    assert cut("abc", 2) == "a…"


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "utf-8", "cp437"])
@pytest.mark.parametrize("words", [("validate",), ("explain", "HUB-E4003"), ("--help",)], ids=str)
def test_any_encoding_of_the_terminal_will_do(home: Path, encoding: str, words: tuple[str, ...]) -> None:
    seen = {**os.environ, "PYTHONIOENCODING": encoding, "HUB_LANG": "zh-CN", "HUB_HOME": str(home)}
    done = subprocess.run([sys.executable, "-m", "hub.cli.main", *words], env=seen, capture_output=True, check=False)
    assert (done.returncode, b"E1099" in done.stdout + done.stderr) == (0, False), done.stderr
    assert done.stdout.decode(encoding)


def test_our_marks_have_stand_ins() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="gbk", errors=ERRORS)
    out.write("✔ ✘ ● \udc80 网关")
    out.flush()
    assert out.buffer.getvalue().decode("gbk") == "+ x ● ? 网关"


def test_json_for_an_encoding_that_lacks_its_characters(home: Path) -> None:
    seen = {**os.environ, "PYTHONIOENCODING": "ascii", "HUB_LANG": "zh-CN"}
    command = [sys.executable, "-m", "hub.cli.main", "rules", "list", "--json", "--home", str(home)]
    done = subprocess.run(command, env=seen, capture_output=True, check=True)
    assert "项目" in orjson.loads(done.stdout)[0]["title"]["zh-CN"]


def test_a_full_disk_has_words_and_a_closed_pipe_has_none(home: Path) -> None:
    seen = {**os.environ, "HUB_LANG": "en"}
    command = [sys.executable, "-m", "hub.cli.main", "rules", "list", "--home", str(home)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=seen, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.count(b"HUB-E1023"), b"Error" in done.stderr) == (1, 1, False), done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(command, env=seen, stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
