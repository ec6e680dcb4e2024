"""What an audit says: a balance of numbers, and findings that each name their place and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(seconds=120)
"""How long anything may be on its way: then a doubtful call must have been looked up, an event relayed and folded."""
MOST = 20
"""Examples named for one finding."""


@dataclass(frozen=True)
class AuditFinding:
    """Something that is not as promised. `place` says where it lies, `examples` name what there."""

    what: str
    count: int
    examples: tuple[str, ...] = ()
    place: str = ""


@dataclass
class Report:
    """The balance, and what is wrong with it."""

    counts: dict[str, int] = field(default_factory=dict)
    findings: list[AuditFinding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every promise holds."""
        return not self.findings

    def find(self, what: str, examples: Iterable[str], place: str = "", count: int | None = None) -> None:
        """Note a finding, if there is one; `count` of them where `examples` are not all."""
        found = sorted(examples)
        if found:
            self.findings.append(AuditFinding(what, len(found) if count is None else count, tuple(found[:MOST]), place))

    def count(self, **numbers: int) -> None:
        """Add to the balance."""
        for name, number in numbers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    def as_value(self) -> dict[str, Any]:
        """For `--json`."""
        return {"ok": self.ok, "counts": self.counts, "findings": [vars(finding) for finding in self.findings]}
