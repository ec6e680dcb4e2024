"""What does not belong in: forged, replayed, huge, slow and broken pushes, while honest ones keep coming: F23, S1, S2, S4, S5."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import time
from collections.abc import Callable, Mapping

import orjson

from tests.acceptance.acme import SECRETS, Sender, deal
from tests.faults.row import Row
from tests.faults.stage import Stage

STRANGE = 10_000_000
"""Deals with numbers from here on were never sent by an honest sender: what comes of one is counted as done twice."""
BATCH = 20
Push = tuple[bytes, Mapping[str, str]]


def refused(make: Callable[[Sender, random.Random], Push], *statuses: int) -> Callable[[Stage, random.Random], None]:
    """A batch of pushes, each of which must be answered by one of these, and by nothing that tells why."""

    def fault(stage: Stage, chosen: random.Random) -> None:
        sender = Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"])
        answers = set()
        for _ in range(BATCH):
            body, headers = make(sender, chosen)
            answer = sender.session.post(f"{stage.hub.url}/webhooks/crm", body, headers=dict(headers), timeout=30)
            assert answer.status_code in statuses, f"{answer.status_code} for {body[:80]!r} {headers}"
            answers.add((answer.status_code, orjson.loads(answer.content)["code"]))
            stage.faults += 1
        assert len(answers) <= len(statuses), f"answers tell why: {answers}"

    return fault


def forged(sender: Sender, chosen: random.Random) -> Push:
    """A signature that is missing, cut, of another body, of another secret, or of another kind."""
    body = deal(STRANGE + chosen.randrange(10**6))
    delivery = f"msg_{secrets.token_hex(8)}"
    signed = dict(sender.sign(body, delivery))
    signature = signed["webhook-signature"]
    wrong = chosen.choice(("missing", "cut", "other body", "other secret", "other kind", "one bit"))
    if wrong == "missing":
        del signed["webhook-signature"]
    elif wrong == "cut":
        signed["webhook-signature"] = signature[: chosen.randrange(len(signature) - 1)]
    elif wrong == "other body":
        body += b" "
    elif wrong == "other secret":
        signed = dict(Sender(sender.url, "pm", SECRETS["PM_SECRET"]).sign(body, delivery))
    elif wrong == "other kind":
        signed["webhook-signature"] = chosen.choice(("v1a,", "v0,", "none,", "v1, ")) + signature[3:][::-1]
    else:
        at = chosen.randrange(len(body))
        body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    return body, signed


def stale(sender: Sender, chosen: random.Random) -> Push:
    """A push whose time is out of the window, or was changed after it was signed."""
    body = deal(STRANGE + chosen.randrange(10**6))
    signed = dict(sender.sign(body, f"msg_{secrets.token_hex(8)}"))
    away = chosen.choice((-86_400, -3_600, -301, 301, 86_400))
    return body, {**signed, "webhook-timestamp": str(int(time.time()) + away)}


def broken(sender: Sender, chosen: random.Random) -> Push:
    """Honestly signed bytes that are no JSON as it should be."""
    body = chosen.choice(
        (
            b"",
            b"{",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"type": "deal.won", "type": "deal.lost"}',
            b'{"n": NaN}',
            b'{"n": 1e400}',
            b'{"n": ' + b"9" * 5_000 + b"}",
            b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        )
    )
    # Signed by hand: the vendor's kit signs text only.
    return body, sender.sign(body, f"msg_{secrets.token_hex(8)}")


def oversize(sender: Sender, chosen: random.Random) -> Push:
    """More than a body may have."""
    body = b'{"pad": "' + b"x" * chosen.choice((1_048_577, 1_100_000, 3_000_000)) + b'"}'
    return body, sender.sign(body, f"msg_{secrets.token_hex(8)}")


def replayed(stage: Stage, chosen: random.Random) -> None:
    """The very same push again and again within its window: accepted, and nothing comes of it."""
    sender = Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"])
    with stage.load.one_more() as number:
        body, delivery = deal(number), f"msg_{secrets.token_hex(8)}"
        for _ in range(BATCH):
            sender.push(body, delivery=delivery)
            stage.faults += 1


def slow_and_endless(stage: Stage, chosen: random.Random) -> None:
    """Heads that drip, bodies without end, heads without measure: none of them keeps a place for long."""
    port = stage.hub.port
    opened = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(100)]
    for each in opened:
        each.sendall(chosen.choice((b"POST /webhooks/crm HTTP/1.1\r\nHost: x\r\n", b"POST /webhooks/crm HT", b"P")))
    endless = socket.create_connection(("127.0.0.1", port), 5)
    endless.sendall(b"POST /webhooks/crm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(40):
            endless.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
    endless.settimeout(15)
    assert endless.recv(200).startswith(b"HTTP/1.1 413"), "a body without end is not refused"
    fat = socket.create_connection(("127.0.0.1", port), 5)
    with contextlib.suppress(OSError):
        fat.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")
    stage.recovers()  # while all of these are open
    for each in (*opened, endless, fat):
        each.close()
    stage.faults += 10


ROWS = [
    Row("F23", "bodies that are too large", 40, 200, refused(oversize, 413), any_store=True),
    Row("S1", "forged signatures", 200, 10_000, refused(forged, 401), any_store=True),
    Row("S2", "replays within the window and outside of it", 40, 1_000, replayed),
    Row("S2b", "times outside of the window", 40, 1_000, refused(stale, 401), any_store=True),
    Row("S4", "slow, endless and measureless requests", 10, 100, slow_and_endless, any_store=True),
    Row("S5", "signed nonsense", 100, 2_000, refused(broken, 400), any_store=True),
]
