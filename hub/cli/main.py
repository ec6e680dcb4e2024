"""The command `hub`: all its command groups, and its entry point."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hub import __version__
from hub.cli import (
    audit,
    backup,
    config,
    connectors,
    demo,
    doctor,
    events,
    init,
    parked,
    rebuild,
    repair,
    rules,
    status,
    up,
    validate,
    why,
)
from hub.cli import (
    run as run_program,
)
from hub.cli.language import LangAnywhereGroup, in_language
from hub.cli.terminal import (
    Exit,
    OutputError,
    choose_language,
    discard_output,
    fail,
    internal_error,
    replace_unencodable,
    say,
    speech,
    text,
    warn,
)
from hub.errors import FatalError, HubError
from hub.runtime.program import begin

app = typer.Typer(
    name="hub",
    cls=LangAnywhereGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="接力 Baton：赢单之后，活就传下去 · Baton: a deal is won, the work is passed on",
)
for group in (
    init,
    demo,
    up,
    run_program,
    status,
    doctor,
    validate,
    connectors,
    events,
    why,
    rules,
    parked,
    rebuild,
    repair,
    backup,
    audit,
    config,
):
    group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"hub {__version__}")
        raise typer.Exit


@app.callback()
def options(
    lang: Annotated[str | None, typer.Option("--lang", help="zh-CN | en")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="连同调用栈 · with tracebacks")] = False,
    version: Annotated[  # noqa: ARG001  # its callback does it all
        bool, typer.Option("--version", callback=_version, is_eager=True, help="版本 · version")
    ] = False,
) -> None:
    """The options before the command."""
    choose_language(lang)
    speech.verbose, speech.home = verbose, None


def run() -> None:
    """The entry point: turns a command's error into a message and an exit code, never a bare traceback."""
    begin()
    replace_unencodable()
    try:
        in_language(typer.main.get_command(app))(prog_name="hub")
    except HubError as error:
        sys.exit(fail(error, json="--json" in sys.argv))
    except KeyboardInterrupt:
        warn(text("已中断", "interrupted"))
        sys.exit(130)
    except BrokenPipeError:
        discard_output()
        sys.exit(Exit.OK)
    except OutputError as error:
        discard_output()
        fail(FatalError("HUB-E1023", reason=error.strerror))
        sys.exit(Exit.FAILED)
    except Exception as error:
        sys.exit(fail(internal_error(error), json="--json" in sys.argv))


if __name__ == "__main__":
    run()
