"""A push is believed only with a right signature over its raw bytes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import random
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from connectors.http.settings import Verify
from connectors.http.signatures import Verifier
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Delivery, Instance

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another tenant's secret!").decode()
BODY = '{"客户": "海川集团"}'.encode()
INSTANCE = Instance("crm", "http", {})


def _verifier(*secrets: str, scheme: str = "standard-webhooks") -> Verifier:
    return Verifier(Verify.model_validate({"scheme": scheme, "secret": list(secrets)}), INSTANCE)


def _signed(secret: str = SECRET, at: datetime | None = None, body: bytes = BODY) -> dict[str, str]:
    when = at or datetime.now(UTC)
    signature = Webhook(secret).sign("msg_1", when, body.decode())
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": signature,
    }


def _is_believed(headers: dict[str, str], body: bytes = BODY, verifier: Verifier | None = None) -> bool:
    try:
        (verifier or _verifier(SECRET)).verify(Delivery(headers, body, datetime.now(UTC)))
    except RejectedError:
        return False
    return True


def test_the_published_vector_of_the_standard_is_what_is_signed() -> None:
    at = datetime.fromtimestamp(1614265330, UTC)
    body = '{"test": 2432232314}'
    vector = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert Webhook(SECRET).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body) == vector
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": vector,
    }
    assert not _is_believed(headers, body.encode()), "it is years old"


def test_a_right_signature_is_believed() -> None:
    assert _is_believed(_signed())


def test_one_right_signature_among_several_is_enough() -> None:
    headers = _signed()
    headers["webhook-signature"] = f"v1,{'A' * 43}= {headers['webhook-signature']}"
    assert _is_believed(headers)


def test_while_a_secret_is_rotated_both_are_believed() -> None:
    both = _verifier(OTHER, SECRET)
    assert _is_believed(_signed(SECRET), verifier=both)
    assert _is_believed(_signed(OTHER), verifier=both)


@pytest.mark.parametrize(("seconds", "believed"), [(-290, True), (290, True), (-310, False), (310, False)])
def test_five_minutes_may_lie_between_the_clocks(seconds: int, believed: bool) -> None:
    assert _is_believed(_signed(at=datetime.now(UTC) + timedelta(seconds=seconds))) is believed


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,!!!"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": "v2," + "A" * 43 + "="},
        {"webhook-signature": "v1," + "A" * 43 + "="},
        {"webhook-signature": "密"},
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "nan"},
        {"webhook-timestamp": "inf"},
        {"webhook-timestamp": "-1e300"},
        {"webhook-signature": _signed(OTHER)["webhook-signature"]},
    ],
)
def test_anything_else_is_refused_alike(change: dict[str, str]) -> None:
    assert not _is_believed(_signed() | change)


def test_each_changed_bit_is_noticed() -> None:
    headers = _signed()
    for at in range(len(BODY)):
        changed = bytes([*BODY[:at], BODY[at] ^ 1, *BODY[at + 1 :]])
        assert not _is_believed(headers, changed)
    for name in headers:
        missing = {key: value for key, value in headers.items() if key != name}
        assert not _is_believed(missing)


@pytest.mark.parametrize("body", [b"\xff\xfe", "网关".encode("gbk"), b"\xef\xbb\xbf{}", b"\0", b""])
def test_a_signature_is_over_bytes_whatever_they_mean(body: bytes) -> None:
    assert _is_believed(_sealed(body), body)
    assert not _is_believed(_sealed(body), body + b"\xff")
    assert not _is_believed(_signed(), body)


def _sealed(body: bytes, id_: str = "msg_1", timestamp: str | None = None) -> dict[str, str]:
    """The headers of a push whose body may be any bytes, signed by hand."""
    at = timestamp or str(int(datetime.now(UTC).timestamp()))
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    seal = base64.b64encode(hmac.digest(key, f"{id_}.{at}.".encode() + body, hashlib.sha256)).decode()
    return {"webhook-id": id_, "webhook-timestamp": at, "webhook-signature": f"v1,{seal}"}


@pytest.mark.parametrize("id_", ["", "a b", "a" * 201, "密", "a\x7f", "a\udcff"])
def test_an_id_that_no_header_may_hold_is_refused_though_signed(id_: str) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        assert not _is_believed(_sealed(BODY, id_))


def test_an_id_with_dots_in_it_is_believed_and_its_signature_is_of_one_push_only() -> None:
    now = str(int(datetime.now(UTC).timestamp()))
    headers = _sealed(BODY, f"deal.won-1.{now}")
    assert _is_believed(headers)
    shorter = headers | {"webhook-id": "deal.won-1", "webhook-timestamp": now}
    assert not _is_believed(shorter, f"{now}.".encode() + BODY), "the same bytes are signed"


@pytest.mark.parametrize("write", ["+{}", " {}", "{}.9", "{}_0", "-{}", "0x{}", "{}e0"])
def test_a_time_in_another_spelling_is_refused_though_signed(write: str) -> None:
    now = str(int(datetime.now(UTC).timestamp()))
    assert not _is_believed(_sealed(BODY, timestamp=write.format(now)))


def test_no_other_spelling_of_a_right_signature_is_believed() -> None:
    """10,000 mutants: each header, each place, with what other parsers take for the same."""
    headers, draw = _signed(), random.Random(20261130)
    believed = []
    for _ in range(10_000):
        name = draw.choice(list(headers))
        mutant = headers | {name: _mutated(headers[name], draw)}
        if mutant != headers and _is_believed(mutant):
            believed.append(mutant[name])
    assert believed == []


_ALIKE = {digit: f"{chr(0x660 + int(digit))}{chr(0xFF10 + int(digit))}" for digit in "0123456789"}
_JUNK = " \t\r\n\x00\x7f+-._,=~%0AaZ٣１é\udcff\ud83d"


def _mutated(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    how = draw.randrange(7)
    if how == 0:
        return text[:at] + draw.choice(_JUNK) + text[at:]
    if how == 1 and at < len(text):
        return text[:at] + draw.choice(_ALIKE.get(text[at], _JUNK)) + text[at + 1 :]
    if how == 2:
        return text[:at] + text[at + 1 :]
    if how == 3:
        return text.swapcase() if draw.random() < 0.5 else text.replace("+", "-").replace("/", "_")
    if how == 4:
        return draw.choice(
            [text + "=", text.rstrip("="), text + ".0", "+" + text, f"0{text}", f" {text} ", text + "\n"]
        )
    if how == 5 and at < len(text):
        return text[:at] + chr(ord(text[at]) ^ (1 << draw.randrange(7))) + text[at + 1 :]
    return text[::-1] if draw.random() < 0.5 else f"{text},{text}"


GITHUB = "It's a Secret to Everybody"
VECTOR = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def test_githubs_published_vector_is_believed() -> None:
    verifier = _verifier(GITHUB, scheme="x-hub-signature-256")
    assert _is_believed({"x-hub-signature-256": VECTOR}, b"Hello, World!", verifier)
    rotated = _verifier("a new one, not yet used", GITHUB, scheme="x-hub-signature-256")
    assert _is_believed({"x-hub-signature-256": VECTOR}, b"Hello, World!", rotated)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha256=",
        VECTOR.removeprefix("sha256="),
        VECTOR[:-1],
        VECTOR + "0",
        "sha1=" + hmac.new(GITHUB.encode(), b"Hello, World!", hashlib.sha1).hexdigest(),
        "sha256=密",
    ],
)
def test_anything_but_that_signature_is_refused(signature: str) -> None:
    verifier = _verifier(GITHUB, scheme="x-hub-signature-256")
    assert not _is_believed({"x-hub-signature-256": signature}, b"Hello, World!", verifier)
    assert not _is_believed({}, b"Hello, World!", verifier)


@pytest.mark.parametrize(
    ("scheme", "secret", "code"),
    [
        ("standard-webhooks", "", "HUB-E4014"),
        ("standard-webhooks", "whsec_", "HUB-E4014"),
        ("standard-webhooks", "whsec_" + base64.b64encode(b"short").decode(), "HUB-E4014"),
        ("standard-webhooks", "whsec_" + base64.b64encode(b"change-me").decode(), "HUB-E4014"),
        ("standard-webhooks", "whsec_" + base64.b64encode(bytes(32)).decode(), "HUB-E4014"),
        ("standard-webhooks", "whsec_not base64", "HUB-E4015"),
        ("standard-webhooks", "whsec_密钥", "HUB-E4015"),
        ("x-hub-signature-256", "", "HUB-E4014"),
        ("x-hub-signature-256", "secret", "HUB-E4014"),
        ("x-hub-signature-256", "ChangeMe", "HUB-E4014"),
        ("x-hub-signature-256", "xxxxxxxxxxxxxxxx", "HUB-E4014"),
    ],
)
def test_a_secret_that_is_none_is_refused(scheme: str, secret: str, code: str) -> None:
    with pytest.raises(FatalError) as caught:
        _verifier(SECRET if scheme == "standard-webhooks" else GITHUB, secret, scheme=scheme)
    assert caught.value.code == code
    assert secret not in caught.value.seen.values()
