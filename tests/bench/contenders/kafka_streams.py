"""Kafka Streams in Java, on both cores, with at-least-once and with exactly-once: `tests/bench/kafka_streams/Won2Task.java`.

Cases lie in memory with a changelog, which is the fastest of its stores. With exactly-once it commits ten times a second, which is
its default; with at-least-once each second, as often as the product does: by its default of thirty seconds no state would be kept
in a race that is as short. A JVM compiles while it runs, so a quarter of the events is left out.
"""

from __future__ import annotations

from tests.bench.contender import Contender
from tests.bench.java import class_path, java, prepare
from tests.bench.programs import ROOT

NAME = "kafka-streams"
SOURCE = ROOT / "tests" / "bench" / "kafka_streams" / "Won2Task.java"
CORES = 2
JVM = ("-Xmx512m", "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")


def _contender(guarantee: str, commit_ms: int) -> Contender:
    name = f"{NAME}-{guarantee.replace('_', '-')}"
    app = f"bench-{name}"
    return Contender(
        name=name,
        deals=12_000,
        events=f"{app}-events",
        views=f"{app}-views",
        commands=f"{app}-commands",
        more={f"{app}-cases-changelog": {"cleanup.policy": "compact"}},
        group=app,
        programs=lambda bootstrap, folder: [
            [
                *(java(), *JVM, "-cp", class_path(NAME, SOURCE), "Won2Task"),
                *(bootstrap, app, str(folder / "state"), guarantee, str(CORES), str(commit_ms)),
            ]
        ],
        prepare=lambda: prepare(NAME, SOURCE),
        cores=CORES,
        warm_up=0.25,
    )


CONTENDERS = (_contender("at_least_once", 1000), _contender("exactly_once_v2", 100))
