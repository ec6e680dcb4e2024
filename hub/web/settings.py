"""Settings of the web."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PersonName:
    """The display name of a person."""

    name: str
    department: Mapping[str, str] = field(default_factory=dict)
    """The department's name by language."""


@dataclass(frozen=True)
class WebSettings:
    """The settings of one hub that its pages need."""

    name: str = "hub"
    language: str = "zh-CN"
    timezone: str = "Asia/Shanghai"
    people: Mapping[str, PersonName] = field(default_factory=dict)
    """`person/<id>` → display name."""
    builtin: frozenset[str] = frozenset()
    """Instances of the builtin connector: their tasks and messages exist only in the hub."""
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Accepted host names, without port: any other is refused, so that no foreign page can reach the web through a DNS name of
    its own (DNS rebinding)."""
