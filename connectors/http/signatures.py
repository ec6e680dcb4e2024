"""Verifies a push's signature: on its raw bytes, in constant time.

Signed values have one spelling: another way to write the same time, id or signature is refused, so that no push has two ids.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from connectors.http.settings import Verify
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Delivery, Instance

MIN_SECRET_BYTES = 8
"""The standard demands 24 bytes; shorter secrets are still in use."""
TOLERANCE_S = 300
"""Seconds that the sender's clock may differ from ours, by Standard Webhooks."""
_WELL_KNOWN_SECRETS = frozenset(
    b"changeme change-me change_me password password1 12345678 123456789 webhook-secret".split()
)
SIGNED_HEADERS: Mapping[str, frozenset[str]] = {
    "standard-webhooks": frozenset({"webhook-id", "webhook-timestamp"}),
    "x-hub-signature-256": frozenset(),
}
"""Headers that a scheme signs. Any proxy could have changed the others."""
PREFIX = "whsec_"
_ID = re.compile(r"[!-~]{1,200}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_TIMESTAMP_PREFIX = re.compile(rb"[0-9]{1,12}\.")
"""The start of a forged body that includes the timestamp of another push: the signed text is `id.timestamp.body`, and ids may hold
dots. A mapping reads JSON objects, so no genuine body starts like this."""
_SIGNATURES = re.compile(r"v[0-9a-z]{1,4},[A-Za-z0-9+/]+={0,2}(?: v[0-9a-z]{1,4},[A-Za-z0-9+/]+={0,2})*", re.ASCII)


class Verifier:
    """Verifies pushes to one instance; any of its secrets is valid, so that they can be rotated."""

    def __init__(self, verify: Verify, instance: Instance) -> None:
        """Raises FatalError for a secret that is empty, too short, well known, or of the wrong form."""
        self._instance = instance.name
        secrets = [secret.get_secret_value() for secret in verify.secret]
        self._keys = [_key(secret, verify.scheme, instance) for secret in secrets]
        self._is_signed = _standard if verify.scheme == "standard-webhooks" else _hub_signature
        self.signed = SIGNED_HEADERS[verify.scheme]

    def verify(self, delivery: Delivery) -> None:
        """Raises RejectedError unless the delivery carries a valid signature; the error never gives the reason."""
        if not self._is_signed(self._keys, delivery):
            raise RejectedError("HUB-E4220", instance=self._instance)

    def id_of(self, delivery: Delivery) -> str | None:
        """The id of a delivery that was verified, None where the scheme signs none."""
        return delivery.headers.get("webhook-id") if "webhook-id" in self.signed else None


def _key(secret: str, scheme: str, instance: Instance) -> bytes:
    path = ("receive", "verify", "secret")
    seen = {"instance": instance.name, "setting": ".".join(path)}
    key = secret.encode()
    if scheme == "standard-webhooks":
        try:
            plain = secret.removeprefix(PREFIX)
            key = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError) as error:
            raise FatalError("HUB-E4015", place=instance.place(path), **seen) from error
    if len(key) < MIN_SECRET_BYTES or len(set(key)) < 4 or {key.lower(), secret.lower().encode()} & _WELL_KNOWN_SECRETS:
        raise FatalError("HUB-E4014", place=instance.place(path), **seen)
    return key


def _standard(keys: Sequence[bytes], delivery: Delivery) -> bool:
    """Standard Webhooks 1.0: signed with its id and its time, which may be 5 minutes off."""
    id_ = _ID.fullmatch(delivery.headers.get("webhook-id", ""))
    timestamp = _TIMESTAMP.fullmatch(delivery.headers.get("webhook-timestamp", ""))
    signatures = _SIGNATURES.fullmatch(delivery.headers.get("webhook-signature", ""))
    if id_ is None or timestamp is None or signatures is None or _TIMESTAMP_PREFIX.match(delivery.body):
        return False
    if abs(delivery.received.timestamp() - int(timestamp[0])) > TOLERANCE_S:
        return False
    content = f"{id_[0]}.{timestamp[0]}.".encode() + delivery.body
    right = [b"v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in keys]
    given = signatures[0].encode().split(b" ")
    return any(hmac.compare_digest(one, other) for one in given for other in right)


def _hub_signature(keys: Sequence[bytes], delivery: Delivery) -> bool:
    """`X-Hub-Signature-256: sha256=<hex>` over the body alone; it cannot distinguish a push from its repetition."""
    given = delivery.headers.get("x-hub-signature-256", "").encode(errors="replace")
    signed = [b"sha256=" + hmac.digest(key, delivery.body, hashlib.sha256).hex().encode() for key in keys]
    return any(hmac.compare_digest(given, each) for each in signed)
