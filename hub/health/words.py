"""Renders a health status: as one sentence for people, in either language, and as a JSON value for programs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hub.errors import LANGUAGES, read_texts
from hub.health.status import HealthState, HealthStatus, Trouble

DEAL_WON = "crm.opportunity.won"


@functools.cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """The texts of health: id → language → text."""
    loaded: Mapping[str, Mapping[str, str]] = read_texts(Path(__file__).parent)
    return loaded


def render_text(text: str, language: str, **facts: Any) -> str:
    """One text, filled with its facts."""
    return texts()[text][language].format(**facts)


DurationFormat = Callable[[float, str], str]
"""Formats a duration in seconds in a language."""


def sentence(status: HealthStatus, language: str, age: DurationFormat | None = None) -> str:
    """The status in one sentence: what is wrong and what waits for it, or that all is moving. `age` overrides `duration`."""
    worst = status.worst
    if worst is None:
        return render_text("ok.parked", language, count=status.parked) if status.parked else render_text("ok", language)
    first = trouble_text(worst, language, age)
    count = len(status.troubles) - 1
    # A stalled or unavailable part stalls others too: those troubles are consequences and add no information.
    show_more = count and worst.state is HealthState.DEGRADED
    summary = render_text("more", language, first=first, count=count) if show_more else first
    return render_text("ok.but", language, what=summary) if status.ok else summary


def trouble_text(trouble: Trouble, language: str, age: DurationFormat | None = None) -> str:
    """One trouble as a sentence."""
    facts = dict(trouble.facts)
    if "seconds" in facts:
        facts["age"] = (age or duration)(facts.pop("seconds"), language)
    match trouble.kind:
        case "away":
            return render_text(f"away.{facts['store']}", language, code=facts["code"])  # its reason contains addresses
        case "program":
            text = f"program.{facts['program']}"
            name = render_text(text, language) if text in texts() else facts["program"]
            return render_text(f"program.{facts['is']}", language, program=name, pid=facts["pid"])
        case "instance":
            return render_text(f"instance.{facts['is']}", language, instance=facts["instance"])
        case "held" | "relay" | "rules" | "asked" | "calls" | "boards":
            facts["what"] = waiting_text(int(facts["count"]), facts.get("types", {}), language)
            where = ", ".join(facts.get("where", ()))
            return render_text(f"{trouble.kind}.{trouble.state.label}", language, **{**facts, "where": where})
        case "files":
            return render_text("files.more" if facts["more"] else "files", language, **facts)
        case kind:
            return render_text(kind, language, **facts)


def waiting_text(count: int, types: Mapping[str, int], language: str) -> str:
    """A backlog as text: the number of won deals if there are any, as people wait for these; else the number of events."""
    deals = types.get(DEAL_WON, 0)
    if deals:
        return render_text("deal" if deals == 1 else "deals", language, count=deals)
    return render_text("event" if count == 1 else "events.are", language, count=count)


def duration(seconds: float, language: str) -> str:
    """A duration to the second; from one hour on, to the minute."""
    whole = int(seconds)
    minutes, left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return render_text("days", language, days=days, hours=hours_left)
    if hours:
        return render_text("hours", language, hours=hours, minutes=minutes_left)
    if minutes:
        return render_text("minutes", language, minutes=minutes, seconds=left)
    return render_text("seconds", language, seconds=left)


def status_value(status: HealthStatus, language: str | None = None) -> dict[str, Any]:
    """The status as a JSON value, in both languages unless `language` is given. Contains no addresses or secrets."""

    def localized(write: Callable[[str], str]) -> str | dict[str, str]:
        return write(language) if language is not None else {each: write(each) for each in LANGUAGES}

    return {
        "status": status.state.label,
        "at": status.at,
        "sentence": localized(lambda each: sentence(status, each)),
        "parts": {
            stage.stage: {
                "status": stage.state.label,
                "waiting": stage.waiting,
                "oldest_seconds": round(stage.oldest, 1),
            }
            for stage in status.stages
        },
        "troubles": [
            {
                "kind": trouble.kind,
                "status": trouble.state.label,
                "outside": trouble.outside,
                "where": trouble.where,
                "seconds": round(trouble.seconds, 1),
                "sentence": localized(functools.partial(trouble_text, trouble)),
            }
            for trouble in status.troubles
        ],
        "parked": dict(status.facts.parked),
    }
