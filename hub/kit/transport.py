"""HTTP connections that add two things to urllib3: they record whether a request was written, and bound the whole response time.

A request that failed before its first byte was written was certainly not executed; after that it may have been. And a plain read
time-out lets a server that sends one byte a second block a thread for hours: here it bounds the whole response.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import io
import socket
import threading
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from hub.runtime.failpoints import failpoint

_call = threading.local()


class _Bounded(io.RawIOBase):
    """Reads from a socket until a deadline: each wait is limited to the remaining time."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """A response whose head and body together must arrive within the read time-out."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None:
            self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock, seconds))


class _WriteTracking(HTTPConnection):
    """Records that request bytes were written, once the connection is open."""

    response_class = _BoundedResponse

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        failpoint("http.before-write")
        _call.written = True
        super().send(data)
        failpoint("http.written")

    def getresponse(self) -> Any:
        response = super().getresponse()
        failpoint("http.answered")
        return response


class _Connection(_WriteTracking):
    """Plain HTTP."""


class _SecureConnection(_WriteTracking, HTTPSConnection):
    """HTTP over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _manager(**settings: Any) -> PoolManager:
    manager = PoolManager(**settings)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        self.poolmanager = _manager(num_pools=connections, maxsize=maxsize, block=block, **kwargs)


def reset_written() -> None:
    """Reset `written` for this thread; call it before each request."""
    _call.written = False


def written() -> bool:
    """Whether this thread has written request bytes since `reset_written`, so that the server may have acted on them."""
    return getattr(_call, "written", False)


def pools(at_once: int, ca: str | None = None) -> PoolManager:
    """A pool of such connections, at half the cost of a requests session: for callers that read the responses themselves.

    Certificates are verified against `ca`, by default the bundle of requests.
    """
    return _manager(
        num_pools=4, maxsize=at_once, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=ca or DEFAULT_CA_BUNDLE_PATH
    )


def session(at_once: int) -> requests.Session:
    """A thread-safe session on such connections; up to `at_once` of them stay open between requests.

    It never retries a request, stores no cookies, and reads neither proxies nor credentials from the environment or ~/.netrc.
    """
    session_ = requests.Session()
    session_.trust_env = False
    session_.cookies.set_policy(_NoCookies())
    adapter = _Adapter(pool_connections=4, pool_maxsize=at_once, max_retries=0)
    session_.mount("http://", adapter)
    session_.mount("https://", adapter)
    return session_


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False
