"""A client for Tryton's JSON-RPC over HTTP: sessions, calls, paged reads and history. Knows no events.

Tryton's JSON is typed: values that plain JSON cannot hold travel as objects with a `__class__`.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import requests

from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError
from hub.kit import transport

_READERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "datetime": lambda v: datetime(  # noqa: DTZ001 - Tryton's times carry no zone; they are UTC
        v["year"], v["month"], v["day"], v["hour"], v["minute"], v["second"], v["microsecond"]
    ),
    "date": lambda v: date(v["year"], v["month"], v["day"]),
    "time": lambda v: time(v["hour"], v["minute"], v["second"], v["microsecond"]),
    "timedelta": lambda v: timedelta(seconds=v["seconds"]),
    "Decimal": lambda v: Decimal(v["decimal"]),
    "bytes": lambda v: base64.b64decode(v["base64"]),
}


def loads(raw: bytes) -> Any:
    """Parse typed JSON. Times are naive and in UTC, as Tryton stores them. Raises ValueError for no JSON or a broken type."""
    try:
        return json.loads(raw, object_hook=_read)
    except (KeyError, TypeError, ArithmeticError) as broken:
        raise ValueError(f"a typed value is broken: {broken!r}") from broken


def dumps(value: Any) -> bytes:
    """Write typed JSON. Raises TypeError for a value that Tryton has no type for, and for a time with a zone."""
    return json.dumps(value, default=_write, ensure_ascii=False, separators=(",", ":")).encode()


def _read(value: dict[str, Any]) -> Any:
    reader = _READERS.get(value.get("__class__", ""))
    return reader(value) if reader else value


def _write(value: object) -> dict[str, Any]:
    match value:
        case datetime():
            if value.tzinfo is not None:
                raise TypeError("Tryton's times carry no zone: give it in UTC without one")
            return {"__class__": "datetime", **_day(value), **_clock(value)}
        case date():
            return {"__class__": "date", **_day(value)}
        case time():
            return {"__class__": "time", **_clock(value)}
        case timedelta():
            return {"__class__": "timedelta", "seconds": value.total_seconds()}
        case Decimal():
            return {"__class__": "Decimal", "decimal": str(value)}
        case bytes():
            return {"__class__": "bytes", "base64": base64.b64encode(value).decode()}
    raise TypeError(f"Tryton has no type for {type(value).__name__}")


def _day(value: date) -> dict[str, int]:
    return {"year": value.year, "month": value.month, "day": value.day}


def _clock(value: datetime | time) -> dict[str, int]:
    return {
        "hour": value.hour,
        "minute": value.minute,
        "second": value.second,
        "microsecond": value.microsecond,
    }


Row = dict[str, Any]
Domain = list[Any]
CONNECT_TIMEOUT_S = 5.0
PAGE_SIZE = 200
MAX_CONNECTIONS = 8


class TrytonClient:
    """One user of one Tryton database. Safe to share between threads; opens no connection before its first call.

    Calls raise RetryableError when they certainly changed nothing and may be repeated, UncertainError when a writing call may
    have been carried out, RejectedError when Tryton refuses it, FatalError when it refuses the credentials. An expired session
    is renewed once per call, by one thread for all.
    """

    def __init__(
        self, url: str, database: str, login: str, password: str, *, name: str = "tryton", timeout: float = 15.0
    ) -> None:
        self.url, self.database, self.login, self.name = url.rstrip("/"), database, login, name
        self._password, self._timeout = password, timeout
        self._http = transport.session(MAX_CONNECTIONS)
        self._session: str | None = None
        self._context: Row | None = None
        self._login_lock = threading.Lock()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._http.close()

    def version(self) -> str:
        """The server's series, such as `8.2`; needs no credentials."""
        return str(self._post("/rpc/", "common.server.version", [], session=None, writes=False))

    def context(self) -> Row:
        """The user's company and employee, as every call needs them. Raises FatalError when the user has no company."""
        if self._context is None:
            preferences = self.bare("model.res.user.get_preferences", True, {})
            if not preferences.get("company"):
                raise FatalError("HUB-E4102", instance=self.name, login=self.login)
            self._context = {key: preferences[key] for key in ("company", "employee") if preferences.get(key)}
        return self._context

    def read(self, model: str, ids: Sequence[int], fields: Sequence[str], at: datetime | None = None) -> list[Row]:
        """Read records, for a model with history in their state `at` a time; records that did not exist then are left out."""
        context = {"_datetime": at} if at else {}
        rows = self.call(f"model.{model}.read", list(ids), list(fields), context=context)
        return [row for row in rows if row]

    def search(
        self,
        model: str,
        domain: Domain,
        fields: Sequence[str],
        *,
        order: Sequence[tuple[str, str]] = (("id", "ASC"),),
        limit: int = PAGE_SIZE,
    ) -> list[Row]:
        """The first `limit` records that match the domain, in order."""
        by = [list(key) for key in order]
        rows: list[Row] = self.call(f"model.{model}.search_read", domain, 0, limit, by, list(fields))
        return rows

    def by_time(
        self, model: str, time_field: str, domain: Domain, after: tuple[datetime, int] | None, fields: Sequence[str]
    ) -> Iterator[Row]:
        """Records ordered by their `time_field` and id, those after that position (None: all); pages are read lazily.

        A page continues after the last record, not at an offset: a record that changes in between causes no other to be skipped.
        """
        order = ((time_field, "ASC"), ("id", "ASC"))
        while True:
            later = _later(time_field, *after) if after else []
            rows = self.search(model, [[time_field, "!=", None], domain, later], fields, order=order)
            yield from rows
            if len(rows) < PAGE_SIZE:
                return
            after = (rows[-1][time_field], rows[-1]["id"])

    def revisions(self, model: str, ids: Sequence[int]) -> dict[int, list[datetime]]:
        """Record id → the times of its changes, oldest first; only for models with history."""
        times: dict[int, list[datetime]] = {id_: [] for id_ in ids}
        for changed, id_, _user in self.call(f"model.{model}.history_revisions", list(ids)):
            times[id_].append(changed)
        return {id_: sorted(each) for id_, each in times.items()}

    def create(self, model: str, values: Mapping[str, Any], context: Mapping[str, Any] | None = None) -> int:
        """Create one record and return its id. Tryton takes no idempotency key: after an UncertainError, look it up first."""
        ids = self.call(f"model.{model}.create", [dict(values)], writes=True, context=context)
        return int(ids[0])

    def write(self, model: str, ids: Sequence[int], values: Mapping[str, Any]) -> None:
        """Change records."""
        self.call(f"model.{model}.write", list(ids), dict(values), writes=True)

    def press(self, model: str, button: str, ids: Sequence[int]) -> Any:
        """Press a button, which may move a record to its next state."""
        return self.call(f"model.{model}.{button}", list(ids), writes=True)

    def call(self, method: str, *params: Any, writes: bool = False, context: Mapping[str, Any] | None = None) -> Any:
        """Call a method of a model in the user's own company; the context goes last, as Tryton wants it."""
        return self.bare(method, *params, {**self.context(), **(context or {})}, writes=writes)

    def bare(self, method: str, *params: Any, writes: bool = False) -> Any:
        """Call a method with exactly these parameters: the context, last among them, is the caller's."""
        session = self._session or self._log_in(None)
        try:
            return self._post(f"/{self.database}/rpc/", method, list(params), session=session, writes=writes)
        except _SessionExpiredError:
            session = self._log_in(session)
        try:
            return self._post(f"/{self.database}/rpc/", method, list(params), session=session, writes=writes)
        except _SessionExpiredError as refused:
            raise FatalError("HUB-E4003", instance=self.name, login=self.login) from refused

    def _log_in(self, expired: str | None) -> str:
        """A session other than the `expired` one; concurrent callers wait for it and share it."""
        with self._login_lock:
            if self._session is None or self._session == expired:
                params = [self.login, {"password": self._password}]
                try:
                    answer = self._post(f"/{self.database}/rpc/", "common.db.login", params, session=None, writes=False)
                except _SessionExpiredError as refused:
                    raise FatalError("HUB-E4003", instance=self.name, login=self.login) from refused
                self._session = base64.b64encode(f"{self.login}:{answer[0]}:{answer[1]}".encode()).decode()
            return self._session

    def _post(self, path: str, method: str, params: list[Any], *, session: str | None, writes: bool) -> Any:
        headers = {"Content-Type": "application/json"}
        if session:
            headers["Authorization"] = f"Session {session}"
        transport.reset_written()
        try:
            response = self._http.post(
                self.url + path,
                dumps({"id": 1, "method": method, "params": params}),
                headers=headers,
                timeout=(CONNECT_TIMEOUT_S, self._timeout),
                allow_redirects=False,
            )
            answer = loads(response.content) if response.status_code == HTTPStatus.OK else None
        except (requests.RequestException, ValueError) as broken:
            raise self._broken(broken, writes=writes) from broken
        if not isinstance(answer, dict):
            raise self._refused(response, writes=writes)
        if answer.get("error"):
            raise self._failed(answer["error"], writes=writes)
        return answer.get("result")

    def _broken(self, error: Exception, *, writes: bool) -> RetryableError:
        """The error for no answer, half an answer, or one that is no JSON."""
        if writes and transport.written():
            return UncertainError("HUB-E4002", instance=self.name, reason=_plain(error))
        return RetryableError("HUB-E4001", instance=self.name, url=self.url, reason=_plain(error))

    def _refused(self, response: requests.Response, *, writes: bool) -> HubError:
        """The error for a status other than 200."""
        reason = f"HTTP {response.status_code}"
        match response.status_code:
            case HTTPStatus.UNAUTHORIZED:
                return _SessionExpiredError()
            case HTTPStatus.NOT_FOUND:
                return RetryableError("HUB-E4101", instance=self.name, database=self.database)
            case HTTPStatus.TOO_MANY_REQUESTS:
                return RetryableError("HUB-E4004", instance=self.name, retry_after=_seconds(response))
            case status if HTTPStatus.OK < status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return RejectedError("HUB-E4006", instance=self.name, reason=reason)
        if writes:
            return UncertainError("HUB-E4002", instance=self.name, reason=reason)
        return RetryableError("HUB-E4005", instance=self.name, reason=reason, retry_after=_seconds(response))

    def _failed(self, error: Sequence[Any], *, writes: bool) -> HubError:
        """The error for one inside a 200: Tryton's own kinds were rolled back; any other may have come after the commit."""
        kind, detail = str(error[0]), error[1] if len(error) > 1 else ""
        parts = [str(part) for part in detail if part] if isinstance(detail, list) else [str(detail)]
        match kind:
            case "UserError" | "UserWarning":
                return RejectedError("HUB-E4006", instance=self.name, reason=" ".join(parts))
            case "LoginException":
                return FatalError("HUB-E4003", instance=self.name, login=self.login)
            case "ConcurrencyException":
                return RetryableError("HUB-E4005", instance=self.name, reason=" ".join(parts))
        if writes:
            return UncertainError("HUB-E4002", instance=self.name, reason=kind)
        return RetryableError("HUB-E4005", instance=self.name, reason=kind)


class _SessionExpiredError(HubError):
    """Tryton no longer accepts the session, or refused the password. Internal to this module."""

    def __init__(self) -> None:
        super().__init__("HUB-E4003")


def _later(time_field: str, after: datetime, id_: int) -> Domain:
    return ["OR", [[time_field, ">", after]], [[time_field, "=", after], ["id", ">", id_]]]


def _seconds(response: requests.Response) -> float | None:
    header = response.headers.get("Retry-After", "")
    return float(header) if header.isdigit() else None


def _plain(error: Exception) -> str:
    """An error's type and the end of its text: the whole text of some holds addresses and object ids."""
    return f"{type(error).__name__}: {str(error).rsplit(': ', 1)[-1][:200]}"
