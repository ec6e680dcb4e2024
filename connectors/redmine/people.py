"""Who is who over there: accounts as people.yaml writes them, and Redmine's user ids."""

from __future__ import annotations

from typing import Literal

from connectors.redmine.client import RedmineClient
from hub.errors import RejectedError


class RedmineUsers:
    """Turns accounts into user ids and back. An account is the login, or the id; each is asked for once and kept."""

    def __init__(self, client: RedmineClient, instance: str, accounts: Literal["login", "id"]) -> None:
        self._client, self._instance, self._by_login = client, instance, accounts == "login"
        self._ids: dict[str, int] = {}
        self._logins: dict[int, str] = {}

    def user(self, account: str) -> int:
        """The user of an account; raises RejectedError when there is none that can be given work."""
        if account not in self._ids:
            found = self._find(account)
            if found is None:
                raise RejectedError("HUB-E4304", instance=self._instance, account=account)
            self._ids[account] = found
        return self._ids[account]

    def account(self, user: int) -> str:
        """The account of a user; the id for who has no login, such as a group or a deleted user."""
        if not self._by_login:
            return str(user)
        if user not in self._logins:
            found = self._client.user(user)
            self._logins[user] = (found or {}).get("login") or str(user)
        return self._logins[user]

    def _find(self, account: str) -> int | None:
        if not self._by_login:
            return int(account) if account.isdecimal() else None
        found = self._client.user_by_login(account)
        return int(found["id"]) if found else None
