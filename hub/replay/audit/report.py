"""The result of an audit: counts, and findings that each name a place and examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

GRACE_PERIOD = timedelta(seconds=120)
"""How long anything may be in flight: by then an uncertain call has been looked up, and an event relayed and folded."""
MAX_EXAMPLES = 20
"""Examples listed for one finding."""


@dataclass(frozen=True)
class AuditFinding:
    """A guarantee that does not hold. `place` is the topic, partition or table, `examples` name the entries there."""

    what: str
    count: int
    examples: tuple[str, ...] = ()
    place: str = ""


@dataclass
class Report:
    """The counts, and what is wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    findings: list[AuditFinding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every guarantee holds."""
        return not self.findings

    def find(self, what: str, examples: Iterable[str], place: str = "", count: int | None = None) -> None:
        """Add a finding, if there are examples; `count` is their number where `examples` are not all of them."""
        named = sorted(examples)
        if named:
            self.findings.append(
                AuditFinding(what, len(named) if count is None else count, tuple(named[:MAX_EXAMPLES]), place)
            )

    def count(self, **numbers: int) -> None:
        """Add to the counts."""
        for name, number in numbers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    def as_value(self) -> dict[str, Any]:
        """For `--json`."""
        return {"ok": self.ok, "counts": self.counts, "findings": [vars(finding) for finding in self.findings]}
