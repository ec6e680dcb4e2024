"""A test whose part cannot be had on this machine is left out by name, and the run ends with the list; with CI=true it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator

import pytest

from tests.parts import PartMissingError, must_have_all, text


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say of a test that needs a missing part that it was left out, and why."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, PartMissingError) and not must_have_all():
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, str(call.excinfo.value))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The list at the end."""
    lines = list(left_out(terminalreporter.stats.get("skipped", ())))
    if lines:
        terminalreporter.section(text("没有运行的测试", "left out"), sep="=", yellow=True)
        for line in lines:
            terminalreporter.write_line(line)


def left_out(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """Each reason with how many tests it kept out, and of which files."""
    found: dict[str, Counter[str]] = {}
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found.setdefault(reason.removeprefix("Skipped: "), Counter())[report.nodeid.partition("::")[0]] += 1
    for reason, files in found.items():
        count = text("{} 个测试没有运行", "{} tests left out").format(files.total())
        yield f"{reason}  ({count})"
        yield from (f"    {file}  {number}" for file, number in sorted(files.items()))
