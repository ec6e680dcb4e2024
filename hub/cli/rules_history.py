"""`hub rules history`: which rules, people and calendar were in force for which events, from the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, text

if TYPE_CHECKING:
    from hub.home import Home
    from hub.rules.history import Announced, RuleTimeline

HASH_CHARS_SHOWN = 12
"""Characters of a hash."""


def history(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """生效历史：何时、哪套规则、从哪里起 · which rules were in force since when, from the log."""
    from hub.cli.running_hub import RunningHub
    from hub.home import RULES_HISTORY
    from hub.processor.rule_history import RuleHistory

    hub = RunningHub.of(home)
    read = RuleHistory(hub.log(), hub.home.data / RULES_HISTORY)
    read.refresh()
    found = as_value(read.history, hub.home)
    if json:
        answer(found)
        return
    for line in lines(found):
        say(line)


def as_value(timeline: RuleTimeline, home: Home | None = None) -> dict[str, Any]:
    """For machines: every change, oldest first, and whether this home's files are the set in force."""
    announced = timeline.announcements()
    offsets = _offsets(timeline)
    changes = [
        {
            "time": each.time,
            "ruleset": each.sets.ruleset,
            "world": each.sets.world,
            **_changes(before, each),
            "from_offsets": offsets.get(each.id, {}),
        }
        for before, each in pairwise([None, *announced])
        if each is not None
    ]
    last = timeline.latest
    mine = _files(home) if home is not None else None
    return {
        "changes": changes,
        "in_force": last.sets._asdict() if last is not None else None,
        "files": None if mine is None else {**mine._asdict(), "in_force": last is not None and mine == last.sets},
    }


def _changes(before: Announced | None, now: Announced) -> dict[str, Any]:
    """The changes of an announcement, by the rules' names."""
    had: Mapping[str, str] = before.rules if before is not None else {}
    return {
        "added": sorted(now.rules.keys() - had.keys()),
        "changed": sorted(name for name in now.rules.keys() & had.keys() if now.rules[name] != had[name]),
        "removed": sorted(had.keys() - now.rules.keys()),
        "people": before is None or before.people != now.people,
        "calendar": before is None or before.calendar != now.calendar,
    }


def _offsets(timeline: RuleTimeline) -> dict[str, dict[str, int]]:
    """Announcement → partition → the offset from which it applies. A repeated set belongs to its last announcement before."""
    latest: dict[Any, str] = {}
    found: dict[str, dict[str, int]] = {}
    for each in timeline.announcements():
        latest[each.sets] = each.id
    for entry in timeline.in_force():
        at = next(
            (a.id for a in reversed(timeline.announcements()) if a.sets == entry.sets and a.time <= entry.time), None
        )
        name = at or latest.get(entry.sets)
        if name is not None:
            found.setdefault(name, {}).setdefault(str(entry.partition), entry.from_offset)
    return found


def _files(home: Home) -> Any:
    """The set of this home's files; None when they are broken, which `hub validate` reports."""
    from hub.errors import HubError
    from hub.rules.book import Files

    files = home.rule_files()
    texts = files.texts()
    read = files.read(texts)
    try:
        read.sound()
    except HubError:
        return None
    return Files.of(read, texts).sets


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """For people."""
    for change in found["changes"]:
        yield f"  {change['time'][:19]}Z  {change['ruleset'][:HASH_CHARS_SHOWN]} / {change['world'][:HASH_CHARS_SHOWN]}"
        for sign, name in (("+", "added"), ("~", "changed"), ("-", "removed")):
            for rule in change[name]:
                yield f"      {sign} {rule}"
        for name, zh, en in (("people", "人员", "people"), ("calendar", "日历", "calendar")):
            if change[name]:
                yield f"      ~ {text(zh, en)}"
        where = "  ".join(
            f"{p}:{offset}" for p, offset in sorted(change["from_offsets"].items(), key=lambda at: int(at[0]))
        )
        yield text("      生效自（分区:位置） ", "      in force from (partition:offset) ") + (where or "—")
    if not found["changes"]:
        yield text("  日志中还没有规则：hub up 之后会有", "  the log has no rules yet: it has once the hub is up")
    if found["files"] is not None and found["changes"] and not found["files"]["in_force"]:
        yield text(
            "  ! 本机的规则文件不是生效的规则集：按日志中的处理",
            "  ! this home's rule files are not the set in force: the log's counts",
        )
