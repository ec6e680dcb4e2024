"""In which language the command line speaks: `--lang` before or after the command, and help in that language alone."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from hub.cli.terminal import choose_language, speech

BETWEEN = " · "
"""Stands between a help text's Chinese and its English."""


class AnyPlace(TyperGroup):
    """Takes `--lang` wherever it stands: people write it where they think of it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments with `--lang` brought to the front."""
        return super().parse_args(ctx, lang_first(args))


def lang_first(args: list[str]) -> list[str]:
    """The arguments with `--lang` and its value in front; what stands behind `--` stays as it is."""
    end = args.index("--") if "--" in args else len(args)
    found, others = list[str](), list[str]()
    at = 0
    while at < end:
        taken = 2 if args[at] == "--lang" and at + 1 < end else 1
        (found if args[at].partition("=")[0] == "--lang" else others).extend(args[at : at + taken])
        at += taken
    return [*found, *others, *args[end:]]


def in_language(command: Any) -> Any:
    """The command tree with its help in the language of this call only."""
    first = lang_first(sys.argv[1:])
    if first and first[0].startswith("--lang"):
        wanted = first[0].partition("=")[2] or next(iter(first[1:]), "")
        try:
            choose_language(wanted)
        except typer.BadParameter:  # it is told when the option is read
            return command
    _say_once(command)
    return command


def _say_once(command: Any) -> None:
    for name in ("help", "short_help"):
        setattr(command, name, _one(getattr(command, name, None)))
    for parameter in command.params:
        for name in ("help", "show_default"):
            if isinstance(getattr(parameter, name, None), str):
                setattr(parameter, name, _one(getattr(parameter, name)))
    for below in getattr(command, "commands", {}).values():
        _say_once(below)


def _one(text: str | None) -> str | None:
    """The half of a text that is in this language; a text in one language only stays whole."""
    if not text or BETWEEN not in text:
        return text
    zh, _, en = text.partition(BETWEEN)
    return zh if speech.language == "zh-CN" else en
