from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.runtime.logs import login_secrets, spellings

SECRETS = st.text(st.characters(codec="utf-8"), min_size=8, max_size=40)


def masked(text: str, secrets: set[str]) -> str:
    for form in sorted(spellings(secrets), key=len, reverse=True):
        text = text.replace(form, "***")
    return text


@given(SECRETS, st.binary(max_size=12), st.binary(max_size=12))
def test_a_secret_is_hidden_in_every_spelling_of_it(secret: str, before: bytes, after: bytes) -> None:
    whole = before + secret.encode() + after
    for echo in (b64encode(whole).decode(), urlsafe_b64encode(whole).decode()):
        left = masked(echo, {secret})
        assert "***" in left
        longest = max(map(len, left.split("***")))
        assert longest <= -(-max(len(before), len(after)) * 8 // 6) + 3, "what is left is of the neighbours"
    assert masked(f"<{secret}>", {secret}) == "<***>"
    assert masked(f"?token={quote(secret, safe='')}", {secret}) == "?token=***"


@pytest.mark.parametrize(
    ("address", "sent", "shown"),
    [
        ("http://bob:canaryURLpw9@pm.example/x", "bob:canaryURLpw9", "canaryURLpw9"),
        ("http://bob:a%40b%2Fcdef@pm.example", "bob:a@b/cdef", "a@b/cdef"),
        ("https://ghp_0123456789abcdefghij@api.example/", "ghp_0123456789abcdefghij", "ghp_0123456789abcdefghij"),
        ("postgresql+psycopg://hub:sesame-sesame@db/hub", "hub:sesame-sesame", "sesame-sesame"),
    ],
)
def test_what_an_address_tells_of_a_password_is_hidden_with_what_is_sent_of_it(
    address: str, sent: str, shown: str
) -> None:
    """A target that echoes showed `Basic Ym9i… = bob:canaryURLpw9` (A12)."""
    secrets = login_secrets(address)
    echo = f"Basic {b64encode(sent.encode()).decode()} = {sent} {shown}"
    assert masked(echo, secrets) == "Basic *** = *** ***"


@pytest.mark.parametrize("text", ["http://h/x@y", "bob@example.com", "http://git@h", "http://[", "", "x://@h"])
def test_what_tells_of_no_password_hides_nothing(text: str) -> None:
    assert login_secrets(text) == set()


def test_a_short_word_is_hidden_as_the_pair_only() -> None:
    secrets = login_secrets("postgresql://hub:hub@db/hub")
    assert masked("hub audit: hub:hub", secrets) == "hub audit: ***"
