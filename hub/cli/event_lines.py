"""Prints one line on the terminal for each business event, as it enters the log."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from hub.cli.render import MAX_FACT_CHARS, cut, shown
from hub.cli.terminal import runnable
from hub.errors import HubError
from hub.log.event_log import EventLog
from schemas.envelope import Event
from schemas.topics import EVENTS

LINE_TEMPLATES: dict[str, tuple[str, str]] = {
    "crm.opportunity.won": (
        "赢单 {name} · {account} · {amount} {currency}",
        "won {name} · {account} · {amount} {currency}",
    ),
    "crm.opportunity.lost": ("丢单 {name} · {account}", "lost {name} · {account}"),
    "crm.complaint.filed": ("客诉 {customer}", "complaint of {customer}"),
    "erp.stock.ran_low": ("库存不足 {item}：余 {quantity}", "stock of {item} ran low: {quantity} left"),
    "work.project.created": ("  → 项目 {name} ({ref})", "  → project {name} ({ref})"),
    "work.task.created": ("  → 任务 {title} · {assignee}", "  → task {title} · {assignee}"),
    "work.task.completed": ("完成 {title} ({ref})", "done {title} ({ref})"),
    "work.project.completed": ("项目完成 {name} ({ref})", "project completed {name} ({ref})"),
    "hub.command.done message.send": ("  → 消息 {text} · {to}", "  → message {text} · {to}"),
    "hub.command.done": ("  → {type} 已办 {id}", "  → {type} done {id}"),
    "hub.command.parked": (
        "  ✘ {type} 停放：{code} {reason} → hub parked list",
        "  ✘ {type} parked: {code} {reason} → hub parked list",
    ),
    "hub.rule.changed": ("规则已更新 {ref}", "rule changed {ref}"),
    "hub.connector.paused": ("连接器已暂停 {ref}：{reason}", "connector paused {ref}: {reason}"),
    "hub.connector.resumed": ("连接器已恢复 {ref}", "connector resumed {ref}"),
}


class _Fields(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""


def line_of(event: Event, language: str, names: Mapping[str, str]) -> str | None:
    """The line for an event; None for events that are not shown. `names`: person reference → name."""
    templates = LINE_TEMPLATES.get(f"{event.type} {event.data.get('type')}") or LINE_TEMPLATES.get(event.type)
    if templates is None:
        return None
    template = runnable(templates[0] if language == "zh-CN" else templates[1])
    ref, arguments = event.subject.partition("/")[2], event.data.get("arguments") or {}
    fields = _Fields({name: _short(value, names) for name, value in {**arguments, **event.data, "ref": ref}.items()})
    return f"  {time_of_day(event.recordedtime)}  {template.format_map(fields).rstrip(' ·')}"


def _short(value: Any, names: Mapping[str, str]) -> Any:
    """A text on one line and shortened, a person reference as the person's name; other values unchanged."""
    return cut(" ".join(names.get(value, value).split()), MAX_FACT_CHARS) if isinstance(value, str) else value


def time_of_day(stamp: str) -> str:
    """The time of day in the home's zone."""
    return shown(stamp, "%H:%M:%S")


class EventLines:
    """Prints the events appended to the log since this object was created; retries while the broker is unavailable."""

    def __init__(self, log: EventLog, language: str, names: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._log, self._language, self._names, self._say = log, language, names, say
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="facts", daemon=True)
        self._positions: dict[int, int] | None = None
        with contextlib.suppress(HubError):
            self._positions = dict(log.ends(EVENTS.name))

    def start(self) -> None:
        """Print the events since then, and follow the log."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; waits up to 5 s for the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._read()
            except HubError:
                self._stopping.wait(1.0)

    def _read(self) -> None:
        self._positions = self._positions or dict(self._log.ends(EVENTS.name))
        reader = self._log.reader(EVENTS.name, self._positions, gather=0.2)
        try:
            while not self._stopping.is_set():
                for record in reader.read(500, 0.5):
                    self._positions[record.partition] = record.offset + 1
                    self._print(record.value or b"")
        finally:
            reader.close()

    def _print(self, raw: bytes) -> None:
        try:
            line = line_of(Event.from_json(raw), self._language, self._names)
        except ValidationError:
            return
        if line is not None:
            self._say(line)
