"""The settings of a Redmine instance in hub.yaml, and the Redmine objects that they name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from connectors.redmine.client import RedmineClient, Row
from hub.config.expecting import text_form
from hub.errors import FatalError
from hub.kit.connector import Instance
from hub.kit.settings import LimitSettings, Settings, wrong

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class RedmineThrottle(LimitSettings):
    """Rate limits of this Redmine: a small one creates some ten issues a second, and may answer slowly."""

    per_second: float = Field(default=10.0, gt=0)
    at_once: int = Field(default=4, ge=1, le=256)
    timeout: float = Field(default=30.0, gt=0, le=300)
    settle: float = Field(default=5.0, ge=0, le=300)


class RedmineSettings(Settings):
    """Names are as people read them in Redmine; the defaults are those of its English and its Chinese default data."""

    url: Annotated[
        str, text_form(r"^https?://[^/\s@?#]+(/[^\s@?#]*)?$", "网址", "an address", "https://redmine.example")
    ]
    key: Text
    mark_field: Text | Annotated[int, Field(gt=0)] = "Baton"
    project: Annotated[
        str,
        text_form(
            r"^[a-z0-9_-]*[a-z_-][a-z0-9_-]*$",
            "Redmine 项目标识（小写字母、数字、- 和 _）",
            "a Redmine project's identifier (small letters, digits, - and _)",
            "baton",
            max_length=100,
        ),
    ] = "baton"
    project_name: Text = "接力 Baton"
    tracker: Text | None = None
    role: tuple[Text, ...] = ("Developer", "开发人员")
    accounts: Literal["login", "id"] = "login"
    started: tuple[Text, ...] = ("In Progress", "进行中")
    cancelled: tuple[Text, ...] = ("Rejected", "已拒绝")
    since: AwareDatetime | None = None
    interval: float = Field(default=5.0, ge=0.2)
    overlap: float = Field(default=60.0, ge=2)
    limits: RedmineThrottle = RedmineThrottle()


class Names:
    """Finds the objects that the settings name, and caches them. Raises FatalError, with its place, for a missing one."""

    def __init__(self, client: RedmineClient, settings: RedmineSettings, instance: Instance) -> None:
        self._client, self._settings, self._instance = client, settings, instance
        self._found: dict[str, int] = {}

    @property
    def field(self) -> int:
        """The custom field that carries our mark."""
        named = self._settings.mark_field
        if isinstance(named, int):
            return named
        if "mark_field" not in self._found:
            self._found["mark_field"] = self._usable_field(named)
        return self._found["mark_field"]

    @property
    def role(self) -> int:
        """The role that an assignee is given in a project."""
        return self._named("role", "roles", self._settings.role)

    @property
    def tracker(self) -> int | None:
        """The tracker of new issues; None for each project's first."""
        wanted = self._settings.tracker
        return self._named("tracker", "trackers", [wanted]) if wanted else None

    def _named(self, setting: str, path: str, wanted: Collection[str]) -> int:
        if setting not in self._found:
            rows = self._client.listed(path)
            matches = [row for row in rows if row["name"] in wanted]
            if not matches:
                known = " | ".join(row["name"] for row in rows)
                raise wrong(self._instance, (setting,), known, ", ".join(wanted))
            self._found[setting] = int(matches[0]["id"])
        return self._found[setting]

    def _usable_field(self, name: str) -> int:
        """A field that can be filtered by: Redmine ignores a filter that it does not know, and then returns every issue."""
        fields = [row for row in self._client.listed("custom_fields") if row["customized_type"] == "issue"]
        for row in fields:
            if row["name"] == name and _is_usable(row):
                return int(row["id"])
        place = self._instance.place(("mark_field",))
        raise FatalError("HUB-E4302", place=place, instance=self._instance.name, field=name)


def _is_usable(row: Row) -> bool:
    return bool(row["is_filter"] and row["field_format"] == "string" and not row["multiple"])
