"""Tryton's JSON-RPC over HTTP: sessions, calls, reading by page and through history. Knows no events.

Tryton's typed JSON: what plain JSON cannot say travels as an object with a `__class__`.
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
    """Read typed JSON. Times are naive and in UTC, as Tryton keeps them. Raises ValueError for no JSON or a broken type."""
    try:
        return json.loads(raw, object_hook=_read)
    except (KeyError, TypeError, ArithmeticError) as broken:
        raise ValueError(f"a typed value is broken: {broken!r}") from broken


def dumps(value: Any) -> bytes:
    """Write typed JSON; raises TypeError for a value that Tryton has no type for, and for a time with a zone."""
    return json.dumps(value, default=_write, ensure_ascii=False, separators=(",", ":")).encode()


def _read(found: dict[str, Any]) -> Any:
    reader = _READERS.get(found.get("__class__", ""))
    return reader(found) if reader else found


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
CONNECT_SECONDS = 5.0
PAGE = 200
AT_ONCE = 8


class TrytonClient:
    """One user of one Tryton database. Safe to share between threads; opens no connection before its first call.

    Calls raise RetryableError when they surely changed nothing and may be repeated, UncertainError when a writing call may
    have been carried out, RejectedError when Tryton refuses it, FatalError when it refuses the credentials. A session that
    ran out is renewed once per call, by one thread for all.
    """

    def __init__(
        self, url: str, database: str, login: str, password: str, *, name: str = "tryton", timeout: float = 15.0
    ) -> None:
        self.url, self.database, self.login, self.name = url.rstrip("/"), database, login, name
        self._password, self._timeout = password, timeout
        self._http = transport.session(AT_ONCE)
        self._session: str | None = None
        self._context: Row | None = None
        self._turn = threading.Lock()

    def close(self) -> None:
        """Let go of the connections; a later call opens new ones."""
        self._http.close()

    def version(self) -> str:
        """The server's series, such as `8.2`; needs no credentials."""
        return str(self._post("/rpc/", "common.server.version", [], session=None, writes=False))

    def context(self) -> Row:
        """The user's company and employee, as every call needs them. Raises FatalError when the user has no company."""
        if self._context is None:
            found = self.bare("model.res.user.get_preferences", True, {})
            if not found.get("company"):
                raise FatalError("HUB-E4102", instance=self.name, login=self.login)
            self._context = {key: found[key] for key in ("company", "employee") if found.get(key)}
        return self._context

    def read(self, model: str, ids: Sequence[int], fields: Sequence[str], at: datetime | None = None) -> list[Row]:
        """Read records, for a model with history as they stood `at` a moment; what did not exist then is left out."""
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
        limit: int = PAGE,
    ) -> list[Row]:
        """The first `limit` records that answer the domain, in order."""
        by = [list(key) for key in order]
        found: list[Row] = self.call(f"model.{model}.search_read", domain, 0, limit, by, list(fields))
        return found

    def by_time(
        self, model: str, stamp: str, domain: Domain, after: tuple[datetime, int] | None, fields: Sequence[str]
    ) -> Iterator[Row]:
        """Records by their time field `stamp` and their id, those after that place (None: all), as they are asked for.

        Pages continue after the last record, not at an offset: one that changes meanwhile makes none be skipped.
        """
        order = ((stamp, "ASC"), ("id", "ASC"))
        while True:
            later = _later(stamp, *after) if after else []
            rows = self.search(model, [[stamp, "!=", None], domain, later], fields, order=order)
            yield from rows
            if len(rows) < PAGE:
                return
            after = (rows[-1][stamp], rows[-1]["id"])

    def revisions(self, model: str, ids: Sequence[int]) -> dict[int, list[datetime]]:
        """When each of these records was changed, oldest first; only for models that keep history."""
        found: dict[int, list[datetime]] = {id_: [] for id_ in ids}
        for moment, id_, _user in self.call(f"model.{model}.history_revisions", list(ids)):
            found[id_].append(moment)
        return {id_: sorted(moments) for id_, moments in found.items()}

    def create(self, model: str, values: Mapping[str, Any], context: Mapping[str, Any] | None = None) -> int:
        """Make one record and give its id. Tryton knows no key of ours: after an UncertainError look before repeating it."""
        made = self.call(f"model.{model}.create", [dict(values)], writes=True, context=context)
        return int(made[0])

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
        except _SessionOverError:
            session = self._log_in(session)
        try:
            return self._post(f"/{self.database}/rpc/", method, list(params), session=session, writes=writes)
        except _SessionOverError as refused:
            raise FatalError("HUB-E4003", instance=self.name, login=self.login) from refused

    def _log_in(self, over: str | None) -> str:
        """A session that is not the one that is `over`; threads that come meanwhile wait and share it."""
        with self._turn:
            if self._session is None or self._session == over:
                params = [self.login, {"password": self._password}]
                try:
                    answer = self._post(f"/{self.database}/rpc/", "common.db.login", params, session=None, writes=False)
                except _SessionOverError as refused:
                    raise FatalError("HUB-E4003", instance=self.name, login=self.login) from refused
                self._session = base64.b64encode(f"{self.login}:{answer[0]}:{answer[1]}".encode()).decode()
            return self._session

    def _post(self, path: str, method: str, params: list[Any], *, session: str | None, writes: bool) -> Any:
        headers = {"Content-Type": "application/json"}
        if session:
            headers["Authorization"] = f"Session {session}"
        transport.start()
        try:
            response = self._http.post(
                self.url + path,
                dumps({"id": 1, "method": method, "params": params}),
                headers=headers,
                timeout=(CONNECT_SECONDS, self._timeout),
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
        """No answer, half an answer, or one that is no JSON."""
        if writes and transport.written():
            return UncertainError("HUB-E4002", instance=self.name, reason=_plain(error))
        return RetryableError("HUB-E4001", instance=self.name, url=self.url, reason=_plain(error))

    def _refused(self, response: requests.Response, *, writes: bool) -> HubError:
        """Any status that is no plain answer."""
        reason = f"HTTP {response.status_code}"
        match response.status_code:
            case HTTPStatus.UNAUTHORIZED:
                return _SessionOverError()
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
        """An error inside a 200: Tryton's own kinds were rolled back; any other may have come after the commit."""
        kind, said = str(error[0]), error[1] if len(error) > 1 else ""
        parts = [str(part) for part in said if part] if isinstance(said, list) else [str(said)]
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


class _SessionOverError(HubError):
    """Tryton no longer knows the session, or never took the password. Never leaves this module."""

    def __init__(self) -> None:
        super().__init__("HUB-E4003")


def _later(stamp: str, moment: datetime, id_: int) -> Domain:
    return ["OR", [[stamp, ">", moment]], [[stamp, "=", moment], ["id", ">", id_]]]


def _seconds(response: requests.Response) -> float | None:
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else None


def _plain(error: Exception) -> str:
    """An error's kind and its last words: the whole text of some holds addresses and object ids."""
    return f"{type(error).__name__}: {str(error).rsplit(': ', 1)[-1][:200]}"
