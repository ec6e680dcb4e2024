"""`hub rules history`: which rules, people and calendar judged what, and since when, as the log tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, say, text

if TYPE_CHECKING:
    from hub.config.home import Home
    from hub.rules.history import Announced, RuleTimeline

SHOWN = 12
"""Characters of a hash."""


def history(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """生效历史：何时、哪套规则、从哪里起 · which rules judged what since when, as the log tells it."""
    from hub.cli.running_hub import RunningHub
    from hub.config.home import RULES_HISTORY
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


def as_value(told: RuleTimeline, home: Home | None = None) -> dict[str, Any]:
    """For machines: every change, the oldest first, and whether this home's files are what is in force."""
    announced = told.announcements()
    offsets = _offsets(told)
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
    last = told.latest
    mine = _files(home) if home is not None else None
    return {
        "changes": changes,
        "in_force": last.sets._asdict() if last is not None else None,
        "files": None if mine is None else {**mine._asdict(), "in_force": last is not None and mine == last.sets},
    }


def _changes(before: Announced | None, now: Announced) -> dict[str, Any]:
    """What an announcement has changed, by the rules' names."""
    had: Mapping[str, str] = before.rules if before is not None else {}
    return {
        "added": sorted(now.rules.keys() - had.keys()),
        "changed": sorted(name for name in now.rules.keys() & had.keys() if now.rules[name] != had[name]),
        "removed": sorted(had.keys() - now.rules.keys()),
        "people": before is None or before.people != now.people,
        "calendar": before is None or before.calendar != now.calendar,
    }


def _offsets(told: RuleTimeline) -> dict[str, dict[str, int]]:
    """Announcement → partition → from where on it judges. A set that came back belongs to its last announcement before."""
    latest: dict[Any, str] = {}
    found: dict[str, dict[str, int]] = {}
    for each in told.announcements():
        latest[each.sets] = each.id
    for entry in told.in_force():
        at = next((a.id for a in reversed(told.announcements()) if a.sets == entry.sets and a.time <= entry.time), None)
        name = at or latest.get(entry.sets)
        if name is not None:
            found.setdefault(name, {}).setdefault(str(entry.partition), entry.from_offset)
    return found


def _files(home: Home) -> Any:
    """What this home's files say; None when they are broken, which `hub validate` tells."""
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
        yield f"  {change['time'][:19]}Z  {change['ruleset'][:SHOWN]} / {change['world'][:SHOWN]}"
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
        yield text("  日志中还没有规则：hub up 之后会有", "  the log tells of no rules yet: it does once the hub is up")
    if found["files"] is not None and found["changes"] and not found["files"]["in_force"]:
        yield text(
            "  ! 本机的规则文件不是生效的规则集：按日志中的处理",
            "  ! this home's rule files are not the set in force: the log's counts",
        )
