"""`python -m tests.cluster.schemas`: docker/ against the schemas of Compose and Kubernetes, and `docker compose config` if there.

The validators come from PyPI into an environment of their own, which is thrown away.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.cluster.compose import DOCKER

VALIDATORS = ("check-jsonschema==0.39.0", "kubernetes-validate==1.37.0", "setuptools<81")
COMPOSE = ("compose.yaml", "cluster.yaml")
UNSET = {"POSTGRES_PASSWORD": "unset", "KAFKA_PASSWORD": "unset"}


def _call(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    print("+", " ".join(command), flush=True)
    return subprocess.run(command, env={**os.environ, **(environment or {})}, check=False).returncode


def _plain(folder: Path) -> list[str]:
    """The Compose files with their anchors merged, as Compose sees them."""
    found = []
    for name in COMPOSE:
        (folder / name).write_text(yaml.safe_dump(yaml.safe_load((DOCKER / name).read_text("utf-8"))), "utf-8")
        found.append(str(folder / name))
    return found


def _engine() -> list[str] | None:
    if shutil.which("docker") is None:
        return None
    there = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    return ["docker", "compose"] if there else None


def main() -> int:
    """Validate; 0 when all is sound."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        venv.create(folder / "venv", with_pip=True)
        bin_ = folder / "venv" / "bin"
        failed = _call([str(bin_ / "pip"), "install", "--quiet", "--disable-pip-version-check", *VALIDATORS])
        checked = [str(bin_ / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *_plain(folder)]
        failed += _call(checked)
        objects = [
            str(file) for file in sorted((DOCKER / "kubernetes").glob("*.yaml")) if file.name != "kustomization.yaml"
        ]
        failed += _call([str(bin_ / "kubernetes-validate"), "--strict", *objects])
    engine = _engine()
    if engine is None:
        print("docker compose is not on this machine: its own `config` was not asked")
    else:
        for name in COMPOSE:
            failed += _call([*engine, "--file", str(DOCKER / name), "config", "--quiet"], UNSET)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
