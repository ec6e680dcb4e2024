"""docker/'s Compose files, read as Compose reads them as far as tests need it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def services(file: str, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services of a file, with variables filled in; raises KeyError for one that is required and missing."""
    text = _VARIABLE.sub(lambda found: _value(found, environ), (DOCKER / file).read_text("utf-8"))
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def _value(found: re.Match[str], environ: Mapping[str, str]) -> str:
    name, kind, default = found.groups()
    return environ[name] if kind != "-" else environ.get(name, default)


def kafka_properties(environment: Mapping[str, Any]) -> dict[str, str]:
    """What the image of Kafka makes of its environment: `KAFKA_A_B` is `a.b`, but for the settings of its JVM."""
    names = {name for name in environment if name.startswith("KAFKA_") and not name.endswith("_OPTS")}
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(environment[name]).strip() for name in sorted(names)
    }
