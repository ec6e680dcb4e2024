"""Checks and describes a home's connectors, for `hub validate` and `hub connectors`.

`python -m hub.ops.connector_checks WHAT --home DIR [NAME …]`.

WHAT is `validate` (offline: every mistake of the home, settings of connectors included), `list`, `describe`, or `check` (signs in
to each system). Writes JSON lines, errors as `code`, `seen` and `place`, without secrets; exits with 0 whatever the result.
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

from hub.config.yaml_places import mask, mask_facts
from hub.errors import FatalError, HubError, RejectedError
from hub.home import Home, check_home
from hub.kit import registry
from hub.kit.connector import Connector, Instance
from hub.rules.lint import without_account
from hub.rules.rule_set import RuleSet

Line = Mapping[str, Any]
UNEXPECTED_CODE = "HUB-E4055"
"""The code for an unexpected exception while settings are read: another mistake of the home usually causes it."""
HUB_COMMANDS = {"timer.set"}
"""Commands that the hub carries out itself, without a connector."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit code."""
    options = _arguments(arguments)
    try:
        for line in SUBCOMMANDS[options.what](options.home, options.names):
            write_line(line)
    except HubError as error:
        write_line({"error": as_value(error)})
    return 0


def validate(home: Path, _names: Sequence[str]) -> Iterator[Line]:
    """Every mistake and warning of a home; calls no system."""
    connectors: dict[str, Connector] = {}

    def check_instance(instance: Instance) -> list[HubError]:
        connector = _connect(instance)
        if isinstance(connector, HubError):
            return [connector]
        connectors[instance.name] = connector
        return list(connector.remarks)

    findings = check_home(home, check_instance=check_instance)
    certain = [finding for finding in findings if finding.error.code != UNEXPECTED_CODE] or findings
    for finding in certain:
        yield {"finding": {**as_value(finding.error), "is_error": finding.is_error}}
    if not any(finding.is_error for finding in findings):
        loaded = Home.load(home)
        for error in unsupported_commands(loaded.rules, connectors):
            yield {"finding": {**as_value(error), "is_error": True}}
        without_directory = [
            name
            for name, connector in connectors.items()
            if connector.sends is not None and not connector.knows_persons
        ]
        for error in without_account(loaded.rules, loaded.people, without_directory):
            yield {"finding": {**as_value(error), "is_error": False}}
    yield {"checked": sorted(connectors)}


def _connect(instance: Instance) -> Connector | HubError:
    """The instance's connector, or what is wrong with its settings."""
    try:
        return registry.connect(instance)
    except HubError as error:
        return error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return FatalError(UNEXPECTED_CODE, place=instance.place(()), instance=instance.name, reason=reason)


def unsupported_commands(rules: RuleSet, connectors: Mapping[str, Connector]) -> Iterator[HubError]:
    """An error for each command that a rule requests of a connector which does not support it."""
    for request in (request for rule in rules.rules for request in rule.requests):
        connector = connectors.get(request.instance)
        takes = (
            connector.sends.command_types if connector is not None and connector.sends is not None else frozenset[str]()
        )
        if request.type in HUB_COMMANDS or request.type in takes:
            continue
        seen = {"type": request.type, "instance": request.instance}
        if takes:
            yield RejectedError("HUB-E4062", place=request.place, known=", ".join(sorted(takes)), **seen)
        else:
            yield RejectedError("HUB-E4061", place=request.place, **seen)


def list_(home: Path, _names: Sequence[str]) -> Iterator[Line]:
    """Every installed connector, then every instance of the home."""
    for name in registry.names():
        yield {"connector": _about(name)}
    loaded = Home.load(home)
    for instance in _instances(loaded):
        connector = _connect(instance)
        if isinstance(connector, HubError):
            facts: Line = {"faces": [], "error": as_value(_masked(connector, loaded.secrets))}
        else:
            facts = {"faces": _capabilities(connector)}
        yield {"instance": {"name": instance.name, "use": instance.use, **facts}}


def _about(name: str) -> dict[str, Any]:
    manifest = registry.manifest(name)
    about = manifest.model_dump(mode="json", include={"name", "title", "summary", "kind", "learns", "quality", "emits"})
    return {**about, "takes": [command.type for command in manifest.takes]}


def _capabilities(connector: Connector) -> list[str]:
    capabilities = {"receives": connector.receives, "polls": connector.polls, "sends": connector.sends}
    return [name for name, capability in capabilities.items() if capability is not None]


def describe(home: Path, names: Sequence[str]) -> Iterator[Line]:
    """The full manifests of connectors, each named directly or by an instance that uses it."""
    entries = Home.load(home).config.connectors if (home / "hub.yaml").is_file() else {}
    for name in names:
        use = entries[name].use if name in entries and name not in registry.names() else name
        manifest = registry.manifest(use).model_dump(mode="json")
        yield {"connector": {**manifest, "readme": str(registry.folder(use) / "README.md")}}


def check(home: Path, names: Sequence[str]) -> Iterator[Line]:
    """Sign in to each system, or to these, and report the account."""
    loaded = Home.load(home)
    known = list(loaded.config.connectors)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise FatalError("HUB-E4054", instance=unknown[0], known=", ".join(known))
    for instance in _instances(loaded):
        if not names or instance.name in names:
            yield {"instance": {"name": instance.name, "use": instance.use, **_check(instance, loaded.secrets)}}


def _check(instance: Instance, secrets: set[str]) -> Line:
    began = time.monotonic()
    connector = _connect(instance)
    if isinstance(connector, HubError):
        return {"ok": False, "error": as_value(_masked(connector, secrets))}
    try:
        account = connector.check() if connector.check is not None else None
    except HubError as error:
        return {"ok": False, "error": as_value(_masked(error, secrets))}
    except Exception as error:
        reason = mask(f"{type(error).__name__}: {error}", secrets)
        return {"ok": False, "error": {"code": "HUB-E4005", "seen": {"instance": instance.name, "reason": reason}}}
    return {"ok": True, "said": account and mask(account, secrets), "ms": round((time.monotonic() - began) * 1000)}


def _instances(home: Home) -> list[Instance]:
    """The instances in the order of hub.yaml; raises FatalError for one that lacks an environment variable."""
    return list(home.instances.values())


def _masked(error: HubError, secrets: set[str]) -> HubError:
    error.seen = mask_facts(error.seen, secrets)
    return error


def as_value(error: HubError) -> dict[str, Any]:
    """An error as JSON, which another program renders in its reader's language."""
    return {"code": error.code, "seen": error.seen, "place": asdict(error.place) if error.place else None}


def write_line(line: Line) -> None:
    """Write one JSON line to stdout, and flush."""
    sys.stdout.buffer.write(orjson.dumps(line, default=str) + b"\n")
    sys.stdout.buffer.flush()


SUBCOMMANDS: Mapping[str, Callable[[Path, Sequence[str]], Iterator[Line]]] = {
    "validate": validate,
    "list": list_,
    "describe": describe,
    "check": check,
}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hub.ops.connector_checks")
    parser.add_argument("what", choices=sorted(SUBCOMMANDS))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--home", type=Path, default=Path())
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
