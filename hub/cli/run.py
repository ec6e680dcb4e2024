"""`hub run`: one program of a hub in the foreground, for a supervisor of your own: systemd, Compose, Kubernetes."""

from __future__ import annotations

import enum
import os
import sys
from typing import Annotated

import typer

from hub.cli.terminal import HERE, HomeOption


class ProgramName(enum.StrEnum):
    """The programs that run in as many copies as wished."""

    CONNECTORS = "connectors"
    PROCESSOR = "processor"
    PROJECTOR = "projector"


def register(app: typer.Typer) -> None:
    """Add the command. Further options are the program's own: `hub run processor --copy 2`."""
    app.command(
        "run",
        help="前台运行一个程序 · run one program in the foreground",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(run)


def run(
    context: typer.Context,
    program: Annotated[
        ProgramName, typer.Argument(metavar="connectors|processor|projector", help="哪个程序 · which program")
    ],
    home: HomeOption = HERE,
) -> None:
    """Become the program: same process, same standard error, where it writes its log as JSON lines."""
    module = f"hub.programs.{program.value}"
    os.execv(sys.executable, [sys.executable, "-m", module, "--home", str(home), *context.args])  # noqa: S606
