"""Logs as versions of the hub wrote them, kept for ever, and what must come of them whatever the code that reads them.

`golden/v1.log.jsonl` are records of `hub.events`, `v1.state.jsonl` the processor's state in the middle of it, `v1.expected.json`
the commands and views of the whole. Files of a version are never written anew: `python -m tests.replay.golden_log NAME` makes
those of a new one, when a type of event or the format of the state gets its next version.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from hub.engine.case import Case, from_json, to_json
from hub.engine.parking import fold
from hub.engine.step import EmitCommand, EmitEvent, ParkedEvent, StepRules, View
from hub.home import Home
from hub.log.event_log import Record
from schemas.envelope import Event
from schemas.registry import EVENTS, EventSpec, json_schema
from tests.events import event, won

GOLDEN = Path(__file__).parent / "golden"
HOME = GOLDEN / "home"


@dataclass
class Replay:
    """What a log comes to."""

    cases: dict[bytes, Case] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    parked: dict[str, str] = field(default_factory=dict)

    def run(self, log: Iterable[Record], rules: StepRules, bodies: Sequence[Record] = ()) -> Replay:
        """Fold records one after the other, as the worker does; `bodies` are read where parked work is taken up again."""
        for record in log:
            folded = fold(self.cases.get(record.key or b""), record, rules, lambda at: [_body(bodies, n) for n in at])
            if folded.case is not None:
                self.cases[record.key or b""] = folded.case
            for output in folded.outputs:
                self._note(output)
        return self

    def _note(self, output: object) -> None:
        match output:
            case EmitCommand(command=command):
                told = {"type": command.type, "instance": command.instance, "arguments": command.arguments}
                assert self.commands.setdefault(command.id, told)["type"] == command.type
            case View(entity=entity):
                self.views[entity.ref] = {"stage": entity.stage, "data": dict(entity.data)}
            case EmitEvent(event=told):
                self.derived.add(told.id)
            case ParkedEvent(ref=ref, code=code):
                self.parked[ref] = code

    def as_value(self) -> dict[str, Any]:
        return {
            "commands": dict(sorted(self.commands.items())),
            "views": dict(sorted(self.views.items())),
            "derived": sorted(self.derived),
            "parked": dict(sorted(self.parked.items())),
        }


def _body(bodies: Sequence[Record], offset: int) -> bytes:
    return next(record.value or b"" for record in bodies if record.offset == offset)


def rules(home: Path = HOME) -> StepRules:
    """The frozen rules: the logs' commands came of these."""
    return Home.load(home).rules


def versions() -> list[str]:
    return sorted(path.name.removesuffix(".log.jsonl") for path in GOLDEN.glob("*.log.jsonl"))


def load(version: str) -> list[Record]:
    """A log. A line holds the bytes of one value; its offset is its place in the file."""
    lines = (GOLDEN / f"{version}.log.jsonl").read_bytes().splitlines()
    return [Record("hub.events", 0, at, Event.from_json(raw).case.encode(), raw) for at, raw in enumerate(lines)]


def states(version: str) -> tuple[dict[bytes, Case], int]:
    """The processor's state as that version left it in the middle of its log, and the next offset."""
    lines = (GOLDEN / f"{version}.state.jsonl").read_bytes().splitlines()
    read = [from_json(raw) for raw in lines]
    return {case.id.encode(): case for case, _ in read}, max(offset for _, offset in read) + 1


def expected(version: str) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads((GOLDEN / f"{version}.expected.json").read_bytes())
    return told


def plain(value: dict[str, Any]) -> dict[str, Any]:
    """As it is after JSON."""
    read: dict[str, Any] = orjson.loads(orjson.dumps(value))
    return read


STRINGS = (
    *("网关项目", "880000", "CNY", "2026-11-24", "2026-11-20T02:00:00.000000Z"),
    *("person/wang.fang", "task/pm/1", "task.create"),
)


def sample(part: Mapping[str, Any], whole: Mapping[str, Any]) -> Any:
    """A value that a schema allows."""
    if "$ref" in part:
        return sample(whole["$defs"][part["$ref"].removeprefix("#/$defs/")], whole)
    for among in ("anyOf", "enum"):
        if among in part:
            first = part[among][0]
            return sample(first, whole) if among == "anyOf" else first
    match part.get("type"):
        case "object":
            names = part.get("properties", {})
            return {name: sample(inner, whole) for name, inner in names.items()}
        case "array":
            return [sample(part["items"], whole)] if "items" in part else []
        case "integer" | "number":
            return part.get("minimum", 3)
        case "boolean":
            return True
        case "string":
            return next(text for text in STRINGS if re.search(part.get("pattern", ""), text))
    return {}


def of_type(spec: EventSpec) -> Event:
    """An event of a type, with every field that its schema knows."""
    schema = json_schema(spec.type)
    told = event(spec.type, f"{spec.type.split('.')[1]}/crm/G-1", version="1", data=sample(schema, schema))
    return told.model_copy(update={"outbox": "golden"})


def story() -> list[Event]:
    """Each type once; and cases whose rules ask for work, that is made, done and told in different orders."""
    told = [
        of_type(spec) for spec in EVENTS.values() if spec.type not in ("hub.parked.retried", "hub.parked.discarded")
    ]
    for number in range(6):
        ref = f"opportunity/crm/S-{number}"
        told += [event("crm.opportunity.created", ref, version="1"), won(f"S-{number}", version="3")]
        told += [event("crm.opportunity.changed", ref, version="2"), won(f"S-{number}", version="4")]
        told += [event("crm.opportunity.reopened", ref, version="5"), won(f"S-{number}", version="6")]
    return told


def numbered(events: Sequence[Event]) -> list[bytes]:
    """As the relay writes them."""
    return [
        b'%s,"sequence":"%d","outbox":"golden"}' % (e.model_copy(update={"outbox": None}).to_json()[:-1], n)
        for n, e in enumerate(events, 1)
    ]


def write(version: str) -> None:
    """Make the files of a new version with the present code."""
    log = GOLDEN / f"{version}.log.jsonl"
    if log.exists():
        raise SystemExit(f"{log.name} is there: what a version wrote is never changed")
    events = story()
    made = Replay().run(_records(numbered(events)), rules())
    asked = {id_: told for id_, told in made.commands.items() if told["type"] in ("project.create", "task.create")}
    events += [_done(id_, told, events, n) for n, (id_, told) in enumerate(asked.items())]
    lines = numbered(events)
    log.write_bytes(b"\n".join(lines) + b"\n")
    half = Replay().run(_records(lines[: len(lines) // 2]), rules())
    offsets = {record.key: record.offset for record in _records(lines[: len(lines) // 2])}
    kept = [to_json(case, offsets[key]) for key, case in half.cases.items()]
    (GOLDEN / f"{version}.state.jsonl").write_bytes(b"\n".join(kept) + b"\n")
    whole = Replay().run(_records(lines), rules()).as_value()
    (GOLDEN / f"{version}.expected.json").write_bytes(orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n")


def _records(lines: Sequence[bytes]) -> list[Record]:
    return [Record("hub.events", 0, n, Event.from_json(raw).case.encode(), raw) for n, raw in enumerate(lines)]


def _done(id_: str, told: Mapping[str, Any], events: Sequence[Event], number: int) -> Event:
    """The news that what was asked for was made."""
    kind = told["type"].partition(".")[0]
    case = next(e.case for e in events if e.subject.startswith("opportunity/crm/S-"))
    type_ = f"work.{kind}.created"
    data = {"name": "交付", "title": "启动会"}
    return event(type_, f"{kind}/{told['instance']}/{number}", case=case, causationid=id_, data=data)


if __name__ == "__main__":
    write(sys.argv[1])
