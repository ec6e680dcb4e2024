"""`hub connectors`: lists the connectors and the configured instances, and checks that each system accepts our account."""

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
    answers = list(_answers("list", home, ()))
    catalogue = [line["connector"] for line in answers if "connector" in line]
    states = _states(home)
    instances = [
        {**line["instance"], "state": states.get(line["instance"]["name"], "ok")}
        for line in answers
        if "instance" in line
    ]
    for instance in instances:
        if "error" in instance:
            instance["error"] = _error(instance)
    if json:
        answer({"connectors": catalogue, "instances": instances})
        return
    for line in list_lines(catalogue, instances):
        say(line)


@connectors.command("describe")
def describe(
    name: Annotated[str, typer.Argument(help="连接器或连接的名称 · a connector, or what uses it")],
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """一个连接器的全部说明：设置、事件、命令、保证 · all about one: settings, events, commands, guarantee."""
    manifest = next(_answers("describe", home, [name]))["connector"]
    if json:
        answer(manifest)
        return
    for line in description_lines(manifest):
        say(line)


@connectors.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="只检查这些 · only these")] = None,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """问每个系统：我们是谁 · ask each system who we are; nothing is changed there. Exit 4 when one refuses."""
    results = []
    for line in _answers("check", home, names or ()):
        result = dict(line["instance"])
        error = _error(result) if not result["ok"] else None
        results.append({**result, "error": error} if error else result)
        if not json:
            (warn if error else say)(*_result_lines(result))
    ok = all(each["ok"] for each in results)
    if json:
        answer({"ok": ok, "instances": results})
    if not ok:
        raise typer.Exit(Exit.CONNECTOR)


def _result_lines(result: Mapping[str, Any]) -> list[str]:
    """The result of one check, for people; `result` is as the checking program wrote it."""
    from hub.cli.other_programs import error_of

    if not result["ok"]:
        first, *more = explain(error_of(result["error"]))
        return [f"  ✘ {result['name']} ({result['use']})  {first}", *more]
    account = result["said"] or text("没有可询问的", "nothing to ask")
    return [f"  ✔ {result['name']} ({result['use']})  {account}  {result['ms']} ms"]


def _answers(what: str, home: Path, names: Any) -> Iterator[dict[str, Any]]:
    """The JSON lines that the connectors' own program writes; raises the error that it reports."""
    from hub.cli.other_programs import ask, error_of

    for line in ask("hub.ops.connector_checks", [what, *names, "--home", str(home)]):
        if "error" in line:
            raise error_of(line["error"])
        yield line


def _error(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result's error as `--json` shows it."""
    from hub.cli.other_programs import error_of

    error = error_of(result["error"])
    return {**as_json(error), "exit": int(exit_code(error))}


def _states(home: Path) -> dict[str, str]:
    """Instance → its state in the ledger; empty before the first start."""
    from hub.cli.running_hub import RunningHub
    from hub.health.ledger_look import instance_state

    hub = RunningHub.of(home)
    with hub.look() as conn:
        if conn is None:
            return {}
        return {name: instance_state(conn, name) for name in hub.home.config.connectors}


CAPABILITIES = {"receives": ("接收推送", "receives"), "polls": ("定时读取", "polls"), "sends": ("执行命令", "sends")}
INSTANCE_STATES = {
    "ok": ("正常", "ok"),
    "paused": ("已暂停", "paused"),
    "silent": ("长时间无消息", "silent for too long"),
}


def list_lines(catalogue: list[dict[str, Any]], instances: list[dict[str, Any]]) -> Iterator[str]:
    """The list for people."""
    quality = {each["name"]: each["quality"] for each in catalogue}
    yield text("这里接入的：", "connected here:")
    for instance in instances:
        name, connector = instance["name"], instance["use"]
        capabilities = ", ".join(text(*CAPABILITIES[each]) for each in instance["faces"])
        state = (
            instance["error"]["code"]
            if "error" in instance
            else text(*INSTANCE_STATES.get(instance["state"], INSTANCE_STATES["ok"]))
        )
        mark = "✔" if "error" not in instance and instance["state"] == "ok" else "✘"
        yield f"  {mark} {name:<12} {connector:<10} {quality.get(connector, '?'):<7} {capabilities}  {state}"
    yield text("可用的连接器：", "connectors there are:")
    for each in catalogue:
        yield f"    {each['name']:<12} {each['quality']:<7} {_of(each['title'])}: {_of(each['summary'])}"


def description_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """One connector for people."""
    yield f"{manifest['name']}  {_of(manifest['title'])}  ({manifest['kind']}, {manifest['quality']})"
    yield f"  {_of(manifest['summary'])}"
    yield f"  {text('保证', 'guarantee')}: {_of(manifest['guarantee'])}"
    yield f"  {text('得知变化的方式', 'learns of changes by')}: {manifest['learns']}"
    yield f"  {text('事件', 'events')}: {', '.join(manifest['emits']) or '—'}"
    commands = ", ".join(f"{each['type']} ({each['once']})" for each in manifest["takes"])
    yield f"  {text('命令（幂等类）', 'commands (idempotency class)')}: {commands or '—'}"
    for setting in manifest["settings"]:
        marks = [text("必填", "required")] * setting["required"] + [text("保密", "secret")] * setting["secret"]
        yield f"    {setting['name']}{' (' + ', '.join(marks) + ')' if marks else ''}: {_of(setting['about'])}"
    for item in manifest["items"]:
        reason = f": {_of(item['reason'])}" if item["reason"] else ""
        yield f"  {ITEM_MARKS[item['state']]} {_of(item['about'])}{reason}"
    yield f"  {manifest['readme']}"


ITEM_MARKS = {"done": "✔", "todo": "…", "exempt": "—"}


def _of(texts: Mapping[str, str]) -> str:
    """A manifest's text in the language of this run."""
    return texts["en" if speech.language == "en" else "zh"]
