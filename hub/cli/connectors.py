"""`hub connectors`: which there are, which are connected, and whether the systems let us in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.terminal import (
    HERE,
    Exit,
    HomeOption,
    JsonOption,
    answer,
    as_json,
    exit_code,
    explain,
    say,
    speech,
    text,
    warn,
)

connectors = typer.Typer(no_args_is_help=True, help="连接器：清单、检查、说明 · connectors: list, check, describe")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(connectors, name="connectors")


@connectors.command("list")
def list_(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """已有的连接器，和这里接了哪些 · the connectors there are, and what is connected here."""
    told = list(_asked("list", home, ()))
    catalogue = [line["connector"] for line in told if "connector" in line]
    states = _states(home)
    instances = [
        {**line["instance"], "state": states.get(line["instance"]["name"], "ok")} for line in told if "instance" in line
    ]
    for instance in instances:
        if "error" in instance:
            instance["error"] = _error(instance)
    if json:
        answer({"connectors": catalogue, "instances": instances})
        return
    for line in listed(catalogue, instances):
        say(line)


@connectors.command("describe")
def describe(
    name: Annotated[str, typer.Argument(help="连接器或连接的名称 · a connector, or what uses it")],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """一个连接器的全部说明：设置、事件、命令、保证 · all about one: settings, events, commands, guarantee."""
    told = next(_asked("describe", home, [name]))["connector"]
    if json:
        answer(told)
        return
    for line in described(told):
        say(line)


@connectors.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="只检查这些 · only these")] = None,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """问每个系统：我们是谁 · ask each system who we are; nothing is changed there. Exit 4 when one refuses."""
    found = []
    for line in _asked("check", home, names or ()):
        told = dict(line["instance"])
        error = _error(told) if not told["ok"] else None
        found.append({**told, "error": error} if error else told)
        if not json:
            (warn if error else say)(*_checked(told, line["instance"]))
    ok = all(each["ok"] for each in found)
    if json:
        answer({"ok": ok, "instances": found})
    if not ok:
        raise typer.Exit(Exit.CONNECTOR)


def _checked(told: Mapping[str, Any], line: Mapping[str, Any]) -> list[str]:
    from hub.cli.other_programs import error_of

    if not told["ok"]:
        first, *more = explain(error_of(line["error"]))
        return [f"  ✘ {told['name']} ({told['use']})  {first}", *more]
    said = told["said"] or text("没有可询问的", "nothing to ask")
    return [f"  ✔ {told['name']} ({told['use']})  {said}  {told['ms']} ms"]


def _asked(what: str, home: Path, names: Any) -> Iterator[dict[str, Any]]:
    """What the connectors' own program answers; raises its error."""
    from hub.cli.other_programs import ask, error_of

    for told in ask("hub.ops.connector_checks", [what, *names, "--home", str(home)]):
        if "error" in told:
            raise error_of(told["error"])
        yield told


def _error(told: Mapping[str, Any]) -> dict[str, Any]:
    from hub.cli.other_programs import error_of

    error = error_of(told["error"])
    return {**as_json(error), "exit": int(exit_code(error))}


def _states(home: Path) -> dict[str, str]:
    """What the ledger knows of each instance."""
    from hub.cli.running_hub import RunningHub
    from hub.health.ledger_look import instance_state

    hub = RunningHub.of(home)
    with hub.look() as conn:
        if conn is None:
            return {}
        return {name: instance_state(conn, name) for name in hub.home.config.connectors}


FACES = {"receives": ("接收推送", "receives"), "polls": ("定时读取", "polls"), "sends": ("执行命令", "sends")}
STATES = {"ok": ("正常", "ok"), "paused": ("已暂停", "paused"), "silent": ("长时间无消息", "silent for too long")}


def listed(catalogue: list[dict[str, Any]], instances: list[dict[str, Any]]) -> Iterator[str]:
    """The list for people."""
    quality = {each["name"]: each["quality"] for each in catalogue}
    yield text("这里接入的：", "connected here:")
    for instance in instances:
        faces = ", ".join(text(*FACES[face]) for face in instance["faces"])
        state = instance["error"]["code"] if "error" in instance else text(*STATES.get(instance["state"], STATES["ok"]))
        mark = "✔" if "error" not in instance and instance["state"] == "ok" else "✘"
        yield f"  {mark} {instance['name']:<12} {instance['use']:<10} {quality.get(instance['use'], '?'):<7} {faces}  {state}"
    yield text("可用的连接器：", "connectors there are:")
    for each in catalogue:
        yield f"    {each['name']:<12} {each['quality']:<7} {_of(each['title'])}: {_of(each['summary'])}"


def described(told: Mapping[str, Any]) -> Iterator[str]:
    """One connector for people."""
    yield f"{told['name']}  {_of(told['title'])}  ({told['kind']}, {told['quality']})"
    yield f"  {_of(told['summary'])}"
    yield f"  {text('保证', 'guarantee')}: {_of(told['guarantee'])}"
    yield f"  {text('得知变化的方式', 'learns of changes by')}: {told['learns']}"
    yield f"  {text('事件', 'events')}: {', '.join(told['emits']) or '—'}"
    taken = ", ".join(f"{each['type']} ({each['once']})" for each in told["takes"])
    yield f"  {text('命令（幂等类）', 'commands (idempotency class)')}: {taken or '—'}"
    for setting in told["settings"]:
        marks = [text("必填", "required")] * setting["required"] + [text("保密", "secret")] * setting["secret"]
        yield f"    {setting['name']}{' (' + ', '.join(marks) + ')' if marks else ''}: {_of(setting['about'])}"
    for item in told["items"]:
        reason = f": {_of(item['reason'])}" if item["reason"] else ""
        yield f"  {ITEMS[item['state']]} {_of(item['about'])}{reason}"
    yield f"  {told['readme']}"


ITEMS = {"done": "✔", "todo": "…", "exempt": "—"}


def _of(told: Mapping[str, str]) -> str:
    """A manifest's text in this run's language."""
    return told["en" if speech.language == "en" else "zh"]
