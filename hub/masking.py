"""Secrets as they may come back: as they are, percent-encoded, in base64, and what stands before the `@` of an address.

A system that echoes what it got, or an error that quotes it, must not show one in another spelling.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote, urlsplit

LEAST = 4
"""Characters of a secret below which only the whole text itself is hidden: its base64 would be found everywhere."""
WORD, TOKEN = 6, 16
"""Characters of a password that is hidden wherever it stands, and of a name without one that is taken for a token: shorter ones are
words like `hub`, which an error is full of, and are hidden as the pair that is sent."""
_URL_SAFE = str.maketrans("+/", "-_")


def forms(secrets: Iterable[str]) -> set[str]:
    """Each secret and its other spellings."""
    return {form for secret in secrets for form in _forms(secret)}


def login_secrets(text: str) -> set[str]:
    """What an address tells of a password: itself, and the pair that it is sent as; nothing of a text that is no such address."""
    if "@" not in text or "://" not in text:
        return set()
    try:
        user, password = urlsplit(text).username, urlsplit(text).password
    except ValueError:
        return set()
    if not password:
        return {user, unquote(user)} if user and len(user) >= TOKEN else set()
    pairs = {f"{user}:{password}", f"{unquote(user or '')}:{unquote(password)}"}
    return pairs | {word for word in (password, unquote(password)) if len(word) >= WORD}


def _forms(secret: str) -> Iterator[str]:
    if not secret:
        return
    yield secret
    if len(secret) < LEAST:
        return
    yield quote(secret, safe="")
    for form in (b64encode(secret.encode(errors="replace")).decode(), *_inner(secret.encode(errors="replace"))):
        yield form
        yield form.translate(_URL_SAFE)


def _inner(raw: bytes) -> Iterator[str]:
    """Its base64 in the middle of a longer text: three alignments, without the digits that neighbours share."""
    for before in range(3):
        whole = b64encode(bytes(before) + raw).decode()
        inner = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        if len(inner) >= LEAST + 2:
            yield inner
