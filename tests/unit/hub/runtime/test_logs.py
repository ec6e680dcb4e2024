"""What a program writes about itself: a JSON object a line, and no secret in it, whichever way it came."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from hub.runtime.logs import SecretMask

SECRET = "s3cret-canary-value"


@pytest.mark.parametrize(
    "event",
    [
        {"url": f"https://u:{SECRET}@host"},
        {"password": "short"},
        {"api_key": "short"},
        {"Authorization": "Bearer x"},
        {"deep": {"list": [SECRET, {"webhook-signature": "v1,x"}]}},
        {"error": ValueError(SECRET)},
        {"set": {SECRET}},
    ],
)
def test_secrets_are_hidden_by_value_and_by_name(event: dict[str, Any]) -> None:
    shown = str(SecretMask([SECRET])(None, "info", dict(event)))
    assert "***" in shown
    assert not [word for word in (SECRET, "short", "Bearer", "v1,x") if word in shown]


def test_what_is_no_secret_stays_as_it_is() -> None:
    event = {"event": "ready", "port": 8600, "ok": True, "nothing": None, "share": 0.5, "names": ["crm"]}
    assert SecretMask([SECRET])(None, "info", dict(event)) == event


def test_a_secret_of_a_few_letters_is_not_hunted_for_in_texts() -> None:
    assert SecretMask(["a", ""])(None, "info", {"event": "ready"}) == {"event": "ready"}


def test_each_line_is_one_object_also_for_errors_and_other_libraries() -> None:
    code = f"""
import logging, warnings, structlog
from hub.runtime import logs
logs.configure("connectors", ["{SECRET}"])
log = structlog.get_logger("connectors.x")
log.info("ready", port=1)
logging.getLogger("alembic").info("not wanted")
logging.getLogger("aiohttp").warning("%s", "{SECRET}")
warnings.warn("careful")
try:
    raise ValueError("{SECRET}")
except ValueError:
    log.exception("broke")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "warning", "error"]
    assert {line["program"] for line in lines} == {"connectors"}
    assert "ValueError" in lines[3]["exception"]
    assert SECRET not in done.stderr


def test_a_text_from_outside_that_is_no_text_can_be_logged() -> None:
    code = (
        "from hub.runtime import logs; import structlog; logs.configure('x'); "
        "structlog.get_logger('hub').info('said', it='\\udccd')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stderr)["it"] == "\udccd"


def test_a_flood_is_written_a_few_times_and_then_as_a_sum() -> None:
    code = """
import logging
from hub.runtime import logs
import structlog
logs.configure('x')
(handler,) = logging.getLogger().handlers
now = [0.0]
handler._clock, handler._summed_at, handler._rate = (lambda: now[0]), 0.0, logs.LineRate(lines=3, seconds=60)
log = structlog.get_logger('hub')
for minute in range(2):
    for number in range(1000):
        log.info('refused', number=number, code='A')
        log.info('refused', number=number, code='B' if number == 500 else 'A')
        logging.getLogger('asyncio').error('accept() failed on %s', number)
    now[0] += 61
log.info('another')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    sums = [(line["what"], line.get("code"), line["times"]) for line in lines if line["event"] == "log.repeated"]
    assert sums == [("refused", "A", 1996), ("accept() failed on %s", None, 997)] * 2
    assert len([line for line in lines if line["event"] == "refused" and line["code"] == "A"]) == 6
    assert len([line for line in lines if line.get("code") == "B"]) == 2, "what is rare is not hidden by what is not"
    assert lines[-1]["event"] == "another"


def test_the_last_sum_is_said_at_the_end() -> None:
    code = """
from hub.runtime import logs
import structlog
logs.configure('x')
for number in range(150):
    structlog.get_logger('hub').info('again')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert (len(lines), lines[-1]["event"], lines[-1]["times"]) == (101, "log.repeated", 50)
