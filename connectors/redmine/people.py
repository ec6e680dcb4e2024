"""Maps accounts, as people.yaml writes them, to Redmine's user ids and back."""

from __future__ import annotations

from typing import Literal

from connectors.redmine.client import RedmineClient
from hub.errors import RejectedError


class RedmineUsers:
    """Maps accounts to user ids and back, with a cache. An account is the login, or the id."""

    def __init__(self, client: RedmineClient, instance: str, accounts: Literal["login", "id"]) -> None:
        self._client, self._instance, self._by_login = client, instance, accounts == "login"
        self._ids: dict[str, int] = {}
        self._logins: dict[int, str] = {}

    def user(self, account: str) -> int:
        """The user of an account; raises RejectedError when there is none that can be assigned work."""
        if account not in self._ids:
            user = self._find(account)
            if user is None:
                raise RejectedError("HUB-E4304", instance=self._instance, account=account)
            self._ids[account] = user
        return self._ids[account]

    def account(self, user: int) -> str:
        """The account of a user; the id where there is no login, as for a group or a deleted user."""
        if not self._by_login:
            return str(user)
        if user not in self._logins:
            row = self._client.user(user)
            self._logins[user] = (row or {}).get("login") or str(user)
        return self._logins[user]

    def _find(self, account: str) -> int | None:
        if not self._by_login:
            return int(account) if account.isdecimal() else None
        row = self._client.user_by_login(account)
        return int(row["id"]) if row else None
