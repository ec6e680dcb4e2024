"""The product: `python -m hub` on acme's home, with its rules, as `hub up` runs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import orjson

from hub.worker import GROUP
from schemas import topics
from schemas.topics import settings_of
from tests.bench.contender import Contender

ACME = Path(__file__).parents[3] / "hub" / "templates" / "acme"
VIEWS = topics.VIEWS["opportunity"]


def environment(bootstrap: str, folder: Path) -> Mapping[str, str]:
    return {"HUB_KAFKA": bootstrap, "HUB_DATA": str(folder), "HUB_LANG": "en"}


CONTENDER = Contender(
    name="hub",
    deals=6_000,
    events=topics.EVENTS.name,
    views=VIEWS.name,
    commands=topics.COMMANDS.name,
    more={
        topic.name: settings_of(topic) for topic in topics.ALL if topic not in (topics.EVENTS, VIEWS, topics.COMMANDS)
    },
    group=GROUP,
    command=lambda bootstrap, folder: [sys.executable, "-m", "hub", "--home", str(ACME)],
    environment=environment,
    is_command=lambda value: "record" not in orjson.loads(value),
)
