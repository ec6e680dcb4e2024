"""The product: the processor on acme's home, with its rules, as `hub up` runs it; one worker, and two at once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import orjson

from hub.processor import GROUP
from schemas import topics
from schemas.topics import settings_of
from tests.bench.contender import OURS, Contender
from tests.bench.programs import ROOT

ACME = ROOT / "hub" / "templates" / "acme"
VIEWS = topics.VIEWS["opportunity"]


def environment(bootstrap: str, folder: Path) -> Mapping[str, str]:
    return {"HUB_KAFKA": bootstrap, "HUB_DATA": str(folder), "HUB_LANG": "en"}


def _contender(copies: int, deals: int, warm_up: float) -> Contender:
    numbers = range(1, copies + 1)
    return Contender(
        name=OURS[copies],
        deals=deals,
        events=topics.EVENTS.name,
        views=VIEWS.name,
        commands=topics.COMMANDS.name,
        more={
            topic.name: settings_of(topic)
            for topic in topics.ALL
            if topic not in (topics.EVENTS, VIEWS, topics.COMMANDS)
        },
        group=GROUP,
        programs=lambda bootstrap, folder: [
            [sys.executable, "-m", "hub.programs.processor", "--home", str(ACME), "--copy", str(number)]
            for number in numbers
        ],
        environment=environment,
        is_command=lambda value: "record" not in orjson.loads(value),
        cores=copies,
        warm_up=warm_up,
    )


CONTENDERS = (_contender(1, 6_000, 0.05), _contender(2, 12_000, 0.25))
