"""Pushes over real sockets: what is taken in, what is refused, and that refusing costs next to nothing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

import aiohttp
import pytest
import structlog
from aiohttp import web

from hub.config.settings import Quota
from hub.errors import FatalError
from hub.intake.intake import Intake
from hub.ledger import outbox, refused
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.ledger.parked_quota import Quotas
from hub.runtime.clock import SystemClock
from hub.web import webhooks
from hub.web.bodies import MAX_BODY, Bodies, Caps
from hub.web.refusals import Refusals
from hub.web.webhooks import ListenAddress, Pushes, WebServer
from tests.pushing import SECRET, Staff, crm, deal, open_entries, signed

Story = Callable[["World"], Coroutine[Any, Any, None]]


class Tell(Protocol):
    """Runs a story before an open front door."""

    def __call__(self, story: Story, caps: Caps | None = None, most: int | None = None) -> None: ...


@dataclass
class World:
    """A front door that is open, and a client before it."""

    ledger: Ledger
    client: aiohttp.ClientSession
    pushes: Pushes
    port: int
    refusals: Refusals
    door: WebServer

    async def post(
        self, body: bytes, headers: dict[str, str], path: str = "crm", method: str = "POST"
    ) -> tuple[int, dict[str, Any]]:
        address = f"http://127.0.0.1:{self.port}/webhooks/{path}"
        async with self.client.request(method, address, data=io.BytesIO(body), headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def push(self, body: bytes, id_: str = "msg_1") -> tuple[int, dict[str, Any]]:
        return await self.post(body, signed(body, id_))

    async def raw(self, sent: bytes, seconds: float = 5.0) -> bytes:
        """Send bytes as they are; what comes back until the connection closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.read(), seconds)
        finally:
            writer.close()

    def kept(self) -> list[AnyRow]:
        """Signed pushes that were refused, the newest first, with their bytes."""
        with self.ledger.reading() as conn:
            return [found for row in refused.page(conn) if (found := refused.get(conn, row.id)) is not None]

    def counts(self) -> dict[tuple[str, str, bool], int]:
        """How often what was refused, once the sums are written."""
        self.refusals.flush()
        self.ledger.writer.run(lambda conn: None)
        with self.ledger.reading() as conn:
            return {(each.instance, each.code, each.signed): each.times for each in refused.counts(conn)}

    def accepted(self) -> int:
        with self.ledger.reading() as conn:
            return outbox.counts(conn)["accepted"]


async def _rest(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)


@contextlib.asynccontextmanager
async def opened(ledger: Ledger, caps: Caps | None = None, most: int | None = None) -> AsyncIterator[World]:
    challenge = {"if": 'body.type == "url_verification"', "json": {"challenge": "${body.challenge}"}}
    receiver = crm(answer=challenge).receives
    assert receiver is not None
    github = crm("hub-like", scheme="x-hub-signature-256").receives
    assert github is not None
    refusals = Refusals(ledger, SystemClock())
    receivers = {"crm": receiver, "hub-like": github}
    pushes = Pushes(Intake(ledger, Staff(), SystemClock()), receivers, Bodies(caps), SystemClock(), refusals)
    door = WebServer(ListenAddress(port=0), pushes, _rest, most)
    port = await door.open()
    async with aiohttp.ClientSession() as client:
        yield World(ledger, client, pushes, port, refusals, door)
    await door.close()


@pytest.fixture
def tell(tmp_path: Path) -> Iterator[Tell]:
    """Run a story before an open front door."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")

    async def run(story: Story, caps: Caps | None, most: int | None) -> None:
        async with opened(ledger, caps, most) as world:
            await story(world)

    yield lambda story, caps=None, most=None: asyncio.run(run(story, caps, most))
    ledger.close()


def test_a_signed_push_is_durable_when_it_is_answered(tell: Tell) -> None:
    async def story(world: World) -> None:
        status, told = await world.push(deal())
        assert (status, world.accepted()) == (202, 1)
        assert told["id"].startswith("delivery/crm/msg_1~")
        assert len(told["events"]) == 1

    tell(story)


def test_the_same_push_three_times_is_one_event(tell: Tell) -> None:
    async def story(world: World) -> None:
        answers = [await world.push(deal(), id_) for id_ in ("msg_1", "msg_1", "msg_2")]
        assert [status for status, _ in answers] == [202, 202, 202]
        assert world.accepted() == 1

    tell(story)


def test_a_push_that_matches_nothing_is_taken_in(tell: Tell) -> None:
    async def story(world: World) -> None:
        assert (await world.push(deal(kind="viewed")))[0] == 202
        assert world.accepted() == 1

    tell(story)


def test_a_challenge_in_a_signed_push_is_answered_and_kept(tell: Tell) -> None:
    async def story(world: World) -> None:
        body = b'{"type": "url_verification", "challenge": "c-7"}'
        assert await world.push(body) == (200, {"challenge": "c-7"})
        assert world.accepted() == 1
        assert (await world.post(body, {"content-type": "application/json"}))[0] == 401
        assert (await world.push(deal(), "msg_2"))[0] == 202

    tell(story)


def _forged() -> dict[str, tuple[bytes, dict[str, str]]]:
    body, right = deal(), signed(deal())
    late, early = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (-6, 6))
    other = "whsec_" + "b3RoZXIga2V5IG9mIDI0IGJ5dGVz"
    return {
        "no signature": (body, {"content-type": "application/json"}),
        "wrong signature": (body, right | {"webhook-signature": "v1,AAAA"}),
        "truncated signature": (body, right | {"webhook-signature": right["webhook-signature"][:-4]}),
        "body altered by a bit": (bytes([body[0] ^ 1]) + body[1:], right),
        "another secret": (body, signed(body, secret=other)),
        "another id": (body, right | {"webhook-id": "msg_2"}),
        "too old": (body, signed(body, at=late)),
        "too early": (body, signed(body, at=early)),
        "another algorithm": (body, right | {"webhook-signature": right["webhook-signature"].replace("v1,", "v9,")}),
        "no id": (body, {name: value for name, value in right.items() if name != "webhook-id"}),
        "time is no number": (body, right | {"webhook-timestamp": "soon"}),
        "signature is no base64": (body, right | {"webhook-signature": "v1,\u00e4"}),
        "empty body": (b"", right),
    }


@pytest.mark.parametrize("how", list(_forged()))
def test_a_forged_push_gets_401_with_a_constant_body_and_leaves_nothing(tell: Tell, how: str) -> None:
    async def story(world: World) -> None:
        body, headers = _forged()[how]
        status, told = await world.post(body, headers)
        assert (status, told["code"]) == (401, "HUB-E7008")
        assert told == (await world.post(b"x", {}))[1]
        assert world.accepted() == 0

    tell(story)


def test_one_right_signature_among_several_will_do(tell: Tell) -> None:
    async def story(world: World) -> None:
        headers = signed(deal())
        headers["webhook-signature"] = "v1,AAAA " + headers["webhook-signature"]
        assert (await world.post(deal(), headers))[0] == 202

    tell(story)


def test_a_header_that_comes_twice_passes_for_neither(tell: Tell) -> None:
    async def story(world: World) -> None:
        body, headers = deal(), signed(deal())
        lines = [f"{name}: {value}" for name, value in headers.items()]
        lines += ["webhook-id: msg_2", f"content-length: {len(body)}", "connection: close", "host: localhost"]
        sent = "POST /webhooks/crm HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        assert (await world.raw(sent.encode() + body)).startswith(b"HTTP/1.1 401")

    tell(story)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"not json",
        b'{"type": NaN}',
        b'{"a": 1e400}',
        b"[" * 100_000,
        "{}".encode("utf-16"),
        '{"客户": "华为"}'.encode("gbk"),
        b'"\xff"',
        b"",
        b"[" + b"1," * 50_000 + b"1]",
    ],
)
def test_what_is_no_json_gets_400_and_leaves_nothing(tell: Tell, body: bytes) -> None:
    async def story(world: World) -> None:
        signature = _sign_bytes(body)
        status, told = await world.post(body, signature)
        assert (status, told["code"]) == (400, "HUB-E7009")
        assert world.accepted() == 0

    tell(story)


@pytest.mark.parametrize("odd", [b"\xef\xbb\xbf%s", b'%s"remark": "cut \\ud83d", "x": "\\u0000", %s'])
def test_a_mark_before_the_body_and_half_a_character_beside_it_are_no_reason_to_refuse(tell: Tell, odd: bytes) -> None:
    body = odd % deal() if odd.count(b"%s") == 1 else odd % (deal()[:1], deal()[1:])

    async def story(world: World) -> None:
        status, told = await world.post(body, _sign_bytes(body))
        assert (status, len(told["events"])) == (202, 1)
        assert world.accepted() == 1

    tell(story)


def test_a_header_that_is_no_text_is_kept_as_text(tell: Tell) -> None:
    async def story(world: World) -> None:
        body = deal(amount="abc")
        lines = [f"{name}: {value}".encode() for name, value in _sign_bytes(body).items()]
        lines += [b"x-operator: " + "王芳".encode("gbk"), b"x-city: " + "北京".encode(), b"connection: close"]
        lines += [b"host: localhost", b"content-length: %d" % len(body)]
        assert b" 202 " in await world.raw(
            b"POST /webhooks/crm HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body
        )
        (entry,) = open_entries(world.ledger)
        assert (entry.headers["x-operator"], entry.headers["x-city"]) == (r"\xcd\xf5\xb7\xbc", "北京")

    tell(story)


def _sign_bytes(body: bytes) -> dict[str, str]:
    at = str(int(datetime.now(UTC).timestamp()))
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, b"msg_1." + at.encode() + b"." + body, hashlib.sha256)).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": at, "webhook-signature": f"v1,{signature}"}


UNREADABLE = {
    "HUB-E3130": '{"客户": "华为"}'.encode("gbk"),
    "HUB-E3131": b'{"a": 1, "a": 2}',
    "HUB-E3132": b'{"a": NaN}',
    "HUB-E3134": b"[" * 65 + b"]" * 65,
    "HUB-E3136": b"[" + b"1," * 50_000 + b"1]",
}


@pytest.mark.parametrize("code", list(UNREADABLE))
def test_a_signed_push_that_is_refused_leaves_a_trace(tell: Tell, code: str) -> None:
    async def story(world: World) -> None:
        body = UNREADABLE[code]
        for _ in range(2):
            assert (await world.post(body, {**_sign_bytes(body), "x-token": "secret", "x-more": "kept"}))[0] == 400
        (entry,) = world.kept()
        assert (entry.instance, entry.delivery, entry.code, entry.times) == ("crm", "msg_1", code, 2)
        assert (entry.size, entry.head) == (len(body), body[: 16 * 1024])
        assert "x-token" not in entry.headers and entry.headers["x-more"] == "kept"
        assert world.counts() == {("crm", code, True): 2}

    tell(story)


def test_what_was_refused_and_then_sent_as_it_should_be_is_taken_in(tell: Tell) -> None:
    async def story(world: World) -> None:
        assert (await world.post(b"{", _sign_bytes(b"{")))[0] == 400
        assert (await world.push(deal()))[0] == 202
        assert world.accepted() == 1

    tell(story)


def test_unsigned_pushes_are_only_counted(tell: Tell) -> None:
    async def story(world: World) -> None:
        for path in ("crm", "crm", "made-up", "other"):
            await world.post(b"{", {}, path)
        await world.post(b"", {}, method="GET")
        await world.post(b"x" * (MAX_BODY + 1), {})
        assert world.kept() == []
        assert world.counts() == {
            ("crm", "HUB-E7008", False): 2,
            ("crm", "HUB-E7003", False): 1,
            ("crm", "HUB-E7005", False): 1,
            ("-", "HUB-E7002", False): 2,
        }

    tell(story)


def test_a_refusal_that_cannot_be_kept_is_not_final(tell: Tell) -> None:
    async def story(world: World) -> None:
        world.ledger.writer.close()
        assert (await world.post(b"{", _sign_bytes(b"{")))[0] == 503

    tell(story)


def test_a_full_quota_is_told_with_when_to_come_again_and_counted(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        monkeypatch.setattr(world.pushes._intake, "_quotas", Quotas({"crm": Quota(entries=1)}))
        assert (await world.push(deal(1, amount="abc"), "msg_1"))[0] == 202
        address = f"http://127.0.0.1:{world.port}/webhooks/crm"
        body = deal(2, amount="abc")
        async with world.client.post(address, data=body, headers=signed(body, "msg_2")) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "60")
            assert (await answer.json(content_type=None))["code"] == "HUB-E7014"
        assert (await world.push(deal(3), "msg_3"))[0] == 202
        assert world.counts() == {("crm", "HUB-E7014", True): 1}

    tell(story)


def test_the_sums_are_logged_and_no_line_for_each(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        with structlog.testing.capture_logs() as lines:
            for _ in range(50):
                await world.post(b"{", {})
            world.refusals.flush()
        assert [(line["event"], line["times"]) for line in lines] == [("pushes.refused", 50)]

    tell(story)


def test_only_what_is_signed_names_a_push(tell: Tell) -> None:
    body = deal()
    seal = {"x-hub-signature-256": "sha256=" + hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()}

    async def story(world: World) -> None:
        for made_up in ({}, {"webhook-id": "a"}, {"x-event-id": "b"}, {"webhook-id": "c", "x-event-id": "d"}):
            status, told = await world.post(body, seal | made_up, "hub-like")
            assert status == 202
            assert told["id"].startswith("delivery/hub-like/") and "~" not in told["id"]
        assert world.accepted() == 1
        ignored = deal(kind="viewed")
        seal["x-hub-signature-256"] = "sha256=" + hmac.digest(SECRET.encode(), ignored, hashlib.sha256).hex()
        for made_up in ({"webhook-id": "a"}, {"x-event-id": "b"}):
            await world.post(ignored, seal | made_up, "hub-like")
        assert world.accepted() == 2, "the second telling of one push is no second event"
        assert (await world.post(body, signed(body) | {"x-event-id": "other"}))[1]["id"].startswith(
            "delivery/crm/msg_1~"
        )

    tell(story)


def test_a_mebibyte_is_taken_and_a_byte_more_is_not(tell: Tell) -> None:
    async def story(world: World) -> None:
        room = MAX_BODY - len(deal(title=""))
        fits, more = deal(title="x" * room), deal(title="x" * (room + 1))
        assert (await world.push(fits))[0] == 202
        status, told = await world.push(more)
        assert (status, told["code"]) == (413, "HUB-E7005")

    tell(story)


def test_an_endless_chunked_push_is_cut_off_at_a_mebibyte(tell: Tell) -> None:
    async def story(world: World) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 * MAX_BODY and not reader._buffer:  # type: ignore[attr-defined]  # has an answer come?
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
                await writer.drain()
        assert (await reader.read(12)) == b"HTTP/1.1 413"
        assert sent < 8 * MAX_BODY
        writer.close()

    tell(story)


def test_a_body_that_breaks_the_protocol_gets_400(tell: Tell) -> None:
    async def story(world: World) -> None:
        head = b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        assert b" 400 " in (await world.raw(head + b"zz\r\nno number\r\n")).splitlines()[0]
        both = (
            b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        assert b" 400 " in (await world.raw(both + b"0\r\n\r\n")).splitlines()[0]
        assert world.accepted() == 0

    tell(story)


def test_a_sender_that_asks_first_is_told_to_send(tell: Tell) -> None:
    async def story(world: World) -> None:
        headers = signed(deal()) | {"Expect": "100-continue"}
        async with asyncio.timeout(2):
            assert (await world.post(deal(), headers))[0] == 202

    tell(story)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip"])
def test_a_compressed_push_is_refused_unread(tell: Tell, encoding: str) -> None:
    async def story(world: World) -> None:
        assert (await world.post(b"\x1f\x8b", {"content-encoding": encoding}))[0] == 415

    tell(story)


def test_a_body_that_does_not_come_gets_408(tell: Tell) -> None:
    async def story(world: World) -> None:
        head = b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf"
        assert (await world.raw(head)).startswith(b"HTTP/1.1 408")
        assert world.accepted() == 0

    tell(story, Caps(grace=0.2))


def test_a_body_that_comes_at_its_least_rate_may_take_longer_than_one_that_stands_still(tell: Tell) -> None:
    async def story(world: World) -> None:
        body = deal(title="x" * 4000)
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        lines = [f"{name}: {value}" for name, value in _sign_bytes(body).items()]
        head = ["POST /webhooks/crm HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *lines, "", ""]
        writer.write("\r\n".join(head).encode())
        for at in range(0, len(body), 500):
            writer.write(body[at : at + 500])
            await asyncio.sleep(0.15)  # slower than the grace alone would allow, faster than the rate asks for
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 202")
        writer.close()

    tell(story, Caps(grace=0.6, rate=1000))


def test_a_connection_that_was_given_up_while_its_body_came_is_no_failure() -> None:
    """aiohttp raises a RuntimeError when a body is read on of which the connection was closed by us in the same moment."""

    class Content:
        def is_eof(self) -> bool:
            return False

        async def readany(self) -> bytes:
            raise RuntimeError("Connection closed.")

    async def read(transport: object) -> None:
        given = {"headers": {}, "content_length": None, "remote": "", "content": Content(), "transport": transport}
        async with Bodies().read(cast(web.BaseRequest, SimpleNamespace(**given))):
            raise AssertionError

    with pytest.raises(ConnectionResetError):
        asyncio.run(read(None))
    with pytest.raises(RuntimeError):
        asyncio.run(read(object()))


def test_slow_heads_are_dropped_and_others_served_meanwhile(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "HEAD_TIMEOUT_S", 1.0)

    async def story(world: World) -> None:
        slow = [asyncio.create_task(world.raw(b"POST /webhooks/crm HTTP/1.1\r\nhost: l")) for _ in range(200)]
        await asyncio.sleep(0)
        assert (await world.push(deal()))[0] == 202
        assert {await one for one in slow} == {b""}

    tell(story)


def test_a_head_that_is_too_large_gets_400(tell: Tell) -> None:
    async def story(world: World) -> None:
        head = b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"
        assert b" 400 " in (await world.raw(head)).splitlines()[0]

    tell(story)


def test_an_unknown_instance_gets_404_and_another_method_405(tell: Tell) -> None:
    async def story(world: World) -> None:
        for path in ("erp", "", "crm/", "crm/x", "..%2fcrm"):
            status, told = await world.post(deal(), signed(deal()), path)
            assert (status, told["code"]) == (404, "HUB-E7002")
        assert (await world.post(b"", {}, method="GET"))[0] == 405

    tell(story)


def test_a_refusal_is_told_in_the_senders_language(tell: Tell) -> None:
    async def story(world: World) -> None:
        told = [(await world.post(b"", {"accept-language": spoken}))[1] for spoken in ("zh-CN,en", "en-GB,zh", "de")]
        assert [one["title"][0] for one in told] == ["签", "t", "签"]
        assert all(one["type"] == "urn:hub:problem:HUB-E7008" and one["status"] == 401 for one in told)

    tell(story)


def test_a_ledger_that_is_away_gets_503_and_nothing_is_promised(tell: Tell) -> None:
    async def story(world: World) -> None:
        world.ledger.writer.close()
        async with world.client.post(
            f"http://127.0.0.1:{world.port}/webhooks/crm", data=deal(), headers=signed(deal())
        ) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert json.loads(await answer.read())["code"] == "HUB-E7006"

    tell(story)


async def unfinished(world: World, number: int, come: int, announced: int = MAX_BODY) -> list[asyncio.StreamWriter]:
    """Strangers' connections whose bodies have come so far, and do not go on."""
    head = b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % announced
    writers = []
    for _ in range(number):
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(head + b"x" * come)
        await writer.drain()
        writers.append(writer)
    return writers


SMALL = Caps(total=1_000_000, free=4_000)


def test_strangers_unfinished_bodies_keep_no_signed_push_out(tell: Tell) -> None:
    """However many they are and however often they come again: what is small is not counted, what is large comes in time."""

    async def story(world: World) -> None:
        writers = []
        for number in range(6):
            writers += await unfinished(world, 10, 100_000)
            assert (await world.push(deal(number), f"small_{number}"))[0] == 202
            assert (await world.push(deal(number, version=8, title="x" * 200_000), f"large_{number}"))[0] == 202
        for writer in writers:
            writer.close()

    tell(story, SMALL)


def test_the_body_that_has_been_coming_for_longest_makes_room(tell: Tell) -> None:
    async def story(world: World) -> None:
        head = b"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
        first, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(head + b"x" * 500_000)
        await writer.drain()
        others = await unfinished(world, 3, 300_000)
        assert (await asyncio.wait_for(first.readline(), 5)).startswith(b"HTTP/1.1 503")
        for each in (writer, *others):
            each.close()

    tell(story, SMALL)


def test_senders_that_announce_much_and_send_little_keep_nobody_out(tell: Tell) -> None:
    async def story(world: World) -> None:
        writers = await unfinished(world, 100, 1)
        assert [(await world.push(deal(n)))[0] for n in range(5)] == [202] * 5
        for writer in writers:
            writer.close()

    tell(story, Caps(total=2000, free=100))


def test_one_connection_too_many_takes_the_place_of_the_oldest_that_says_nothing(tell: Tell) -> None:
    async def story(world: World) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(30)]
        assert (await asyncio.wait_for(silent[0][0].read(), 5), silent[29][0].at_eof()) == (b"", False)
        assert [(await world.push(deal(n), f"msg_{n}"))[0] for n in range(5)] == [202] * 5
        for _, writer in silent:
            writer.close()

    tell(story, most=10)


def test_where_all_ask_for_something_the_oldest_unfinished_body_gives_its_place(tell: Tell) -> None:
    async def story(world: World) -> None:
        writers = await unfinished(world, 10, 5)
        await asyncio.sleep(0)
        while len(world.door._server._busy) < 10:
            await asyncio.sleep(0.01)
        assert (await world.push(deal()))[0] == 202
        for writer in writers:
            writer.close()

    tell(story, most=10)


def test_an_expectation_that_nobody_knows_gets_417(tell: Tell) -> None:
    async def story(world: World) -> None:
        lines = [f"{name}: {value}".encode() for name, value in signed(deal()).items()]
        lines += [b"expect: nonsense", b"host: localhost", b"connection: close", b"content-length: %d" % len(deal())]
        sent = b"POST /webhooks/crm HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + deal()
        assert (await world.raw(sent)).startswith(b"HTTP/1.1 417")
        assert world.accepted() == 0

    tell(story)


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", b"nonsense\r\n\r\n"]
)
def test_no_answer_says_what_we_are_made_of(tell: Tell, sent: bytes) -> None:
    async def story(world: World) -> None:
        answer = await world.raw(sent)
        assert b"server: hub\r\n" in answer.lower()
        assert not [word for word in (b"aiohttp", b"python", b"nonsense") if word in answer.lower()]

    tell(story)


def test_one_senders_odd_json_makes_nobody_wait(tell: Tell) -> None:
    """A megabyte takes a good part of a second to read; others are answered in between."""
    odd = deal()[:-1] + b', "x": [' + b"1.0," * 12_000 + b"1], " + b'"y": "' + b"z" * 900_000 + b'"}'

    async def story(world: World) -> None:
        done = asyncio.gather(*(world.post(odd, _sign_bytes(odd)) for _ in range(12)))
        waits = []
        while not done.done():
            began = time.perf_counter()
            assert (await world.post(b"{", {}))[0] == 401
            waits.append(time.perf_counter() - began)
        assert {status for status, _ in await done} == {202}
        assert len(waits) > 20, "others are answered while it is read"

    tell(story)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "hub.example.com", ""])
def test_the_door_opens_to_this_machine_only(host: str) -> None:
    with pytest.raises(FatalError) as refused:
        ListenAddress(host).checked()
    assert refused.value.code == "HUB-E7001"


def test_a_port_that_is_taken_is_named(tell: Tell) -> None:
    async def story(world: World) -> None:
        with pytest.raises(FatalError) as refused:
            await WebServer(ListenAddress(port=world.port), world.pushes, _rest).open()
        assert (refused.value.code, refused.value.seen["port"]) == ("HUB-E7010", world.port)

    tell(story)
