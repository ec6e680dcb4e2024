"""Redmine's REST API over HTTP: the calls we need, and every way of failing told as one of ours. Knows no events."""

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
PAGE = 100
"""The most that Redmine gives at once, whatever is asked for."""
INVISIBLE = (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN)
"""Gone, archived, or in a project that this user may not see."""


class RedmineClient:
    """One user of one Redmine. Safe to share between threads; opens no connection before its first call.

    Reading raises RetryableError while Redmine is away and FatalError for a refused key or a missing right. Writing raises
    UncertainError when it may have been done, RetryableError when it surely was not, RejectedError (with `status`) when
    Redmine refuses it, with Redmine's own words.
    """

    def __init__(self, url: str, key: str, *, name: str, limits: RateLimits) -> None:
        self.url, self.name = url.rstrip("/"), name
        self._key, self._limits = key, limits
        self._http = transport.session(limits.at_once)

    def close(self) -> None:
        """Let go of the connections; a later call opens new ones."""
        self._http.close()

    def me(self) -> Row:
        """The user whose key it is.

        The only sure test of the key: where strangers may read, Redmine answers a wrong key as it answers a stranger, with
        the public part. Who draws a conclusion from what is absent asks this first.
        """
        found: Row = self._get("users/current", "user")
        return found

    def listed(self, path: str) -> list[Row]:
        """All of a short list that Redmine gives whole: `issue_statuses`, `roles`, `trackers`, `custom_fields`."""
        found: list[Row] = self._get(path, path)
        return found

    def project(self, ref: str) -> Row | None:
        """A project by its id or identifier; None when this user sees none."""
        return self._seen(f"projects/{ref}", "project")

    def issue(self, id_: int) -> Row | None:
        """An issue with its journals and the statuses that this user may give it; None when this user does not see it."""
        return self._seen(f"issues/{id_}", "issue", {"include": "journals,allowed_statuses"})

    def user(self, id_: int) -> Row | None:
        """A user by id; None for a group, and for who is deleted or not to be seen."""
        return self._seen(f"users/{id_}", "user")

    def user_by_login(self, login: str) -> Row | None:
        """An active user by the exact login. Only administrators may ask; raises FatalError for others."""
        for offset in itertools.count(0, PAGE):
            page = self._get("users", "users", {"name": login, "limit": PAGE, "offset": offset})
            for row in page:
                if row["login"].casefold() == login.casefold():
                    return dict(row)
            if not page:
                break
        return None

    def with_value(self, field: int, value: str) -> list[Row]:
        """The issues, open or closed, with this value in a custom field, by id.

        Look at the value of what comes: Redmine passes over a filter that it does not know, and then gives any issues.
        """
        return self._issues({f"cf_{field}": ("=", value)}, sort="id:asc")

    def changed(self, since: str) -> list[Row]:
        """A page of issues that were last changed at `since` or later, the longest unchanged first.

        Some of the second before may come too: Redmine's filter is that wide, for databases that keep parts of seconds.
        """
        return self._issues({"updated_on": (">=", since)}, sort="updated_on:asc,id:asc")

    def changed_within(self, since: str, until: str, after: int) -> list[Row]:
        """A page of issues that were last changed between two seconds and have an id larger than `after`, by id.

        Of the second `until` only its very beginning counts, where the database keeps parts of seconds.
        """
        return self._issues({"updated_on": ("><", since, until), "issue_id": (">=", str(after + 1))}, sort="id:asc")

    def latest(self) -> Row | None:
        """The issue that was changed last."""
        rows = self._issues({}, sort="updated_on:desc,id:desc", limit=1)
        return rows[0] if rows else None

    def create_project(self, values: Row) -> Row:
        """Make a project; a taken identifier is refused."""
        made: Row = self._object(self._send("POST", "projects", body={"project": values}), "project")
        return made

    def create_issue(self, values: Row) -> Row:
        """Make an issue. Redmine knows no key of ours: after an UncertainError look before repeating it."""
        made: Row = self._object(self._send("POST", "issues", body={"issue": values}), "issue")
        return made

    def update_issue(self, id_: int, values: Row) -> None:
        """Change an issue. A status that its workflow forbids is passed over in silence: ask `issue` what is allowed."""
        self._accepted(self._send("PUT", f"issues/{id_}", body={"issue": values}))

    def add_member(self, project: str, user: int, role: int) -> None:
        """Make a user a member of a project; refused when it is one already. Harmless to repeat."""
        membership = {"user_id": user, "role_ids": [role]}
        self._accepted(self._send("POST", f"projects/{project}/memberships", body={"membership": membership}))

    def _issues(self, filters: dict[str, tuple[str, ...]], *, sort: str, limit: int | None = None) -> list[Row]:
        """Issues by Redmine's filters, each an operator and its values; closed ones too."""
        query: Query = {"f[]": [*filters, "status_id"], "op[status_id]": "*", "sort": sort, "limit": limit or PAGE}
        for field, (operator, *values) in filters.items():
            query |= {f"op[{field}]": operator, f"v[{field}][]": values}
        found: list[Row] = self._get("issues", "issues", query)
        return found

    def _seen(self, path: str, key: str, query: Query | None = None) -> Row | None:
        response = self._send("GET", path, query=query)
        if response.status_code in INVISIBLE:
            return None
        found: Row = self._object(response, key)
        return found

    def _get(self, path: str, key: str, query: Query | None = None) -> Any:
        return self._object(self._send("GET", path, query=query), key)

    def _send(
        self, method: str, path: str, *, query: Query | None = None, body: Row | None = None
    ) -> requests.Response:
        transport.start()
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

    def _accepted(self, response: requests.Response) -> None:
        """Raise what any status means that does not say done."""
        if not response.ok or response.is_redirect:
            raise self._refused(response)

    def _object(self, response: requests.Response, key: str) -> Any:
        """What an answer holds under its only key."""
        self._accepted(response)
        try:
            return response.json()[key]
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no {key}: {response.text[:80]!r}"
            raise self._unknown(response.request.method, reason) from error

    def _broken(self, error: Exception, method: str) -> RetryableError:
        """No answer, or half of one."""
        reason = _cause(error)
        if transport.written() and method != "GET":
            return UncertainError("HUB-E4002", instance=self.name, reason=reason)
        return RetryableError("HUB-E4001", instance=self.name, url=self.url, reason=reason)

    def _refused(self, response: requests.Response) -> HubError:
        """Any status that does not say done."""
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
    """The operating system's own words where it has some: the text of the libraries holds addresses and object ids."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _path(response: requests.Response) -> str:
    return response.request.path_url.partition("?")[0]


def _messages(response: requests.Response) -> str:
    """Redmine's own words, in the language of the key's user."""
    try:
        return "; ".join(map(str, response.json()["errors"]))
    except (ValueError, KeyError, TypeError):
        return response.reason or ""
