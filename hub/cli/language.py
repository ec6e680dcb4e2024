"""The language of the command line: accepts `--lang` before or after the command, and shows help in that language only."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from hub.cli.terminal import choose_language, speech

LANGUAGE_SEPARATOR = " · "
"""Separates a help text's Chinese from its English."""


class LangAnywhereGroup(TyperGroup):
    """A command group that accepts `--lang` at any position."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments with `--lang` brought to the front."""
        return super().parse_args(ctx, lang_first(args))


def lang_first(args: list[str]) -> list[str]:
    """The arguments with `--lang` and its value moved to the front; arguments after `--` keep their place."""
    end = args.index("--") if "--" in args else len(args)
    language, others = list[str](), list[str]()
    at = 0
    while at < end:
        taken = 2 if args[at] == "--lang" and at + 1 < end else 1
        (language if args[at].partition("=")[0] == "--lang" else others).extend(args[at : at + taken])
        at += taken
    return [*language, *others, *args[end:]]


def in_language(command: Any) -> Any:
    """The command tree with its help texts in the language of this call only."""
    first = lang_first(sys.argv[1:])
    if first and first[0].startswith("--lang"):
        wanted = first[0].partition("=")[2] or next(iter(first[1:]), "")
        try:
            choose_language(wanted)
        except typer.BadParameter:  # reported when typer reads the option
            return command
    _keep_one_language(command)
    return command


def _keep_one_language(command: Any) -> None:
    for name in ("help", "short_help"):
        setattr(command, name, _one(getattr(command, name, None)))
    for parameter in command.params:
        for name in ("help", "show_default"):
            if isinstance(getattr(parameter, name, None), str):
                setattr(parameter, name, _one(getattr(parameter, name)))
    for below in getattr(command, "commands", {}).values():
        _keep_one_language(below)


def _one(text: str | None) -> str | None:
    """The half of a text that is in this language; a text in one language is returned whole."""
    if not text or LANGUAGE_SEPARATOR not in text:
        return text
    zh, _, en = text.partition(LANGUAGE_SEPARATOR)
    return zh if speech.language == "zh-CN" else en
