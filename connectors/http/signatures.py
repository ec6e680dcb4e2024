"""Says whether a push was signed by someone who knows the secret: on its raw bytes, in constant time."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
from collections.abc import Sequence

from standardwebhooks import Webhook, WebhookVerificationError

from connectors.http.settings import Verify
from hub.connector import Delivery, Instance
from hub.errors import FatalError, RejectedError

MIN_SECRET = 8
"""Bytes. The standard asks for 24; shorter ones are still met in the field."""
_SAMPLES = frozenset(b"changeme change-me change_me password password1 12345678 123456789 webhook-secret".split())
PREFIX = "whsec_"
_STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Verifier:
    """Checks pushes to one instance; any of its secrets will do, so that one can take over from another."""

    def __init__(self, verify: Verify, instance: Instance) -> None:
        """Raises FatalError for a secret that is empty, too short, well known, or of the wrong form."""
        self._instance = instance.name
        secrets = [secret.get_secret_value() for secret in verify.secret]
        self._keys = [_key(secret, verify.scheme, instance) for secret in secrets]
        self._is_signed = _standard if verify.scheme == "standard-webhooks" else _hub_signature

    def verify(self, delivery: Delivery) -> None:
        """Raises RejectedError unless the delivery carries a right signature; it never says what was wrong with it."""
        if not self._is_signed(self._keys, delivery):
            raise RejectedError("HUB-E4220", instance=self._instance)


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
    if len(key) < MIN_SECRET or len(set(key)) < 4 or {key.lower(), secret.lower().encode()} & _SAMPLES:
        raise FatalError("HUB-E4014", place=instance.place(path), **seen)
    return key


def _standard(keys: Sequence[bytes], delivery: Delivery) -> bool:
    """Standard Webhooks 1.0: signed with its id and its time, which may be 5 minutes off."""
    given = {name: delivery.headers[name] for name in _STANDARD if name in delivery.headers}
    for key in keys:
        # ValueError: what the library raises on its own for headers and bodies that no sender means seriously.
        with contextlib.suppress(WebhookVerificationError, ValueError):
            Webhook(key).verify(delivery.body, given, json_parse=False)
            return True
    return False


def _hub_signature(keys: Sequence[bytes], delivery: Delivery) -> bool:
    """`X-Hub-Signature-256: sha256=<hex>` over the body alone; it cannot tell a push from its repetition."""
    given = delivery.headers.get("x-hub-signature-256", "").encode()
    signed = [b"sha256=" + hmac.new(key, delivery.body, hashlib.sha256).hexdigest().encode() for key in keys]
    return any(hmac.compare_digest(given, each) for each in signed)
