"""One run of a contender: fresh topics, a loaded log, the program, and what it wrote, counted exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.event_log import Record, read_to_end
from hub.kafka_log import KafkaLog
from tests.bench.contender import Contender
from tests.bench.won2task import Load, append, partitions

LEFT_OUT = 0.05
"""Of the events at the beginning: while caches and connections warm up."""
MOST_SECONDS = 240.0
LOG_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True)
class Result:
    """Events a second by the broker's clock, CPU of the program per event, its largest size."""

    rate: float
    cpu_us: float
    rss_mb: float


def run(bootstrap: str, contender: Contender, given: Load, folder: Path) -> Result:
    """Run it once; raises AssertionError unless every output is there, and none twice."""
    log = KafkaLog({"bootstrap.servers": bootstrap})
    _fresh_topics(bootstrap, contender)
    append(bootstrap, contender.events, given)
    folder.mkdir(parents=True)
    with (folder / "program.log").open("wb") as out:
        program = subprocess.Popen(
            contender.command(bootstrap, folder),
            env={**os.environ, **contender.environment(bootstrap, folder)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            cpu_us = _watch(log, contender, given, program)
            rss_mb = _peak_mb(program.pid)
        finally:
            _end(program)
    return Result(_checked_rate(log, contender, given), cpu_us, rss_mb)


def _fresh_topics(bootstrap: str, contender: Contender) -> None:
    """Delete what an earlier round left, and make all anew."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    outputs = {contender.views: LOG_APPEND_TIME, contender.commands: LOG_APPEND_TIME}
    wanted = {contender.events: {}, **outputs, **contender.more}
    there = admin.list_topics(timeout=20).topics
    old = [name for name in wanted if name in there]
    for deleted in admin.delete_topics(old, operation_timeout=30).values() if old else ():
        deleted.result(60)
    _until(lambda: not set(old) & set(admin.list_topics(timeout=20).topics), "old topics are gone")
    _until(lambda: _is_forgotten(admin, contender.group), "the old group is gone")
    asked = [NewTopic(name, partitions(), 1, config=dict(settings)) for name, settings in wanted.items()]
    for made in admin.create_topics(asked, operation_timeout=30).values():
        made.result(60)


def _is_forgotten(admin: AdminClient, group: str) -> bool:
    try:
        admin.delete_consumer_groups([group])[group].result(20)
    except KafkaException as error:
        return bool(error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND)
    return True


def _watch(log: KafkaLog, contender: Contender, given: Load, program: subprocess.Popen[bytes]) -> float:
    """Wait until all is written; CPU µs an event from the first output that was seen on."""
    first: tuple[int, float] | None = None
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        assert program.poll() is None, f"{contender.name} ended with {program.returncode}"
        assert time.monotonic() < deadline, f"{contender.name} took longer than {MOST_SECONDS:.0f} s"
        views, cpu = sum(log.ends(contender.views).values()), _cpu_seconds(program.pid)
        if first is None and views:
            first = (views, cpu)
        if views >= given.views and sum(log.ends(contender.commands).values()) >= given.commands:
            assert first is not None
            return (cpu - first[1]) / max(1, views - first[0]) * 1e6
        time.sleep(0.1)


def _checked_rate(log: KafkaLog, contender: Contender, given: Load) -> float:
    views = sorted(record.time for record in _all(log, contender.views))
    commands = [record.value or b"" for record in _all(log, contender.commands)]
    ids = [orjson.loads(value)["id"] for value in commands if contender.is_command(value)]
    assert len(views) == given.views, f"{contender.name}: {len(views)} views for {given.views} events"
    assert len(ids) == len(set(ids)) == given.commands, (
        f"{contender.name}: {len(ids)} commands, {len(set(ids))} of them different"
    )
    skipped = int(len(views) * LEFT_OUT)
    return (len(views) - skipped) / max(views[-1] - views[skipped], 0.001)


def _all(log: KafkaLog, topic: str) -> Iterator[Record]:
    for batch in read_to_end(log, topic, dict.fromkeys(range(partitions()), 0), limit=10_000):
        yield from batch


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _end(program: subprocess.Popen[bytes]) -> None:
    program.send_signal(signal.SIGTERM)
    try:
        program.wait(20)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def _until(holds: object, what: str) -> None:
    assert callable(holds)
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
