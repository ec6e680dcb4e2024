"""Whatever stands in a file of the user's: no traceback, and every mistake has a code and a place.

`HUB_FUZZ=100000` tries as many for each file, half of them any bytes and half any YAML, instead of a sample.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.errors import FatalError, texts
from hub.home import check_home
from tests.fuzzing import inputs

MANY = settings(max_examples=-(-inputs(20) // 2), deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILES = ("hub.yaml", "people.yaml", "calendar.yaml", "rules/a.yaml", "rules/a.test.yaml", ".env")
WORDS = (
    "rule", "title", "zh", "en", "owner", "when", "if", "do", "for each", "task.create", "in", "pm", "crm.opportunity.won",
    "people", "departments", "accounts", "roles", "days", "work", "connectors", "use", "http", "tests", "given", "then",
    "name", "time", "<<", "x[", "${event.data.name}", "${role('a')}", "${env:A}", "2027-02-30", "str", "int", "scope",
    "web", "port", "", "\x1b[2J", "\u202e", "null",
)  # fmt: skip
SCALARS = st.one_of(st.sampled_from(WORDS), st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=20))
SHAPED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)),
    max_leaves=20,
)


def findings(file: str, content: bytes) -> None:
    """Check a home with this file in it: what is wrong is said in both languages."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "rules").mkdir()
        (home / "hub.yaml").write_text("connectors: {pm: {use: http}}\n", "utf-8")
        (home / file).write_bytes(content)
        try:
            found = [finding.error for finding in check_home(home, {})]
        except FatalError as fatal:
            found = [fatal]
    for error in found:
        assert error.code in texts()
        assert error.place is not None, error
        for language in ("zh-CN", "en"):
            assert error.message(language)
            assert error.fix(language)


@pytest.mark.parametrize("file", FILES)
@MANY
@given(content=st.binary(max_size=200))
def test_any_bytes(file: str, content: bytes) -> None:
    findings(file, content)


@pytest.mark.parametrize("file", FILES)
@MANY
@given(value=SHAPED)
def test_any_yaml(file: str, value: object) -> None:
    import yaml

    findings(file, yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass"))
