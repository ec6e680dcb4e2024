"""Connections that tell two things which urllib3 alone does not: whether a request was written, and when it took too long.

A request that failed before its first byte was written was surely not carried out; after that nobody knows. And a read
time-out alone lets a server that drips one byte a second hold a thread for hours: here it bounds the whole answer.
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
    """Reads from a socket until a moment: each wait is shortened to what is left."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._ends = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """An answer whose head and body together must come within the read time-out."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None:
            self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock, seconds))


class _Noting(HTTPConnection):
    """Notes that something was written, once there is a connection to write to."""

    response_class = _BoundedResponse

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        failpoint("http.before-write")
        _call.written = True
        super().send(data)
        failpoint("http.written")

    def getresponse(self) -> Any:
        answer = super().getresponse()
        failpoint("http.answered")
        return answer


class _Connection(_Noting):
    """Plain."""


class _SecureConnection(_Noting, HTTPSConnection):
    """By TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def _manager(**settings: Any) -> PoolManager:
    made = PoolManager(**settings)
    made.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return made


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        self.poolmanager = _manager(num_pools=connections, maxsize=maxsize, block=block, **kwargs)


def start() -> None:
    """To be called before each request: nothing of it is written yet."""
    _call.written = False


def written() -> bool:
    """Whether this thread has begun to write since `start`, so that the other side may have acted on it."""
    return getattr(_call, "written", False)


def pools(at_once: int, ca: str | None = None) -> PoolManager:
    """Such connections without a session's comfort, at half of a session's cost: for who reads each answer by itself.

    Certificates are checked against `ca`, or those that requests trusts.
    """
    return _manager(
        num_pools=4, maxsize=at_once, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=ca or DEFAULT_CA_BUNDLE_PATH
    )


def session(at_once: int) -> requests.Session:
    """A session on such connections, for any number of threads; it keeps `at_once` of them open between requests.

    It never repeats a request, keeps no cookies, and takes neither proxies nor credentials from the environment or ~/.netrc.
    """
    made = requests.Session()
    made.trust_env = False
    made.cookies.set_policy(_NoCookies())
    adapter = _Adapter(pool_connections=4, pool_maxsize=at_once, max_retries=0)
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:
        return False
