"""`hub why`: the chain behind a thing, and why nothing followed where nothing did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hub.cli.log_reading import gap_lines, not_found
from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, command_line, runnable, say, speech, text, warn
from hub.errors import RejectedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.config.home import Home
    from hub.replay.history import History, StoredEvent
    from hub.replay.story import CaseStory, Node, ResolvedReference
    from hub.rules.explaining import EventTrial
    from hub.rules.history import Sets
    from hub.rules.rule_set import RuleSet

UNANSWERED = 5
"""Events that nothing followed, for which the rules are asked why."""
HIDDEN = {"work.task.requested"}
"""Events that the command beside them tells already."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why", help="为什么有它、为什么没有：事件 → 规则 → 命令 → 结果 · why it is there, or is not")(why)


def why(
    ref: Annotated[
        str,
        typer.Argument(help="事件、命令、任务、项目、商机，或其编号 · an event, a command, an object, or its bare id"),
    ],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Tell the story of one thing, from ledger and log; of an event that nothing followed, what the rules say that wait for it."""
    from hub.cli.conflicting_events import differences
    from hub.cli.running_hub import RunningHub
    from hub.replay.story import as_value, of_case

    hub = RunningHub.of(home)
    with hub.history() as history:
        found = _find(history, ref)
        story = of_case(history, found.case)
        targets = story.about(found.ref) or list(story.roots)
        kept = story.around(targets)
        held = _held(history.ledger, targets)
        unanswered = _unanswered(hub.home, history, story, targets)
        differing = list(_differing(history.ledger, targets))
    if json:
        from hub.cli.rules import told

        trees = [as_value(root, kept) for root in story.roots if root.id in kept]
        answer(
            {
                "ref": found.ref,
                "case": found.case,
                "story": trees,
                "parked": held,
                "unanswered": [
                    {**told(each.tried), "judged_by": each.sets._asdict() if each.sets is not None else None}
                    for each in unanswered
                ],
                "conflicts": differing,
                "gaps": history.gaps.as_value(),
            }
        )
        return
    say(f"{found.ref}" + (f"  ({text('链条', 'case')} {found.case})" if found.case != found.ref else ""))
    for line in lines(story, kept, {node.id for node in targets}):
        say(line)
    for line in (*differences(differing), *_not_done(held, unanswered)):
        say(line)
    warn(*gap_lines(history.gaps))


def _find(history: History, ref: str) -> ResolvedReference:
    """The one thing that is meant; raises RejectedError for none and for several."""
    from hub.replay.story import find

    found = find(history, ref)
    if not found:
        raise not_found(ref, history.gaps)
    if len(found) > 1:
        raise RejectedError("HUB-E6207", ref=ref, candidates=", ".join(each.ref for each in found))
    return found[0]


def _held(conn: Connection | None, targets: Sequence[Node]) -> list[dict[str, Any]]:
    """What of it is parked."""
    from hub.cli.parked_entries import as_value
    from hub.ledger import parked

    if conn is None:
        return []
    refs = [f"{'event' if node.event is not None else 'command'}/{node.id}" for node in targets]
    rows = [parked.find(conn, ref) for ref in refs]
    return [as_value(row) for row in rows if row is not None and row.state == "open"]


def _differing(conn: Connection | None, targets: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """What of it was told again under the same id with other content."""
    from hub.cli.conflicting_events import conflict
    from hub.ledger import conflicts

    if conn is None:
        return
    events = {node.event.id: node.event for node in targets if node.event is not None}
    for row in conflicts.about(conn, list(events)):
        yield conflict(row, events[row.event_id].data)


class RuleAnswers(NamedTuple):
    """What rules say of an event; `sets` are those that judged it then, None: those of now."""

    tried: EventTrial
    sets: Sets | None


def _unanswered(home: Home, history: History, story: CaseStory, targets: Sequence[Node]) -> list[RuleAnswers]:
    """What the rules say of events that asked for nothing; none when anything followed from one of them.

    Those that judged it then, where the log's history tells it and they can be made here; else those of now.
    """
    from hub.rules.explaining import folded, try_events

    events = [node.event for node in targets if node.event is not None]
    if not events or any(below.command for node in targets for below in node.walk()) or _is_ours(events):
        return []
    before = [node.event for node in story.nodes() if node.event is not None]
    before.sort(key=lambda event: event.recordedtime)
    asked = [node.kept for node in targets if node.kept is not None and not node.kept.event.type.startswith("hub.")]
    found = []
    for kept, (sets, rules) in zip(asked[-UNANSWERED:], _judges(home, history, asked[-UNANSWERED:]), strict=True):
        case = folded(rules, before[: before.index(kept.event)])
        found += [RuleAnswers(tried, sets) for tried in try_events(rules, [kept.event], case)[:1]]
    return found


def _judges(home: Home, history: History, events: Sequence[StoredEvent]) -> Iterator[tuple[Sets | None, RuleSet]]:
    """For each event the rules that judged it, if they are known."""
    from hub.config.home import RULES_HISTORY
    from hub.ledger.identity import known
    from hub.rules.book import RuleBook
    from hub.rules.history import kept

    in_force = kept(home.data / RULES_HISTORY)
    book = RuleBook(in_force, home.environ)
    own = (known(history.ledger, "outbox") if history.ledger is not None else None) or ""
    for event in events:
        outbox, sequence = event.outbox or own, event.sequence
        sets = in_force.judged(event.partition, outbox, sequence) if event.partition is not None and sequence else None
        made = book.made(sets) if sets is not None else None
        yield (sets, made.rules) if made is not None and not made.lost else (None, home.rules)


def _is_ours(events: Sequence[Any]) -> bool:
    """Whether these tell of what we made ourselves: that is explained by its command."""
    return any(event.data.get("why") for event in events)


def lines(story: CaseStory, kept: set[str], marked: set[str]) -> Iterator[str]:
    """The trees of a story, of which only `kept` is shown."""
    for root in story.roots:
        if root.id in kept:
            yield from _tree(root, kept, marked, "", "", None)


def _tree(node: Node, kept: set[str], marked: set[str], first: str, rest: str, beside: Node | None) -> Iterator[str]:
    """One node and what it caused; of a command the rule is told unless the one `beside` it has told the same."""
    told = list(_event(node) if node.event is not None else _command(node, beside))
    mark = "  ◀" if node.id in marked and node.event is not None else ""
    yield f"{first}{told[0]}{mark}"
    below = [each for each in node.causes if each.event is None or each.event.type not in HIDDEN]
    shown = [each for each in below if each.id in kept]
    hidden = len(below) - len(shown)
    yield from (f"{rest}{'│' if shown or hidden else ' '}   {line}" for line in told[1:])
    for at, each in enumerate(shown):
        last = at == len(shown) - 1 and not hidden
        inner = (f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")
        yield from _tree(each, kept, marked, *inner, shown[at - 1] if at else None)
    if hidden:
        yield f"{rest}└─ … {text('另有 {} 项', '{} more').format(hidden)}  → {command_line('why', node.id)}"


def _event(node: Node) -> Iterator[str]:
    from hub.cli.parked_entries import local

    event = node.event
    assert event is not None  # the caller has looked
    by = event.actor or event.data.get("by")
    yield f"{local(event.time)}  {event.type}  {event.subject}{'  ' + str(by) if by else ''}  [{event.id[:8]}]"


def _command(node: Node, beside: Node | None) -> Iterator[str]:
    from hub.cli.rules import arguments
    from hub.replay.story import in_short

    command, row = node.command, node.row
    assert command is not None and row is not None  # the caller has looked
    state = text(*STATES.get(row.state, (row.state, row.state)))
    tries = text("，{} 次", ", {} tries").format(row.attempts) if row.attempts > 1 else ""
    effect = f"  → {row.effect_id}" if row.effect_id else ""
    yield f"{command.type} @{command.instance}  {state}{tries}{effect}  [{command.id[:8]}]"
    same = beside.command if beside is not None else None
    if same is None or (same.digest, same.matched) != (command.digest, command.matched):
        yield f"{text('规则', 'rule')} {command.title.get(speech.language, '')} ({command.rule}, {command.digest})"
        yield from [in_short(command.matched)] if command.matched else []
    yield from [arguments(command.arguments)] if command.arguments else []
    if row.code:
        due = f"  {text('下次', 'next try')} {row.due_at}" if row.state in ("RETRY", "UNKNOWN") and row.due_at else ""
        yield f"{row.code} {row.reason}{due}"


STATES = {
    "NEW": ("等待执行", "waiting"),
    "SENDING": ("正在执行", "being done"),
    "DONE": ("已办", "done"),
    "RETRY": ("稍后重试", "to be tried again"),
    "UNKNOWN": ("结果不明，将查询", "in doubt, to be looked up"),
    "PARKED": ("停放", "parked"),
    "DISCARDED": ("已放弃", "discarded"),
}


def _not_done(held: Sequence[dict[str, Any]], unanswered: Sequence[RuleAnswers]) -> Iterator[str]:
    """What stands in the way, and what the rules say."""
    from hub.cli.rules import verdict_lines

    for entry in held:
        yield f"  ✘ {text('停放', 'parked')} #{entry['id']}  {entry['code']} {entry['place'] or ''}  {entry['message']}"
        yield f"    → {runnable(entry['fix'] or '')}"
    for sets, answers in groupby(unanswered, key=lambda answer: answer.sets):
        if sets is None:
            yield text("没有规则为它要求过什么。按现在的规则：", "No rule has asked for anything. By the rules of now:")
        else:
            said = text(
                "没有规则为它要求过什么。按当时生效的规则（{}）：",
                "No rule has asked for anything. By the rules in force then ({}):",
            )
            yield said.format(sets.ruleset[:12])
        for each in answers:
            yield from (f"  {line}" for line in verdict_lines(each.tried))
