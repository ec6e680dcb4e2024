"""Faust's own table in memory, as its guide has it, that says when it is restored: `python -m tests.bench.faust_table worker …`."""

from __future__ import annotations

import os
import time
from typing import Any

import faust
import orjson
from faust.types import StreamT

from schemas.topics import PARTITIONS
from tests.bench.contenders.plain_faust import plain_app

APP = "bench-table"
EVENTS, CHANGELOG = f"{APP}-events", f"{APP}-cases-changelog"
RECOVERED = b"the table is recovered"
"""Said with the seconds since its partitions were assigned."""


def make_app(bootstrap: str, folder: str) -> faust.App:
    """The program."""
    app = plain_app(APP, bootstrap, folder)
    cases = app.Table("cases", default=dict, partitions=PARTITIONS)

    @app.agent(app.topic(EVENTS, key_type=str, value_serializer="json"))
    async def keep(stream: StreamT[dict[str, Any]]) -> None:
        async for key, value in stream.items():
            cases[key] = value

    began: list[float] = []

    async def assigned(*_given: Any, **_more: Any) -> None:
        began.append(time.perf_counter())

    app.on_partitions_assigned.connect(assigned)

    @cases.on_recover
    async def recovered() -> None:
        print(
            orjson.dumps({"event": RECOVERED.decode(), "seconds": time.perf_counter() - began[-1]}).decode(), flush=True
        )

    return app


if __name__ == "__main__":
    make_app(os.environ["HUB_KAFKA"], os.environ["HUB_DATA"]).main()
