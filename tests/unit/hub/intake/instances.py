"""Instances as hub.yaml gives them, with each setting's place told by its path."""

from __future__ import annotations

from typing import Any

import yaml

from hub.errors import Place
from hub.kit.connector import Connector, Instance
from hub.kit.settings import dotted
from schemas.envelope import Command

COMMAND_ID = "0c2b6f6e-51a8-5b8e-8a9e-6a7d5f0f2c11"


def instance(text: str, use: str = "http", name: str = "pm", **values: str) -> Instance:
    """An instance from YAML; `%NAME%` in it is replaced by a value."""
    for key, value in values.items():
        text = text.replace(f"%{key}%", value)
    settings: dict[str, Any] = yaml.safe_load(text)
    return Instance(name, use, settings, lambda path: Place(dotted(path)), timezone="Asia/Shanghai")


def command(type_: str, **arguments: Any) -> Command:
    """A command as the executor hands it over."""
    return Command(
        id=COMMAND_ID,
        type=type_,
        instance="pm",
        case="opportunity/crm/O-1",
        time="2026-11-20T02:00:00.000000Z",
        causationid="e-1",
        subject="opportunity/crm/O-1",
        rule="won",
        digest="d",
        arguments=arguments,
        position=0,
    )


def target(connector: Connector) -> Any:
    """The face that carries out commands."""
    assert connector.sends is not None
    return connector.sends
