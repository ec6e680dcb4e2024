"""What the hub is made of: `python .ci/dependencies.py audit` and `python .ci/dependencies.py sbom FILE`.

`audit` asks pip-audit about every locked package. Where no advisory can be had, because the tool or its service cannot be reached,
it says so and ends with 0; where some packages were looked up and others were skipped, that is a fault, as is a known one.
`sbom` writes a bill of materials (CycloneDX 1.6) from the two locks, without network.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES, JARS = ROOT / "requirements.lock", ROOT / "hub" / "ops" / "embedded_kafka" / "jars.lock"
_PACKAGE = re.compile(
    r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ ;\\]+)(.*?)(?=^[A-Za-z0-9]|\Z)", re.MULTILINE | re.DOTALL
)


def verdict(report: dict[str, Any]) -> tuple[bool, str]:
    """Whether a report of pip-audit lets a merge pass, and what to say of it."""
    entries = report.get("dependencies", [])
    skipped = [entry["name"] for entry in entries if "skip_reason" in entry]
    known = [
        f"{entry['name']} {entry.get('version')}: {flaw['id']}" for entry in entries for flaw in entry.get("vulns", ())
    ]
    if known:
        return False, "known flaws: " + ", ".join(known)
    if not entries or len(skipped) == len(entries):
        return True, "NOT AUDITED: the service with the advisories does not answer from here"
    if skipped:
        return False, "skipped, though others were looked up: " + ", ".join(skipped)
    return True, f"no known flaw in {len(entries)} packages"


def audit() -> int:
    """Run pip-audit in an environment of its own; the exit code."""
    try:
        passes, words = verdict(_report())
    except (subprocess.SubprocessError, ValueError) as error:
        passes, words = True, f"NOT AUDITED: {type(error).__name__}: the tool, or what it asks, cannot be had here"
    sys.stdout.write(words + "\n")
    return 0 if passes else 1


def _report() -> dict[str, Any]:
    """What pip-audit says; raises SubprocessError or ValueError when it says nothing within some minutes."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        tool = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"]
        subprocess.run(tool, check=True, capture_output=True, timeout=180)
        command = [python, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
        command += ["--requirement", str(PACKAGES), "--format", "json"]
        # Its own exit code is 1 for a flaw, and 0 also when it could ask about nothing: the report counts.
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def components() -> Iterator[dict[str, Any]]:
    """Every locked package and jar, with its digests."""
    for name, version, rest in _PACKAGE.findall(PACKAGES.read_text("utf-8")):
        digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", rest)
        yield _component("pypi", "", name.lower(), version, digests)
    for line in JARS.read_text("ascii").splitlines():
        if line and not line.startswith("#"):
            digest, _size, coordinate = line.split()
            group, artifact, version = coordinate.split(":")
            yield _component("maven", group, artifact, version, [digest])


def _component(kind: str, group: str, name: str, version: str, digests: list[str]) -> dict[str, Any]:
    where = "/".join(part for part in (kind, group, name) if part)
    hashes = [{"alg": "SHA-256", "content": digest} for digest in digests]
    named = {"group": group} if group else {}
    return {
        "type": "library",
        **named,
        "name": name,
        "version": version,
        "purl": f"pkg:{where}@{version}",
        "hashes": hashes,
    }


def sbom() -> dict[str, Any]:
    """The bill of materials."""
    version = re.findall(r'(?m)^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))[:1] or ["0"]
    hub = {"type": "application", "name": "baton-hub", "version": version[0]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": hub},
        "components": list(components()),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["sbom"]:
        Path(sys.argv[2]).write_text(json.dumps(sbom(), indent=1) + "\n", "utf-8")
        sys.exit(0)
    sys.exit(audit())
