"""Saying a verdict: one sentence for people, in either language, and a value for programs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hub.errors import LANGUAGES, read_texts
from hub.health.verdict import HealthState, HealthStatus, Trouble

WON = "crm.opportunity.won"


@functools.cache
def texts() -> Mapping[str, Mapping[str, str]]:
    """Every text of health: id → language → text."""
    loaded: Mapping[str, Mapping[str, str]] = read_texts(Path(__file__).parent)
    return loaded


def say(text: str, language: str, **facts: Any) -> str:
    """One text with its facts."""
    return texts()[text][language].format(**facts)


Age = Callable[[float, str], str]
"""Writes a duration in a language."""


def sentence(verdict: HealthStatus, language: str, age: Age | None = None) -> str:
    """The verdict in one sentence: what is wrong and what waits for it, or that all moves. `age` may write durations otherwise."""
    worst = verdict.worst
    if worst is None:
        return say("ok.parked", language, count=verdict.parked) if verdict.parked else say("ok", language)
    first = told(worst, language, age)
    count = len(verdict.troubles) - 1
    # With its log, ledger or worker away, much else stands still too: that follows from it, and says nothing new.
    said = say("more", language, first=first, count=count) if count and worst.state is HealthState.DEGRADED else first
    return say("ok.but", language, what=said) if verdict.ok else said


def told(trouble: Trouble, language: str, age: Age | None = None) -> str:
    """One trouble in words."""
    facts = dict(trouble.facts)
    if "seconds" in facts:
        facts["age"] = (age or duration)(facts.pop("seconds"), language)
    match trouble.kind:
        case "away":
            return say(f"away.{facts['store']}", language, code=facts["code"])  # its reason names addresses
        case "program":
            named = f"program.{facts['program']}"
            name = say(named, language) if named in texts() else facts["program"]
            return say(f"program.{facts['is']}", language, program=name, pid=facts["pid"])
        case "instance":
            return say(f"instance.{facts['is']}", language, instance=facts["instance"])
        case "held" | "relay" | "rules" | "asked" | "calls" | "boards":
            facts["what"] = waiting(int(facts["count"]), facts.get("types", {}), language)
            where = ", ".join(facts.get("where", ()))
            return say(f"{trouble.kind}.{trouble.state.word}", language, **{**facts, "where": where})
        case "files":
            return say("files.more" if facts["more"] else "files", language, **facts)
        case kind:
            return say(kind, language, **facts)


def waiting(count: int, types: Mapping[str, int], language: str) -> str:
    """What waits: won deals by that name, as they are what people wait for; all else as events."""
    deals = types.get(WON, 0)
    if deals:
        return say("deal" if deals == 1 else "deals", language, count=deals)
    return say("event" if count == 1 else "events.are", language, count=count)


def duration(seconds: float, language: str) -> str:
    """A duration to the second, from an hour on to the minute."""
    whole = int(seconds)
    minutes, left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return say("days", language, days=days, hours=hours_left)
    if hours:
        return say("hours", language, hours=hours, minutes=minutes_left)
    if minutes:
        return say("minutes", language, minutes=minutes, seconds=left)
    return say("seconds", language, seconds=left)


def as_value(verdict: HealthStatus, language: str | None = None) -> dict[str, Any]:
    """The verdict for programs; in both languages unless one is asked for. Names of parts, and no address or secret."""

    def said(write: Callable[[str], str]) -> str | dict[str, str]:
        return write(language) if language is not None else {each: write(each) for each in LANGUAGES}

    return {
        "status": verdict.state.word,
        "at": verdict.at,
        "sentence": said(lambda each: sentence(verdict, each)),
        "parts": {
            stage.stage: {
                "status": stage.state.word,
                "waiting": stage.waiting,
                "oldest_seconds": round(stage.oldest, 1),
            }
            for stage in verdict.stages
        },
        "troubles": [
            {
                "kind": trouble.kind,
                "status": trouble.state.word,
                "outside": trouble.outside,
                "where": trouble.where,
                "seconds": round(trouble.seconds, 1),
                "sentence": said(functools.partial(told, trouble)),
            }
            for trouble in verdict.troubles
        ],
        "parked": dict(verdict.facts.parked),
    }
