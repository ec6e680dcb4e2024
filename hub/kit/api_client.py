"""Calls to an outside system over HTTP, with every way of failing told as one of ours.

What it rests on is the question "was it done?": never when nothing was written or the system said no, perhaps when the
answer is missing, late, cut short or unreadable. Secrets that it was told of never show in an error.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError, UnreadableError
from hub.kit import transport
from hub.kit.connector import RateLimits
from hub.runtime.logs import LEAST, forms

MAX_ANSWER = 1024 * 1024
"""The longest answer that is read, in bytes; no answer to a command is as long."""
MAX_WAIT = 3600.0
"""The longest that a system may ask us to wait, in seconds."""
_EXCERPT = 300
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "baton-hub"}


@dataclass(frozen=True)
class ApiRequest:
    """One request, ready to be written. `url` is encoded already."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None

    @property
    def shown(self) -> str:
        """The address as people may see it: without user, query or fragment, where secrets like to hide."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class ApiResponse:
    """What came back with a status that says done."""

    status: int
    body: bytes


class Outbound:
    """The way to one system. For any number of threads; opens connections only when called."""

    def __init__(
        self, instance: str, limits: RateLimits, secrets: Collection[str] = (), ca: str | None = None, login: str = "-"
    ) -> None:
        """`secrets` are masked in errors, `login` is shown in them as whom the system refused."""
        self._instance, self._login = instance, login
        self._limits = limits
        self._secrets = sorted((form for form in forms(secrets) if len(form) >= LEAST), key=len, reverse=True)
        self._pools = transport.pools(limits.at_once, ca)
        self._timeout = urllib3.Timeout(connect=limits.timeout, read=limits.timeout)

    def call(self, request: ApiRequest, repeatable: bool = False) -> ApiResponse:
        """Send it once and read the answer, in `limits.timeout` seconds for the connection and as many for the answer.

        `repeatable` says that the same request again is answered with the first result: a conflict may then be our own
        first request, still under way. Raises RetryableError when it surely was not done, UncertainError when it may have
        been, RejectedError when it never will be, FatalError for refused credentials.
        """
        with self._told(request):
            headers = _headers(request)
            if any(_CONTROL.search(text) for pair in headers.items() for text in pair):
                raise ValueError("a control character in a header")  # a folded line would be sent as it is
            response = self._pools.urlopen(
                request.method,
                request.url,
                body=request.body,
                headers={name: value.encode() for name, value in headers.items()},
                timeout=self._timeout,
                redirect=False,
                preload_content=False,
            )
            try:
                body = self._read(response, request)
            finally:
                response.close()  # a connection whose answer was read to its end stays open
                response.release_conn()
        if 200 <= response.status < 300:
            return ApiResponse(response.status, body)
        raise self._refusal(request, response, body, repeatable)

    def excerpt(self, body: bytes) -> str:
        """The beginning of an answer, for people: on one line, its secrets masked."""
        text = " ".join(self.masked(body[: 8 * _EXCERPT].decode("utf-8", "replace")).split())
        return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"

    def masked(self, text: str) -> str:
        """The text without the secrets of this instance."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _read(self, response: urllib3.BaseHTTPResponse, request: ApiRequest) -> bytes:
        """The answer's body. Of a refusal only what there is: its status says enough."""
        if response.status >= 300:
            with contextlib.suppress(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
                return b"".join(_pieces(response, 8 * _EXCERPT))
            return b""
        body = b"".join(_pieces(response, MAX_ANSWER + 1))
        if len(body) > MAX_ANSWER:
            raise UnreadableError("HUB-E4204", instance=self._instance, url=request.shown, limit=MAX_ANSWER)
        return body

    @contextlib.contextmanager
    def _told(self, request: ApiRequest) -> Iterator[None]:
        """Tell the errors of the libraries as ours."""
        transport.start()
        try:
            yield
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise self._failure(request, error) from error
        except ValueError as error:  # an address or a header that no library would write
            raise self._unsendable(request, error) from error

    def _failure(self, request: ApiRequest, error: Exception) -> HubError:
        causes = list(_causes(error))
        seen: dict[str, Any] = {"instance": self._instance, "url": request.shown}
        late = any(map(_is_late, causes))
        reason = self.masked(_innermost(causes))
        if transport.written():
            if late:
                return UncertainError("HUB-E4201", seconds=self._limits.timeout, **seen)
            return UncertainError("HUB-E4202", reason=reason, **seen)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return RetryableError("HUB-E4208", reason=reason, **seen)
        if any(isinstance(cause, ValueError) for cause in causes):
            return self._unsendable(request, error)
        return RetryableError("HUB-E4001", reason=f"> {self._limits.timeout:g} s" if late else reason, **seen)

    def _unsendable(self, request: ApiRequest, error: Exception) -> RejectedError:
        # The libraries' own words quote the address or the header, secrets and all.
        return RejectedError("HUB-E4209", instance=self._instance, url=request.shown, reason=type(error).__name__)

    def _refusal(
        self, request: ApiRequest, response: urllib3.BaseHTTPResponse, body: bytes, repeatable: bool
    ) -> HubError:
        """What a status other than done means for the command."""
        status = response.status
        wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        seen: dict[str, Any] = {"instance": self._instance, "url": request.shown}
        reason = f"HTTP {status}: {self.excerpt(body)}"
        if status in (401, 403, 407):
            return FatalError("HUB-E4003", login=f"{self._login}, HTTP {status}", **seen)
        if status == 429:
            return RetryableError("HUB-E4004", retry_after=wait, **seen)
        if status in (408, 425):  # by their definition the request was not acted on
            return RetryableError("HUB-E4005", retry_after=wait, reason=reason, **seen)
        if 300 <= status < 400:
            location = self.masked(response.headers.get("Location", "?").split("?")[0])
            kind = UnreadableError if status in (302, 303) else RejectedError  # 302 and 303 may point at what was made
            return kind("HUB-E4207", location=location, **seen)
        if status >= 500 or (status == 409 and repeatable):
            kind_ = UncertainError if status >= 500 else UnreadableError
            return kind_("HUB-E4002", retry_after=wait, reason=reason, **seen)
        return RejectedError("HUB-E4006", reason=reason, **seen)


def _headers(request: ApiRequest) -> Mapping[str, str]:
    """What is sent with it: a name and a password that stand in the address are credentials, as everywhere."""
    parts = urlsplit(request.url)
    own = {}
    if parts.username is not None:
        told = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        own = {"Authorization": f"Basic {b64encode(told.encode()).decode()}"}
    return {**_HEADERS, **own, **request.headers}


def _pieces(response: urllib3.BaseHTTPResponse, enough: int) -> Iterator[bytes]:
    """The body as it comes, unpacked, until there is enough of it; each piece is small, so that no packed bomb fits."""
    length = 0
    while length < enough and (piece := response.read1(65536, decode_content=True)):
        length += len(piece)
        yield piece


def retry_after(header: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` asks for, at most `MAX_WAIT`; None when it says nothing that can be read."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return min(float(header), MAX_WAIT)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), MAX_WAIT)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it wraps: the libraries hide the first cause in arguments, `reason` or the chain."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [*each.args, getattr(each, "reason", None), each.__cause__]


def _is_late(cause: BaseException) -> bool:
    """Whether time ran out; urllib3 counts a refused connection among the time-outs."""
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return False
    return isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError)


def _innermost(causes: list[BaseException]) -> str:
    """The operating system's own words where it has some, else the last cause's."""
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return str(causes[-1]) or type(causes[-1]).__name__
