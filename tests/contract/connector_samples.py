"""What the contract suite reads beside a connector: its sample settings, and pushes and answers as they were recorded.

`samples/settings.yaml`           an instance of it that connects offline
`samples/deliveries/<name>.http`  a push: its headers, an empty line, its body byte for byte
`samples/deliveries/<name>.facts.yaml`   what it says
`samples/polls/<name>.json`       an answer of a polled system, read by `replay(sample, instance)` in the connector's mapping.py
`samples/polls/<name>.facts.yaml` what it says
`samples/commands/<name>.yaml`    a command that is carried out without any outside system, its effect and its facts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import yaml

from hub.kit import registry
from hub.kit.connector import Connector, Delivery, Effect, Fact, Instance, Unmapped
from schemas.envelope import Command, derived_id, format_time

Told = tuple[Fact | Unmapped, ...]
Replay = Callable[[bytes, str], Told]
RECEIVED = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
INSTANCE = "sample"


@dataclass(frozen=True)
class Sample:
    """One recorded push or answer, and what it is expected to say."""

    connector: str
    file: Path

    @property
    def asks(self) -> bool:
        """Whether it is a command."""
        return self.file.parent.name == "commands"

    def effect(self, connector: Connector) -> Effect:
        """What comes of the command."""
        assert connector.sends is not None
        return connector.sends.send(command(**yaml.safe_load(self.file.read_text("utf-8"))["command"]))

    @property
    def expected(self) -> list[dict[str, Any]]:
        """Facts as YAML; `unmapped: HUB-E…` for one that cannot be told."""
        if self.asks:
            return list(yaml.safe_load(self.file.read_text("utf-8"))["facts"])
        read: list[dict[str, Any]] = yaml.safe_load(self.file.with_suffix(".facts.yaml").read_text("utf-8"))
        return read

    def told(self, connector: Connector) -> Told:
        """What the connector's mapping makes of it."""
        if self.asks:
            return self.effect(connector).facts
        if self.file.suffix == ".http":
            assert connector.receives is not None
            return connector.receives.read(delivery(self.file))
        mapping = import_module(f"{registry.package(self.connector)}.mapping")
        return cast(Replay, mapping.replay)(self.file.read_bytes(), connector.instance.name)


def samples(name: str) -> Iterator[Sample]:
    """All that were recorded of a connector."""
    folder = registry.folder(name) / "samples"
    for file in sorted(
        [*folder.glob("deliveries/*.http"), *folder.glob("polls/*.json"), *folder.glob("commands/*.yaml")]
    ):
        yield Sample(name, file)


def instance(name: str) -> Instance:
    """The sample settings, as the hub would hand them over."""
    text = (registry.folder(name) / "samples" / "settings.yaml").read_text("utf-8")
    return Instance(INSTANCE, name, yaml.safe_load(text), timezone="Asia/Shanghai")


def delivery(file: Path) -> Delivery:
    """A recorded push."""
    head, _, body = file.read_bytes().partition(b"\n\n")
    lines = [line.partition(":") for line in head.decode().splitlines()]
    return Delivery({name.strip().lower(): value.strip() for name, _, value in lines}, body, RECEIVED)


def command(type: str, arguments: dict[str, Any]) -> Command:
    """A command as the executor hands it over."""
    return Command(
        id="6b1c0a52-6a2a-5f0e-9a3e-2d8f6f9c1b11",
        type=type,
        instance=INSTANCE,
        case="opportunity/crm/O-1",
        time="2026-11-20T02:00:00.000000Z",
        causationid="e-1",
        subject="opportunity/crm/O-1",
        rule="won",
        digest="d",
        arguments=arguments,
        position=0,
    )


def event_ids(told: Told) -> list[str]:
    """The ids of the events that these facts become."""
    return [derived_id(INSTANCE, fact.type, fact.subject, fact.version) for fact in told if isinstance(fact, Fact)]


def as_yaml(fact: Fact | Unmapped) -> dict[str, Any]:
    """A fact as the expected ones are written."""
    if isinstance(fact, Unmapped):
        return {"unmapped": fact.code} | ({"subject": fact.subject} if fact.subject else {})
    plain = {
        "type": fact.type,
        "subject": fact.subject,
        "version": fact.version,
        "time": format_time(fact.time),
        "belongs_to": fact.belongs_to,
        "actor": fact.actor,
        "origin": fact.origin,
        "data": dict(fact.data),
    }
    return {name: value for name, value in plain.items() if value is not None}
