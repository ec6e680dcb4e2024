"""Reverse proxy to the boards' server, which listens on a Unix socket of this machine; responses are streamed unchanged."""

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
from hub.runtime.files import socket_name
from hub.web import webhooks
from hub.web.bodies import Bodies
from hub.web.connections import SERVER

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Accepted host names. A foreign page could point a DNS name of its own at 127.0.0.1 (DNS rebinding); that is refused."""
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
_SET_BY_PROXY = HOP_BY_HOP | {"content-length", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
_NEVER_HOP_BY_HOP = {"host", "origin", "cookie", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user"}
"""Headers that identify the requester to the boards: a sender must not have them removed by naming them in `Connection`."""
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class BoardsProxy:
    """The proxy to the boards' server. For the event loop's thread; call `open` before use."""

    def __init__(self, boards: Path, bodies: Bodies) -> None:
        self._boards, self._bodies = boards, bodies
        self._client: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create the HTTP client; opens no connection."""
        self._client = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket_name(self._boards), limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),  # the stream of a live page never ends
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NOT_ADDED,
        )

    async def close(self) -> None:
        """End every stream."""
        if self._client is not None:
            await self._client.close()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward a request. Raises RejectedError for a foreign host. Answers `starting` while the boards are unavailable."""
        check_host(request)
        async with self._bodies.read(request) as content:
            body = content  # leaves the block: a stream may last for hours, and its request body must not count for as long
        try:
            return await self._forward(request, body)
        except (aiohttp.ClientError, ConnectionError):
            if request.writer.output_size:  # the response has begun, and must not look complete
                raise ConnectionResetError from None
            return starting(request)

    async def status(self) -> int | None:
        """The HTTP status of the boards' own `/health`; None while they are unavailable."""
        if self._client is None or self._client.closed:
            return None
        try:
            limit = aiohttp.ClientTimeout(total=2.0)
            async with self._client.get("http://localhost/health", timeout=limit, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if self._client is None or self._client.closed:
            return starting(request)
        address = URL(f"http://localhost{request.raw_path}", encoded=True)
        exchange = self._client.request(
            request.method, address, headers=_request_headers(request), data=body or None, allow_redirects=False
        )
        async with exchange as upstream:
            headers = _end_to_end(upstream.headers, HOP_BY_HOP)
            headers["Server"] = SERVER
            answer = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer


def check_host(request: web.BaseRequest) -> None:
    """Raise RejectedError for a request with a foreign Host header, or for a URL of another server."""
    found = HOST.fullmatch(request.headers.get("Host", "").lower())
    if found is None or found["name"] not in HOSTS or not request.raw_path.startswith("/"):
        raise RejectedError("HUB-E7011")


def starting(request: web.BaseRequest) -> web.Response:
    """The response before the boards have started: a page that reloads itself or, for a program, a problem document."""
    if "text/html" not in request.headers.get("Accept", ""):
        return webhooks.problem(request, "HUB-E7012")
    first = webhooks.language_of(request)
    languages = (first, "en" if first == "zh-CN" else "zh-CN")
    paragraphs = "".join(
        f'<p lang="{language}"><strong>{html.escape(text["say"])}</strong> {html.escape(text["fix"])}</p>'
        for language in languages
        for text in [text_of("HUB-E7012", language)]
    )
    page = (
        f'<!doctype html><html lang="{first}"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        f"<title>{html.escape(text_of('HUB-E7012', first)['say'])}</title><main>{paragraphs}</main></html>"
    )
    headers = {
        "Retry-After": "2",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(status=503, text=page, content_type="text/html", headers=headers)


def _request_headers(request: web.BaseRequest) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers, _SET_BY_PROXY)
    headers["X-Forwarded-For"] = request.remote or ""
    headers["X-Forwarded-Host"] = request.headers.get("Host", "")
    headers["X-Forwarded-Proto"] = "http"
    return headers


def _end_to_end(headers: Mapping[str, str], dropped: frozenset[str]) -> CIMultiDict[str]:
    """The end-to-end headers: without hop-by-hop headers and without those that `Connection` names."""
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")} - _NEVER_HOP_BY_HOP
    forwarded = ((name, value) for name, value in headers.items() if name.lower() not in dropped | named)
    return CIMultiDict(forwarded)
