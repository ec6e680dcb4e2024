"""What a home's connectors are and whether they work, for the commands.

`python -m hub.ops.connector_checks WHAT --home DIR [NAME …]`.

WHAT is `validate` (offline: every mistake of the home, settings of connectors included), `list`, `describe`, or `check` (asks each
system who we are). Says JSON lines, errors as `code`, `seen` and `place`, without secrets; exit 0 whatever they tell.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from hub.config.home import Home, check_home
from hub.config.yaml_places import mask, mask_facts
from hub.errors import FatalError, HubError, RejectedError
from hub.kit import registry
from hub.kit.connector import Connector, Instance
from hub.rules.lint import without_account
from hub.rules.rule_set import RuleSet

Line = Mapping[str, Any]
UNSURE = "HUB-E4055"
"""What nobody foresaw while settings were read: as a rule another mistake of the home is behind it."""
OF_THE_HUB = {"timer.set"}
"""Commands that need no system."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one question."""
    asked = _arguments(arguments)
    try:
        for line in ANSWERS[asked.what](asked.home, asked.names):
            tell(line)
    except HubError as error:
        tell({"error": as_value(error)})
    return 0


def validate(home: Path, _names: Sequence[str]) -> Iterator[Line]:
    """Every mistake and warning of a home; nothing is called."""
    made: dict[str, Connector] = {}

    def connected(instance: Instance) -> list[HubError]:
        found = _connected(instance)
        if isinstance(found, HubError):
            return [found]
        made[instance.name] = found
        return list(found.remarks)

    found = check_home(home, check_instance=connected)
    sure = [finding for finding in found if finding.error.code != UNSURE] or found
    for finding in sure:
        yield {"finding": {**as_value(finding.error), "is_error": finding.is_error}}
    if not any(finding.is_error for finding in found):
        loaded = Home.load(home)
        for error in untaken(loaded.rules, made):
            yield {"finding": {**as_value(error), "is_error": True}}
        strangers = [
            name for name, connector in made.items() if connector.sends is not None and not connector.knows_persons
        ]
        for error in without_account(loaded.rules, loaded.people, strangers):
            yield {"finding": {**as_value(error), "is_error": False}}
    yield {"checked": sorted(made)}


def _connected(instance: Instance) -> Connector | HubError:
    """The instance's connector, or what is wrong with its settings."""
    try:
        return registry.connect(instance)
    except HubError as error:
        return error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return FatalError(UNSURE, place=instance.place(()), instance=instance.name, reason=reason)


def untaken(rules: RuleSet, connectors: Mapping[str, Connector]) -> Iterator[HubError]:
    """Commands that a rule asks of a connector which does not carry them out."""
    for request in (request for rule in rules.rules for request in rule.requests):
        connector = connectors.get(request.instance)
        takes = connector.sends.takes if connector is not None and connector.sends is not None else frozenset[str]()
        if request.type in OF_THE_HUB or request.type in takes:
            continue
        seen = {"type": request.type, "instance": request.instance}
        if takes:
            yield RejectedError("HUB-E4062", place=request.place, known=", ".join(sorted(takes)), **seen)
        else:
            yield RejectedError("HUB-E4061", place=request.place, **seen)


def list_(home: Path, _names: Sequence[str]) -> Iterator[Line]:
    """Every connector that can be used, then every instance of the home."""
    for name in registry.names():
        yield {"connector": _about(name)}
    loaded = Home.load(home)
    for instance in _instances(loaded):
        found = _connected(instance)
        if isinstance(found, HubError):
            faces: Line = {"faces": [], "error": as_value(_masked(found, loaded.secrets))}
        else:
            faces = {"faces": _faces(found)}
        yield {"instance": {"name": instance.name, "use": instance.use, **faces}}


def _about(name: str) -> dict[str, Any]:
    told = registry.manifest(name)
    about = told.model_dump(mode="json", include={"name", "title", "summary", "kind", "learns", "quality", "emits"})
    return {**about, "takes": [taken.type for taken in told.takes]}


def _faces(connector: Connector) -> list[str]:
    faces = {"receives": connector.receives, "polls": connector.polls, "sends": connector.sends}
    return [name for name, face in faces.items() if face is not None]


def describe(home: Path, names: Sequence[str]) -> Iterator[Line]:
    """Connectors in full, named themselves or by an instance that uses them."""
    entries = Home.load(home).config.connectors if (home / "hub.yaml").is_file() else {}
    for name in names:
        use = entries[name].use if name in entries and name not in registry.names() else name
        told = registry.manifest(use).model_dump(mode="json")
        yield {"connector": {**told, "readme": str(registry.folder(use) / "README.md")}}


def check(home: Path, names: Sequence[str]) -> Iterator[Line]:
    """Ask each system, or these, who we are."""
    loaded = Home.load(home)
    known = list(loaded.config.connectors)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise FatalError("HUB-E4054", instance=unknown[0], known=", ".join(known))
    for instance in _instances(loaded):
        if not names or instance.name in names:
            yield {"instance": {"name": instance.name, "use": instance.use, **_asked(instance, loaded.secrets)}}


def _asked(instance: Instance, secrets: set[str]) -> Line:
    began = time.monotonic()
    found = _connected(instance)
    if isinstance(found, HubError):
        return {"ok": False, "error": as_value(_masked(found, secrets))}
    try:
        said = found.check() if found.check is not None else None
    except HubError as error:
        return {"ok": False, "error": as_value(_masked(error, secrets))}
    except Exception as error:
        reason = mask(f"{type(error).__name__}: {error}", secrets)
        return {"ok": False, "error": {"code": "HUB-E4005", "seen": {"instance": instance.name, "reason": reason}}}
    return {"ok": True, "said": said and mask(said, secrets), "ms": round((time.monotonic() - began) * 1000)}


def _instances(home: Home) -> list[Instance]:
    """The instances in the order of hub.yaml; raises FatalError for one that lacks an environment variable."""
    return list(home.instances.values())


def _masked(error: HubError, secrets: set[str]) -> HubError:
    error.seen = mask_facts(error.seen, secrets)
    return error


def as_value(error: HubError) -> dict[str, Any]:
    """An error that another program can say in its reader's language."""
    return {"code": error.code, "seen": error.seen, "place": asdict(error.place) if error.place else None}


def tell(line: Line) -> None:
    """Say one line."""
    sys.stdout.buffer.write(orjson.dumps(line, default=str) + b"\n")
    sys.stdout.buffer.flush()


ANSWERS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[Line]]] = {
    "validate": validate,
    "list": list_,
    "describe": describe,
    "check": check,
}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.ops.connector_checks")
    parser.add_argument("what", choices=sorted(ANSWERS))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--home", type=Path, default=Path())
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
