"""`hub why`: the causal chain of an event, command or object; and why nothing followed where nothing did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hub.cli.gaps import gap_lines, not_found
from hub.cli.terminal import HERE, HomeOption, JsonOption, answer, command_line, runnable, say, speech, text, warn
from hub.errors import RejectedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.home import Home
    from hub.replay.history import History, StoredEvent
    from hub.replay.story import CaseStory, Node, ResolvedReference
    from hub.rules.explaining import EventTrial
    from hub.rules.history import Sets
    from hub.rules.rule_set import RuleSet

MAX_UNANSWERED = 5
"""The most events without consequences for which the rules are tried."""
HIDDEN_TYPES = {"work.task.requested"}
"""Event types that repeat the command beside them."""


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
    """Show the causal chain of one thing, from ledger and log; for an event without consequences, the outcome of its rules."""
    from hub.cli.conflicting_events import conflict_lines
    from hub.cli.running_hub import RunningHub
    from hub.replay.story import as_value, of_case

    hub = RunningHub.of(home)
    with hub.history() as history:
        found = _find(history, ref)
        story = of_case(history, found.case)
        targets = story.about(found.ref) or list(story.roots)
        shown = story.around(targets)
        held = _held(history.ledger, targets)
        unanswered = _unanswered(hub.home, history, story, targets)
        differing = list(_differing(history.ledger, targets))
    if json:
        from hub.cli.rules import trial_as_value

        trees = [as_value(root, shown) for root in story.roots if root.id in shown]
        answer(
            {
                "ref": found.ref,
                "case": found.case,
                "story": trees,
                "parked": held,
                "unanswered": [
                    {**trial_as_value(each.tried), "judged_by": each.sets._asdict() if each.sets is not None else None}
                    for each in unanswered
                ],
                "conflicts": differing,
                "gaps": history.gaps.as_value(),
            }
        )
        return
    say(f"{found.ref}" + (f"  ({text('链条', 'case')} {found.case})" if found.case != found.ref else ""))
    for line in lines(story, shown, {node.id for node in targets}):
        say(line)
    for line in (*conflict_lines(differing), *_not_done(held, unanswered)):
        say(line)
    warn(*gap_lines(history.gaps))


def _find(history: History, ref: str) -> ResolvedReference:
    """The one thing that the reference names; raises RejectedError for none and for several."""
    from hub.replay.story import resolve

    found = resolve(history, ref)
    if not found:
        raise not_found(ref, history.gaps)
    if len(found) > 1:
        raise RejectedError("HUB-E6207", ref=ref, candidates=", ".join(each.ref for each in found))
    return found[0]


def _held(conn: Connection | None, targets: Sequence[Node]) -> list[dict[str, Any]]:
    """The parked entries among the targets."""
    from hub.cli.parked_entries import as_value
    from hub.ledger import parked

    if conn is None:
        return []
    refs = [f"{'event' if node.event is not None else 'command'}/{node.id}" for node in targets]
    rows = [parked.find(conn, ref) for ref in refs]
    return [as_value(row) for row in rows if row is not None and row.state == "open"]


def _differing(conn: Connection | None, targets: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """The targets that were delivered again under the same id with other content."""
    from hub.cli.conflicting_events import conflict_as_value
    from hub.ledger import conflicts

    if conn is None:
        return
    events = {node.event.id: node.event for node in targets if node.event is not None}
    for row in conflicts.about(conn, list(events)):
        yield conflict_as_value(row, events[row.event_id].data)


class RuleAnswers(NamedTuple):
    """The outcomes of rules for an event; `sets`: the rules in force when it was folded, None: the current ones."""

    tried: EventTrial
    sets: Sets | None


def _unanswered(home: Home, history: History, story: CaseStory, targets: Sequence[Node]) -> list[RuleAnswers]:
    """The rule outcomes of events without commands; empty when a command followed from one of them.

    It uses the rules in force when an event was folded, if the log's history has them and they can be built here; else the current.
    """
    from hub.rules.explaining import fold_events, try_events

    events = [node.event for node in targets if node.event is not None]
    if not events or any(below.command for node in targets for below in node.walk()) or _is_ours(events):
        return []
    before = [node.event for node in story.nodes() if node.event is not None]
    before.sort(key=lambda event: event.recordedtime)
    stored = [
        node.stored for node in targets if node.stored is not None and not node.stored.event.type.startswith("hub.")
    ]
    recent = stored[-MAX_UNANSWERED:]
    answers = []
    for each, (sets, rules) in zip(recent, _rules_in_force(home, history, recent), strict=True):
        case = fold_events(rules, before[: before.index(each.event)])
        answers += [RuleAnswers(tried, sets) for tried in try_events(rules, [each.event], case)[:1]]
    return answers


def _rules_in_force(
    home: Home, history: History, events: Sequence[StoredEvent]
) -> Iterator[tuple[Sets | None, RuleSet]]:
    """For each event the rules in force when it was folded; None and the current ones where those are unknown."""
    from hub.home import RULES_HISTORY
    from hub.ledger.identity import get_value
    from hub.rules.book import RuleBook
    from hub.rules.history import cached_timeline

    in_force = cached_timeline(home.data / RULES_HISTORY)
    book = RuleBook(in_force, home.environ)
    own = (get_value(history.ledger, "outbox") if history.ledger is not None else None) or ""
    for event in events:
        outbox, sequence = event.outbox or own, event.sequence
        sets = in_force.judged(event.partition, outbox, sequence) if event.partition is not None and sequence else None
        made = book.made(sets) if sets is not None else None
        yield (sets, made.rules) if made is not None and not made.lost else (None, home.rules)


def _is_ours(events: Sequence[Any]) -> bool:
    """Whether these events report objects that our commands created: the command explains them."""
    return any(event.data.get("why") for event in events)


def lines(story: CaseStory, shown: set[str], marked: set[str]) -> Iterator[str]:
    """The trees of a story, reduced to the nodes in `shown`."""
    for root in story.roots:
        if root.id in shown:
            yield from _tree(root, shown, marked, "", "", None)


def _tree(node: Node, shown: set[str], marked: set[str], first: str, rest: str, beside: Node | None) -> Iterator[str]:
    """A node and its consequences. A command's rule is shown unless the command `beside` it was caused by the same."""
    text_lines = list(_event(node) if node.event is not None else _command(node, beside))
    mark = "  ◀" if node.id in marked and node.event is not None else ""
    yield f"{first}{text_lines[0]}{mark}"
    below = [each for each in node.causes if each.event is None or each.event.type not in HIDDEN_TYPES]
    children = [each for each in below if each.id in shown]
    hidden = len(below) - len(children)
    yield from (f"{rest}{'│' if children or hidden else ' '}   {line}" for line in text_lines[1:])
    for at, each in enumerate(children):
        last = at == len(children) - 1 and not hidden
        inner = (f"{rest}{'└─ ' if last else '├─ '}", f"{rest}{'   ' if last else '│  '}")
        yield from _tree(each, shown, marked, *inner, children[at - 1] if at else None)
    if hidden:
        yield f"{rest}└─ … {text('另有 {} 项', '{} more').format(hidden)}  → {command_line('why', node.id)}"


def _event(node: Node) -> Iterator[str]:
    from hub.cli.parked_entries import local_time

    event = node.event
    assert event is not None  # the caller has checked
    by = event.actor or event.data.get("by")
    yield f"{local_time(event.time)}  {event.type}  {event.subject}{'  ' + str(by) if by else ''}  [{event.id[:8]}]"


def _command(node: Node, beside: Node | None) -> Iterator[str]:
    from hub.cli.rules import arguments
    from hub.replay.story import one_line

    command, row = node.command, node.row
    assert command is not None and row is not None  # the caller has checked
    state = text(*STATES.get(row.state, (row.state, row.state)))
    tries = text("，{} 次", ", {} tries").format(row.attempts) if row.attempts > 1 else ""
    effect = f"  → {row.effect_id}" if row.effect_id else ""
    yield f"{command.type} @{command.instance}  {state}{tries}{effect}  [{command.id[:8]}]"
    same = beside.command if beside is not None else None
    if same is None or (same.digest, same.matched) != (command.digest, command.matched):
        yield f"{text('规则', 'rule')} {command.title.get(speech.language, '')} ({command.rule}, {command.digest})"
        yield from [one_line(command.matched)] if command.matched else []
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
    """The parked entries, and the rules' outcomes."""
    from hub.cli.rules import trial_lines

    for entry in held:
        yield f"  ✘ {text('停放', 'parked')} #{entry['id']}  {entry['code']} {entry['place'] or ''}  {entry['message']}"
        yield f"    → {runnable(entry['fix'] or '')}"
    for sets, answers in groupby(unanswered, key=lambda answer: answer.sets):
        if sets is None:
            yield text(
                "没有规则为它要求过什么。按现在的规则：", "No rule has requested anything. By the current rules:"
            )
        else:
            template = text(
                "没有规则为它要求过什么。按当时生效的规则（{}）：",
                "No rule has requested anything. By the rules in force then ({}):",
            )
            yield template.format(sets.ruleset[:12])
        for each in answers:
            yield from (f"  {line}" for line in trial_lines(each.tried))
