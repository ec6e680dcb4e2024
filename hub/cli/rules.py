"""`hub rules`: lists the rules, runs their trials, and tries them on an event without executing anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import rules_history
from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, as_json, explain, say, speech, text, warn

if TYPE_CHECKING:
    from hub.home import Home
    from hub.rules.explaining import EventTrial
    from hub.rules.rule import Rule
    from hub.rules.trial import Trial

rules = typer.Typer(no_args_is_help=True, help="规则：清单、测试、试算、历史 · rules: list, test, dry-run, history")
rules.command("history")(rules_history.history)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(rules, name="rules")


@rules.command("list")
def list_(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """全部规则：何时、做什么、谁负责 · every rule: when, what, and its owner."""
    from hub.home import Home

    listed = [as_value(rule) for rule in Home.load(home).rules.rules]
    if json:
        answer(listed)
        return
    for rule in listed:
        say(f"  {MARKS[rule['mode']]} {rule['rule']}  {rule['title'][speech.language]}")
        say(f"      {' | '.join(rule['when'])}{'  if ' + rule['if'] if rule['if'] else ''}")
        say(f"      → {', '.join(rule['do'])}  ({rule['owner']}, {rule['place']}, {rule['digest']})")
    if not listed:
        say(text("  没有规则：写进 rules/*.yaml", "  no rules: write them into rules/*.yaml"))


MARKS = {"live": "●", "shadow": "◌", "off": "○"}


def as_value(rule: Rule) -> dict[str, Any]:
    """A rule for machines."""
    return {
        "rule": rule.name,
        "title": dict(rule.title),
        "owner": rule.owner,
        "mode": rule.mode,
        "departments": list(rule.departments),
        "when": list(rule.when),
        "if": rule.condition.expression.text if rule.condition is not None else None,
        "do": [f"{request.type}@{request.instance}" for request in rule.requests],
        "digest": rule.digest,
        "place": str(rule.place),
    }


@rules.command("test")
def run_tests(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """运行 rules/*.test.yaml · run the trials beside the rules. Exit 1 when one fails."""
    from hub.home import Home
    from hub.rules.trial import run_trials

    loaded = Home.load(home)
    trials = run_trials(loaded.path / "rules", loaded.rules, loaded.environ)
    passed = sum(trial.passed for trial in trials)
    if json:
        results = [
            {"file": t.file, "name": t.name, "passed": t.passed, "problems": [as_json(e) for e in t.problems]}
            for t in trials
        ]
        answer({"ok": passed == len(trials), "passed": passed, "failed": len(trials) - passed, "trials": results})
    else:
        for trial in trials:
            for line in _trial(trial):
                say(line)
        say(text("通过 {}，失败 {}", "{} passed, {} failed").format(passed, len(trials) - passed))
    if passed < len(trials):
        raise typer.Exit(Exit.FAILED)


def _trial(trial: Trial) -> Iterator[str]:
    yield f"  {'✔' if trial.passed else '✘'} {trial.file}  {trial.name}"
    for problem in trial.problems:
        yield from (f"      {line}" for line in explain(problem))


@rules.command("dry-run")
def dry_run(
    file: Annotated[
        Path | None, typer.Argument(help="JSON 或 YAML 事件 · an event, or several, as JSON or YAML")
    ] = None,
    given: Annotated[Path | None, typer.Option("--given", help="同上 · the same")] = None,
    event: Annotated[str | None, typer.Option("--event", help="收到过的事件 id · the id of an event that came")] = None,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """试算：会要求哪些命令，什么也不执行 · which commands would be requested; nothing is carried out."""
    from hub.home import Home
    from hub.rules.explaining import read_events, try_events

    chosen = [each for each in (file, given, event) if each is not None]
    if len(chosen) != 1:
        raise typer.BadParameter(text("给出一个事件文件，或 --event", "name one file of events, or give --event"))
    loaded = Home.load(home)
    if event is not None:
        tried = _try_past_event(loaded, event)
    else:
        tried = try_events(loaded.rules, read_events(Path(chosen[0]), loaded.people, loaded.environ))
    if json:
        answer([trial_as_value(each) for each in tried])
        return
    for each in tried:
        for line in trial_lines(each):
            say(line)
    say(text("（试算：没有执行任何命令）", "(a dry run: nothing was carried out)"))


def _try_past_event(home: Home, event_id: str) -> list[EventTrial]:
    """Try the current rules on a past event, with its case in the state before that event."""
    from hub.cli.events import resolve_event_id
    from hub.cli.gaps import gap_lines, not_found
    from hub.cli.running_hub import RunningHub
    from hub.rules.explaining import fold_events, try_events

    with RunningHub(home).history() as history:
        event_id = resolve_event_id(history, event_id)
        stored = history.event(event_id)
        of_case = history.of_case(stored.case) if stored is not None and stored.case else []
    if stored is None:
        raise not_found(event_id, history.gaps)
    warn(*gap_lines(history.gaps))
    before = itertools.takewhile(lambda event: event.id != event_id, [each.event for each in of_case])
    return try_events(home.rules, [stored.event], fold_events(home.rules, list(before)))


def trial_as_value(tried: EventTrial) -> dict[str, Any]:
    """One event's rule outcomes for machines."""
    return {
        "event": {"id": tried.event.id, "type": tried.event.type, "subject": tried.event.subject},
        "rules": [
            {
                "rule": outcome.rule.name,
                "outcome": outcome.outcome,
                "clauses": [vars(clause) for clause in outcome.clauses],
                "commands": [command.model_dump() for command in outcome.commands],
                "error": as_json(outcome.error) if outcome.error is not None else None,
            }
            for outcome in tried.outcomes
        ],
    }


OUTCOMES = {
    "asks": ("会要求", "would ask for"),
    "shadow": ("影子模式，只记录", "in shadow mode, only recorded"),
    "off": ("已关闭", "is off"),
    "repeat": (
        "该对象已处于这个阶段，这条规则已触发过，不重复触发",
        "not again: the object is in this stage already, and the rule has triggered",
    ),
    "late": ("消息较旧：已知该对象后来的状态，不触发", "old news: a later state of the object is known"),
    "others": ("不涉及它的部门", "concerns none of its departments"),
    "condition": ("条件不成立", "its condition does not hold"),
    "nothing": ("没有产生命令", "makes no command of it"),
    "failed": ("求值失败，事件会停放", "fails, and the event would be parked"),
}


def trial_lines(tried: EventTrial) -> Iterator[str]:
    """One event's rule outcomes for people."""
    yield f"{tried.event.type}  {tried.event.subject}"
    for outcome in tried.outcomes:
        mark = "✔" if outcome.commands else "✘" if outcome.outcome == "failed" else "○"
        yield f"  {mark} {outcome.rule.title[speech.language]} ({outcome.rule.name}): {text(*OUTCOMES[outcome.outcome])}"
        for clause in outcome.clauses if outcome.outcome not in ("repeat", "late") else ():
            read = ", ".join(f"{name} = {_shown(value)}" for name, value in clause.values.items())
            yield f"      {'✔' if clause.holds else '✘'} {clause.text}{'   ' + read if read else ''}"
        for command in outcome.commands:
            yield f"      → {command.type} @{command.instance}  {arguments(command.arguments)}"
        if outcome.error is not None:
            yield from (f"      {line}" for line in explain(outcome.error))
    if not tried.outcomes:
        yield "  " + text("没有规则等待这种事件", "no rule waits for this type of event")


def arguments(given: Mapping[str, Any]) -> str:
    """A command's arguments on one line."""
    from schemas.envelope import promised

    def one(value: Any) -> str:
        command = promised(value)
        return _shown(value) if command is None else f"← {command[:8]}"

    return "  ".join(f"{name}: {one(value)}" for name, value in given.items())


def _shown(value: object) -> str:
    from hub.config.validation import short

    return value if isinstance(value, str) and len(value) < 60 else short(value)
