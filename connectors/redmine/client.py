"""A client for Redmine's REST API over HTTP: the calls we need, with every failure as one of our errors. Knows no events."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import requests
import urllib3

from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError
from hub.kit import transport
from hub.kit.api_client import retry_after
from hub.kit.connector import RateLimits

Row = dict[str, Any]
Query = dict[str, str | int | list[str]]
PAGE_SIZE = 100
"""The most rows that Redmine returns at once, whatever limit a request has."""
INVISIBLE = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)
"""Deleted, archived, or in a project that this user may not see."""


class RedmineClient:
    """One user of one Redmine. Safe to share between threads; opens no connection before its first call.

    Reading raises RetryableError while Redmine is unreachable and FatalError for a refused key or a missing right. Writing raises
    UncertainError when it may have been done, RetryableError when it certainly was not, RejectedError (with `status`) with
    Redmine's own message when Redmine refuses it.
    """

    def __init__(self, url: str, key: str, *, name: str, limits: RateLimits) -> None:
        self.url, self.name = url.rstrip("/"), name
        self._key, self._limits = key, limits
        self._http = transport.session(limits.at_once)

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._http.close()

    def me(self) -> Row:
        """The user whose key it is.

        The only reliable test of the key: where anonymous users may read, Redmine answers a wrong key as it answers them, with
        the public part. Call this before you conclude anything from a missing object.
        """
        user: Row = self._get("users/current", "user")
        return user

    def listed(self, path: str) -> list[Row]:
        """All rows of a short list that Redmine returns without paging: `issue_statuses`, `roles`, `trackers`, `custom_fields`."""
        rows: list[Row] = self._get(path, path)
        return rows

    def project(self, ref: str) -> Row | None:
        """A project by its id or identifier; None when this user sees none."""
        return self._visible(f"projects/{ref}", "project")

    def issue(self, id_: int) -> Row | None:
        """An issue with its journals and the statuses that this user may give it; None when this user does not see it."""
        return self._visible(f"issues/{id_}", "issue", {"include": "journals,allowed_statuses"})

    def user(self, id_: int) -> Row | None:
        """A user by id; None for a group, and for a user who is deleted or invisible."""
        return self._visible(f"users/{id_}", "user")

    def user_by_login(self, login: str) -> Row | None:
        """An active user by the exact login. Needs an administrator's key; raises FatalError for others."""
        for offset in itertools.count(0, PAGE_SIZE):
            page = self._get("users", "users", {"name": login, "limit": PAGE_SIZE, "offset": offset})
            for row in page:
                if row["login"].casefold() == login.casefold():
                    return dict(row)
            if not page:
                break
        return None

    def with_value(self, field: int, value: str) -> list[Row]:
        """The issues, open or closed, with this value in a custom field, by id.

        Check the value in the result: Redmine ignores a filter that it does not know, and then returns any issues.
        """
        return self._issues({f"cf_{field}": ("=", value)}, sort="id:asc")

    def changed(self, since: str) -> list[Row]:
        """A page of issues that were last changed at `since` or later, oldest change first.

        It may include issues of the second before: Redmine's filter is that wide, for databases that store fractions of seconds.
        """
        return self._issues({"updated_on": (">=", since)}, sort="updated_on:asc,id:asc")

    def changed_within(self, since: str, until: str, after: int) -> list[Row]:
        """A page of issues that were last changed between two seconds and have an id larger than `after`, by id.

        Of the second `until` only its very beginning counts, where the database stores fractions of seconds.
        """
        return self._issues({"updated_on": ("><", since, until), "issue_id": (">=", str(after + 1))}, sort="id:asc")

    def latest(self) -> Row | None:
        """The issue that was changed last."""
        rows = self._issues({}, sort="updated_on:desc,id:desc", limit=1)
        return rows[0] if rows else None

    def create_project(self, values: Row) -> Row:
        """Create a project; a taken identifier is refused."""
        project: Row = self._object(self._send("POST", "projects", body={"project": values}), "project")
        return project

    def create_issue(self, values: Row) -> Row:
        """Create an issue. Redmine takes no idempotency key: after an UncertainError, look it up before repeating it."""
        issue: Row = self._object(self._send("POST", "issues", body={"issue": values}), "issue")
        return issue

    def update_issue(self, id_: int, values: Row) -> None:
        """Change an issue. Redmine silently ignores a status that the workflow forbids: `issue` lists the allowed ones."""
        self._raise_for_status(self._send("PUT", f"issues/{id_}", body={"issue": values}))

    def add_member(self, project: str, user: int, role: int) -> None:
        """Make a user a member of a project; refused when it is one already. Harmless to repeat."""
        membership = {"user_id": user, "role_ids": [role]}
        self._raise_for_status(self._send("POST", f"projects/{project}/memberships", body={"membership": membership}))

    def _issues(self, filters: dict[str, tuple[str, ...]], *, sort: str, limit: int | None = None) -> list[Row]:
        """Issues by Redmine's filters, each an operator and its values; including closed ones."""
        query: Query = {"f[]": [*filters, "status_id"], "op[status_id]": "*", "sort": sort, "limit": limit or PAGE_SIZE}
        for field, (operator, *values) in filters.items():
            query |= {f"op[{field}]": operator, f"v[{field}][]": values}
        rows: list[Row] = self._get("issues", "issues", query)
        return rows

    def _visible(self, path: str, key: str, query: Query | None = None) -> Row | None:
        response = self._send("GET", path, query=query)
        if response.status_code in INVISIBLE:
            return None
        row: Row = self._object(response, key)
        return row

    def _get(self, path: str, key: str, query: Query | None = None) -> Any:
        return self._object(self._send("GET", path, query=query), key)

    def _send(
        self, method: str, path: str, *, query: Query | None = None, body: Row | None = None
    ) -> requests.Response:
        transport.reset_written()
        try:
            return self._http.request(
                method,
                f"{self.url}/{path}.json",
                params=query,
                json=body,
                headers={"X-Redmine-API-Key": self._key},
                timeout=(self._limits.timeout, self._limits.timeout),
                allow_redirects=False,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as broken:
            raise self._broken(broken, method) from broken

    def _raise_for_status(self, response: requests.Response) -> None:
        """Raise the error of a status other than success."""
        if not response.ok or response.is_redirect:
            raise self._refused(response)

    def _object(self, response: requests.Response, key: str) -> Any:
        """The value under an answer's only key."""
        self._raise_for_status(response)
        try:
            return response.json()[key]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no {key}: {response.text[:80]!r}"
            raise self._unknown(response.request.method, reason) from error

    def _broken(self, error: Exception, method: str) -> RetryableError:
        """The error for no answer, or half of one."""
        reason = _cause(error)
        if transport.written() and method != "GET":
            return UncertainError("HUB-E4002", instance=self.name, reason=reason)
        return RetryableError("HUB-E4001", instance=self.name, url=self.url, reason=reason)

    def _refused(self, response: requests.Response) -> HubError:
        """The error for a status other than success."""
        status, method = response.status_code, response.request.method
        wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
        if status == HTTPStatus.UNAUTHORIZED:
            return FatalError("HUB-E4003", instance=self.name, login="API key")
        if status == HTTPStatus.FORBIDDEN and method == "GET":
            return FatalError("HUB-E4301", instance=self.name, path=_path(response))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return RetryableError("HUB-E4004", instance=self.name, retry_after=wait)
        if response.is_redirect:
            location = response.headers["Location"].partition("?")[0]
            return FatalError("HUB-E4207", instance=self.name, url=self.url, location=location)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            return self._unknown(method, f"HTTP {status}", wait)
        reason = f"HTTP {status} {_path(response)}: {_messages(response)}"
        if method == "GET":
            return RetryableError("HUB-E4005", instance=self.name, reason=reason, retry_after=wait)
        return RejectedError("HUB-E4006", instance=self.name, reason=reason, status=status)

    def _unknown(self, method: str | None, reason: str, wait: float | None = None) -> RetryableError:
        if method == "GET":
            return RetryableError("HUB-E4005", instance=self.name, reason=reason, retry_after=wait)
        return UncertainError("HUB-E4002", instance=self.name, reason=reason, retry_after=wait)


def _cause(error: BaseException) -> str:
    """The operating system's message where there is one: the libraries' texts hold addresses and object ids."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _path(response: requests.Response) -> str:
    return response.request.path_url.partition("?")[0]


def _messages(response: requests.Response) -> str:
    """Redmine's own messages, in the language of the key's user."""
    try:
        return "; ".join(map(str, response.json()["errors"]))
    except (ValueError, KeyError, TypeError):
        return response.reason or ""
