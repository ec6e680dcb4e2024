"""Redmine's REST API over HTTP: the calls we need, and every way of failing told as one of ours. Knows no events."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import requests
import urllib3

from connectors import transport
from connectors.outbound import retry_after
from hub.connector import Limits
from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError

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

    def __init__(self, url: str, key: str, *, name: str, limits: Limits) -> None:
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
        found: Row = self._get("users/current")["user"]
        return found

    def listed(self, path: str) -> list[Row]:
        """All of a short list that Redmine gives whole: `issue_statuses`, `roles`, `trackers`, `custom_fields`."""
        found: list[Row] = self._get(path)[path]
        return found

    def project(self, ref: str) -> Row | None:
        """A project by its id or identifier; None when this user sees none."""
        found = self._seen(f"projects/{ref}", {})
        return found["project"] if found else None

    def issue(self, id_: int) -> Row | None:
        """An issue with its journals and the statuses that this user may give it; None when this user does not see it."""
        found = self._seen(f"issues/{id_}", {"include": "journals,allowed_statuses"})
        return found["issue"] if found else None

    def user(self, id_: int) -> Row | None:
        """A user by id; None for a group, and for who is deleted or not to be seen."""
        found = self._seen(f"users/{id_}", {})
        return found["user"] if found else None

    def user_by_login(self, login: str) -> Row | None:
        """An active user by the exact login. Only administrators may ask; raises FatalError for others."""
        offset, total = 0, 1
        while offset < total:
            page = self._get("users", {"name": login, "limit": PAGE, "offset": offset})
            for row in page["users"]:
                if row["login"].casefold() == login.casefold():
                    return dict(row)
            offset, total = offset + PAGE, page["total_count"]
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
        made: Row = self._write("POST", "projects", {"project": values})["project"]
        return made

    def create_issue(self, values: Row) -> Row:
        """Make an issue. Redmine knows no key of ours: after an UncertainError look before repeating it."""
        made: Row = self._write("POST", "issues", {"issue": values})["issue"]
        return made

    def update_issue(self, id_: int, values: Row) -> None:
        """Change an issue. A status that its workflow forbids is passed over in silence: ask `issue` what is allowed."""
        self._write("PUT", f"issues/{id_}", {"issue": values})

    def add_member(self, project: str, user: int, role: int) -> None:
        """Make a user a member of a project; refused when it is one already. Harmless to repeat."""
        self._write("POST", f"projects/{project}/memberships", {"membership": {"user_id": user, "role_ids": [role]}})

    def _issues(self, filters: dict[str, tuple[str, ...]], *, sort: str, limit: int = PAGE) -> list[Row]:
        """Issues by Redmine's filters, each an operator and its values; closed ones too."""
        query: Query = {"f[]": [*filters, "status_id"], "op[status_id]": "*", "sort": sort, "limit": limit}
        for field, (operator, *values) in filters.items():
            query |= {f"op[{field}]": operator, f"v[{field}][]": values}
        found: list[Row] = self._get("issues", query)["issues"]
        return found

    def _seen(self, path: str, query: Query) -> Row | None:
        response = self._send("GET", path, query=query)
        return None if response.status_code in INVISIBLE else self._read(response)

    def _get(self, path: str, query: Query | None = None) -> Row:
        return self._read(self._send("GET", path, query=query))

    def _write(self, method: str, path: str, body: Row) -> Row:
        return self._read(self._send(method, path, body=body))

    def _send(
        self, method: str, path: str, *, query: Query | None = None, body: Row | None = None
    ) -> requests.Response:
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

    def _read(self, response: requests.Response) -> Row:
        """The answer's object; empty where Redmine answers with nothing, as it does after a change."""
        if not response.ok or response.is_redirect:
            raise self._refused(response)
        if not response.content.strip():
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return answer
        raise self._unknown(response.request.method, f"no JSON: {response.text[:80]!r}")

    def _broken(self, error: Exception, method: str) -> RetryableError:
        """No answer, or half of one."""
        reason = f"{type(error).__name__}: {str(error).rsplit(': ', 1)[-1][:200]}"
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
            target = response.headers["Location"].partition("?")[0]
            return FatalError("HUB-E4007", instance=self.name, setting="url", reason=f"HTTP {status} → {target}")
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


def _path(response: requests.Response) -> str:
    return response.request.path_url.partition("?")[0]


def _messages(response: requests.Response) -> str:
    """Redmine's own words, in the language of the key's user."""
    try:
        return "; ".join(map(str, response.json()["errors"]))
    except (ValueError, KeyError, TypeError):
        return response.reason or ""
