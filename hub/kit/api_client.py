"""The HTTP client for outside systems: maps every failure to an error of the hub.

The error class answers "may the request have been executed?": certainly not when nothing was written or the system refused it,
possibly when the response is missing, late, truncated or unreadable. Known secrets never appear in an error.
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
from hub.runtime.logs import MIN_ENCODED_LENGTH, spellings

MAX_RESPONSE_BYTES = 1024 * 1024
"""Maximum size of a response; no response to a command is as long."""
MAX_RETRY_AFTER_S = 3600.0
"""Upper limit of a `Retry-After`."""
_EXCERPT_CHARS = 300
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "baton-hub"}


@dataclass(frozen=True)
class ApiRequest:
    """One HTTP request. `url` is already encoded."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None

    @property
    def shown(self) -> str:
        """The URL for logs and errors: without user, query and fragment, which may hold secrets."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class ApiResponse:
    """A response with a 2xx status."""

    status: int
    body: bytes


class ApiClient:
    """The HTTP client of one instance. Thread-safe; opens connections only when called."""

    def __init__(
        self, instance: str, limits: RateLimits, secrets: Collection[str] = (), ca: str | None = None, login: str = "-"
    ) -> None:
        """`secrets` are masked in errors; `login` is the account shown when the system refuses the credentials."""
        self._instance, self._login = instance, login
        self._limits = limits
        self._secrets = sorted(
            (form for form in spellings(secrets) if len(form) >= MIN_ENCODED_LENGTH), key=len, reverse=True
        )
        self._pools = transport.pools(limits.at_once, ca)
        self._timeout = urllib3.Timeout(connect=limits.timeout, read=limits.timeout)

    def call(self, request: ApiRequest, repeatable: bool = False) -> ApiResponse:
        """Send the request once and read the response, within `limits.timeout` seconds each for connecting and for the response.

        `repeatable`: the system answers a repeated request with the first result, so a 409 may come from our own first request,
        still in progress. Raises RetryableError when it certainly was not executed, UncertainError when it may have been,
        RejectedError when it never will be, FatalError for refused credentials.
        """
        with self._translated_errors(request):
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
                response.close()  # a connection whose response was read to its end stays open
                response.release_conn()
        if 200 <= response.status < 300:
            return ApiResponse(response.status, body)
        raise self._refusal(request, response, body, repeatable)

    def excerpt(self, body: bytes) -> str:
        """The beginning of a response, for people: on one line, secrets masked."""
        text = " ".join(self.masked(body[: 8 * _EXCERPT_CHARS].decode("utf-8", "replace")).split())
        return text if len(text) <= _EXCERPT_CHARS else text[: _EXCERPT_CHARS - 1] + "…"

    def masked(self, text: str) -> str:
        """The text without the secrets of this instance."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _read(self, response: urllib3.BaseHTTPResponse, request: ApiRequest) -> bytes:
        """The response body. For a 3xx to 5xx status a partial body is enough: read errors are ignored."""
        if response.status >= 300:
            with contextlib.suppress(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
                return b"".join(_chunks(response, 8 * _EXCERPT_CHARS))
            return b""
        body = b"".join(_chunks(response, MAX_RESPONSE_BYTES + 1))
        if len(body) > MAX_RESPONSE_BYTES:
            raise UnreadableError("HUB-E4204", instance=self._instance, url=request.shown, limit=MAX_RESPONSE_BYTES)
        return body

    @contextlib.contextmanager
    def _translated_errors(self, request: ApiRequest) -> Iterator[None]:
        """Raise the libraries' errors as errors of the hub."""
        transport.reset_written()
        try:
            yield
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise self._failure(request, error) from error
        except ValueError as error:  # a URL or a header that the library refuses to send
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
        # The libraries' messages quote the URL or the header, secrets included.
        return RejectedError("HUB-E4209", instance=self._instance, url=request.shown, reason=type(error).__name__)

    def _refusal(
        self, request: ApiRequest, response: urllib3.BaseHTTPResponse, body: bytes, repeatable: bool
    ) -> HubError:
        """The error for a status other than 2xx."""
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
            kind = (
                UnreadableError if status in (302, 303) else RejectedError
            )  # 302 and 303 may point at the created object
            return kind("HUB-E4207", location=location, **seen)
        if status >= 500 or (status == 409 and repeatable):
            kind_ = UncertainError if status >= 500 else UnreadableError
            return kind_("HUB-E4002", retry_after=wait, reason=reason, **seen)
        return RejectedError("HUB-E4006", reason=reason, **seen)


def _headers(request: ApiRequest) -> Mapping[str, str]:
    """All request headers: a user and password in the URL are sent as basic authentication."""
    parts = urlsplit(request.url)
    authorization = {}
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
    return {**_HEADERS, **authorization, **request.headers}


def _chunks(response: urllib3.BaseHTTPResponse, enough: int) -> Iterator[bytes]:
    """The decompressed body in chunks, up to `enough` bytes; small chunks, so that a compression bomb is never read whole."""
    length = 0
    while length < enough and (chunk := response.read1(65536, decode_content=True)):
        length += len(chunk)
        yield chunk


def retry_after(header: str | None, now: datetime) -> float | None:
    """The seconds of a `Retry-After` header, at most `MAX_RETRY_AFTER_S`; None when it cannot be parsed."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return min(float(header), MAX_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all errors it wraps: the libraries put the first cause into arguments, `reason` or the chain."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [*each.args, getattr(each, "reason", None), each.__cause__]


def _is_late(cause: BaseException) -> bool:
    """Whether it is a time-out; urllib3 counts a refused connection among them."""
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return False
    return isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError)


def _innermost(causes: list[BaseException]) -> str:
    """The operating system's error text if there is one, else the last cause's."""
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return str(causes[-1]) or type(causes[-1]).__name__
