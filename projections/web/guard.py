"""What every answer carries and every request must pass: the host, the origin of what changes something, strict headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.errors import RejectedError

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.ASCII)
Refuse = Callable[[Scope, RejectedError], ASGIApp]
SAFE = frozenset({"GET", "HEAD"})


class Guard:
    """Refuses foreign hosts and foreign origins, and puts the headers on every answer.

    A page elsewhere can make a browser call us, but cannot make it say another Origin; and by a name of its own that it points
    at 127.0.0.1 it would say another Host. Who sends neither Origin nor Sec-Fetch-Site is no browser with a form of ours.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], refuse: Refuse) -> None:
        self.app, self.hosts, self.refuse = app, frozenset(host.lower() for host in hosts), refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        error = self._check(scope["method"], scope["scheme"], Headers(scope=scope))
        await (self.app if error is None else self.refuse(scope, error))(scope, receive, with_headers)

    def _check(self, method: str, scheme: str, headers: Headers) -> RejectedError | None:
        host = headers.get("host", "")
        if not _is_ours(host, self.hosts):
            return RejectedError("HUB-E7103", host=host[:100])
        if method in SAFE:
            return None
        origin = headers.get("origin")
        own = (
            origin.lower() == f"{scheme}://{host}".lower() if origin else headers.get("sec-fetch-site") == "same-origin"
        )
        return None if own else RejectedError("HUB-E7104", origin=(origin or "")[:100])


def _is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header is one of the names, with or without a port."""
    found = HOST.fullmatch(host.lower())
    return found is not None and found["name"] in names
