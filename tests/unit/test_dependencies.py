"""The audit of what is locked passes where nothing can be asked, and never where something was skipped; the bill names all."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dependencies() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dependencies", ROOT / ".ci" / "dependencies.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


CLEAN = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "no route"}
FLAWED = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1"}]}


@pytest.mark.parametrize(
    ("entries", "passes", "says"),
    [
        ([CLEAN, CLEAN], True, "no known flaw in 2"),
        ([CLEAN, FLAWED], False, "c 2: PYSEC-1"),
        ([SKIPPED, FLAWED], False, "PYSEC-1"),
        ([SKIPPED, SKIPPED], True, "NOT AUDITED"),
        ([], True, "NOT AUDITED"),
        ([CLEAN, SKIPPED], False, "skipped"),
    ],
)
def test_what_was_skipped_is_no_pass(dependencies: ModuleType, entries: list[Any], passes: bool, says: str) -> None:
    """pip-audit itself ends with 0 and "No known vulnerabilities" when it could ask about none (A20)."""
    done, words = dependencies.verdict({"dependencies": entries})
    assert done is passes
    assert says in words


def test_the_bill_of_materials_names_every_locked_package_and_jar(dependencies: ModuleType) -> None:
    bill = dependencies.sbom()
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    packages = [line for line in lines if line[:1].isalnum()]
    jars = [line for line in dependencies.JARS.read_text("ascii").splitlines() if not line.startswith("#")]
    assert len(bill["components"]) == len(packages) + len(jars)
    assert all(component["hashes"] for component in bill["components"])
    assert "pkg:maven/org.apache.kafka/kafka_2.13@4.3.0" in {component["purl"] for component in bill["components"]}
