"""Passes requests on to the boards' server, which listens on a socket of this machine only, as they come and as they stream."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from hub.errors import RejectedError, text_of
from hub.runtime.files import name_of
from hub.web import webhooks
from hub.web.bodies import Bodies
from hub.web.connections import SERVER

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names that a browser may call us by. A foreign page could point a name of its own at 127.0.0.1; that one is refused."""
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.ASCII)
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS = HOP_BY_HOP | {"content-length", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
_NEVER_HOP_BY_HOP = {"host", "origin", "cookie", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user"}
"""What tells the boards who asks: no sender may have it taken off on the way by naming it in `Connection`."""
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Passage:
    """The way to the boards. For the event loop's thread; `open` before use."""

    def __init__(self, boards: Path, bodies: Bodies) -> None:
        self._boards, self._bodies = boards, bodies
        self._client: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready; opens no connection."""
        self._client = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(name_of(self._boards), limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),  # a live board's stream never ends
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NOT_ADDED,
        )

    async def close(self) -> None:
        """End every stream."""
        if self._client is not None:
            await self._client.close()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Have the boards answer; raises RejectedError for a foreign host. While they are away, says that they are starting."""
        check_host(request)
        async with self._bodies.read(request) as read:
            body = read  # a stream may last for hours; what it was asked with does not count for as long
        try:
            return await self._pass(request, body)
        except (aiohttp.ClientError, ConnectionError):
            if request.writer.output_size:  # the answer has begun, and must not look like a whole one
                raise ConnectionResetError from None
            return starting(request)

    async def status(self) -> int | None:
        """The status that the boards' own `/health` has; None while they are away."""
        if self._client is None or self._client.closed:
            return None
        try:
            limit = aiohttp.ClientTimeout(total=2.0)
            async with self._client.get("http://localhost/health", timeout=limit, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def _pass(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if self._client is None or self._client.closed:
            return starting(request)
        address = URL(f"http://localhost{request.raw_path}", encoded=True)
        sent = self._client.request(
            request.method, address, headers=_onward(request), data=body or None, allow_redirects=False
        )
        async with sent as upstream:
            headers = _kept(upstream.headers, HOP_BY_HOP)
            headers["Server"] = SERVER
            answer = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer


def check_host(request: web.BaseRequest) -> None:
    """Refuse a request that calls us by a name that is not ours, or that asks for an address elsewhere."""
    found = HOST.fullmatch(request.headers.get("Host", "").lower())
    if found is None or found["name"] not in HOSTS or not request.raw_path.startswith("/"):
        raise RejectedError("HUB-E7011")


def starting(request: web.BaseRequest) -> web.Response:
    """What a reader gets before the boards are there: a page that looks again by itself, or a problem for a program."""
    if "text/html" not in request.headers.get("Accept", ""):
        return webhooks.problem(request, "HUB-E7012")
    first = webhooks.language_of(request)
    languages = (first, "en" if first == "zh-CN" else "zh-CN")
    said = "".join(
        f'<p lang="{language}"><strong>{html.escape(text["say"])}</strong> {html.escape(text["fix"])}</p>'
        for language in languages
        for text in [text_of("HUB-E7012", language)]
    )
    page = (
        f'<!doctype html><html lang="{first}"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        f"<title>{html.escape(text_of('HUB-E7012', first)['say'])}</title><main>{said}</main></html>"
    )
    headers = {
        "Retry-After": "2",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(status=503, text=page, content_type="text/html", headers=headers)


def _onward(request: web.BaseRequest) -> CIMultiDict[str]:
    headers = _kept(request.headers, _OURS)
    headers["X-Forwarded-For"] = request.remote or ""
    headers["X-Forwarded-Host"] = request.headers.get("Host", "")
    headers["X-Forwarded-Proto"] = "http"
    return headers


def _kept(headers: Mapping[str, str], dropped: frozenset[str]) -> CIMultiDict[str]:
    """The headers that go further: not those of one connection, nor those that it names itself."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")} - _NEVER_HOP_BY_HOP
    kept = ((name, value) for name, value in headers.items() if name.lower() not in dropped | named)
    return CIMultiDict(kept)
