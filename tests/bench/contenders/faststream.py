"""FastStream as its guide teaches it: a subscriber with a pydantic model on confluent-kafka, and publishers that await deliveries.

It has no state: cases are a dict, and each new one is published to a compacted topic. `python -m tests.bench.contenders.faststream
BOOTSTRAP`, in an environment of its own, is its program.
"""

from __future__ import annotations

import sys

from schemas.envelope import Event
from tests.bench.contender import Contender
from tests.bench.environments import make, python_of
from tests.bench.job import Case, after, commands_of, is_repeat, view_of

NAME = "faststream"
GROUP = "bench-faststream"
EVENTS, VIEWS, COMMANDS, STATES = (f"{GROUP}-{name}" for name in ("events", "views", "commands", "states"))


def run(bootstrap: str) -> None:
    """Until SIGTERM."""
    import asyncio

    from faststream import AckPolicy, FastStream  # type: ignore[import-not-found]  # its own environment has it
    from faststream.confluent import KafkaBroker  # type: ignore[import-not-found]  # as above

    broker = KafkaBroker(bootstrap, logger=None, config={"linger.ms": 0})  # each publish waits for its delivery
    views, commands, states = (broker.publisher(topic) for topic in (VIEWS, COMMANDS, STATES))
    cases: dict[str, Case] = {}

    @broker.subscriber(EVENTS, group_id=GROUP, auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR)  # type: ignore[untyped-decorator]  # as above
    async def run_case(event: Event) -> None:
        case = cases.get(event.case, {})
        if is_repeat(case, event):
            return
        case = after(case, event)
        await asyncio.gather(
            views.publish(view_of(case, event), key=event.subject.encode()),
            *(commands.publish(command, key=event.case.encode()) for command in commands_of(event)),
        )
        await states.publish(case, key=event.case.encode())
        cases[event.case] = case

    asyncio.run(FastStream(broker, logger=None).run())


CONTENDERS = (
    Contender(
        name=NAME,
        deals=600,
        events=EVENTS,
        views=VIEWS,
        commands=COMMANDS,
        more={STATES: {"cleanup.policy": "compact"}},
        group=GROUP,
        programs=lambda bootstrap, folder: [[python_of(NAME), "-m", "tests.bench.contenders.faststream", bootstrap]],
        prepare=lambda: make(NAME),
    ),
)


if __name__ == "__main__":
    run(*sys.argv[1:])
