"""What the web is told when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PersonName:
    """How a person is shown."""

    name: str
    department: Mapping[str, str] = field(default_factory=dict)
    """The department's name by language."""


@dataclass(frozen=True)
class WebSettings:
    """The hub as its pages show it."""

    name: str = "hub"
    language: str = "zh-CN"
    timezone: str = "Asia/Shanghai"
    people: Mapping[str, PersonName] = field(default_factory=dict)
    """`person/<id>` → how they are shown."""
    builtin: frozenset[str] = frozenset()
    """The instances whose tasks and messages are the hub's own."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Names, without port, by which the web may be called: any other is refused, so that no foreign page can reach it
    through a name of its own."""
