"""`hub rebuild`: folds a board from the log again, to compare it or to replace it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.terminal import (
    HERE,
    Exit,
    HomeOption,
    JsonOption,
    answer,
    as_json,
    explain,
    progress_bars,
    say,
    text,
    warn,
)
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub

MAX_ROWS_SHOWN = 20
"""How many differing rows are listed."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rebuild", help="从日志重建看板，或只比较 · fold a board from the log again, or only compare")(rebuild)


def rebuild(
    boards: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="看板 · boards")] = None,
    every: Annotated[bool, typer.Option("--all", help="全部 · all of them")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="只比较，不替换 · compare only")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Fold the log into a shadow table, compare it with the live board, then replace the board, unless --verify.

    Exit 1 when --verify finds a difference, or when a board could not be built.
    """
    from hub.cli.running_hub import RunningHub

    if bool(boards) == every:
        raise typer.BadParameter(text("给出看板名，或 --all", "name boards, or give --all"))
    results = list(
        _results(RunningHub.of(home), [*(boards or ["--all"]), *(["--verify"] if verify else [])], quiet=json)
    )
    compared = [each for each in results if isinstance(each, dict)]
    failed = [each for each in results if isinstance(each, HubError)]
    differ = [each for each in compared if verify and not each["equal"]]
    if json:
        answer({"ok": not failed and not differ, "boards": compared, "errors": [as_json(error) for error in failed]})
    else:
        for each in compared:
            for line in lines(each, verify):
                say(line)
        for error in failed:
            warn(*explain(error))
    if failed or differ:
        raise typer.Exit(Exit.FAILED)


def _results(hub: RunningHub, arguments: list[str], quiet: bool) -> Iterator[dict[str, Any] | HubError]:
    """Each board's comparison, or the error that prevented it."""
    from hub.cli.other_programs import ask_of, error_of

    with progress_bars(quiet) as bars:
        for message in ask_of(hub.home, hub.bootstrap, "hub.projector.rebuilding", *arguments):
            if "unknown" in message:
                raise typer.BadParameter(f"{', '.join(message['unknown'])}: {', '.join(message['known'])}")
            if "progress" in message:
                bars.show(**message["progress"])
            else:
                yield message["board"] if "board" in message else error_of(message["error"])


def lines(comparison: Mapping[str, Any], verify: bool) -> Iterator[str]:
    """One board's result for people."""
    if not verify:
        yield text(
            "  ✔ {board}：{records} 条事件，重建为 {rows} 行", "  ✔ {board}: {records} events, rebuilt as {rows} rows"
        ).format_map(comparison)
    elif comparison["equal"]:
        yield text("  ✔ {board}：与日志一致，{rows} 行", "  ✔ {board}: equals the log, {rows} rows").format_map(
            comparison
        )
    elif comparison["live"] is None:
        yield text("  ✘ {board}：还没有建立", "  ✘ {board}: not there yet").format_map(comparison)
    if comparison["live"] is not None and not comparison["equal"]:
        yield text(
            "  ✘ {board}：原有 {differing_count} 行与日志不一致",
            "  ✘ {board}: {differing_count} of its rows differ from the log",
        ).format_map(comparison)
        yield from (f"      {key}" for key in comparison["differing"][:MAX_ROWS_SHOWN])
