"""Runs the connectors of one home: `python -m connectors --home DIR [--boards-socket PATH]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import structlog

from hub import logs
from hub.begin import begin, keep_private
from hub.errors import HubError
from hub.file_limit import raise_file_limit
from hub.home import Home
from hub.hung_threads import PATIENCE


def main() -> int:
    """Run until told to stop; 0 then, 1 after saying in one line why it cannot go on."""
    begin()
    asked = _arguments()
    raise_file_limit()
    logs.configure("connectors")
    try:
        home = Home.load(asked.home)
        logs.configure("connectors", home.secrets)
        keep_private(home.data)
        boards = asked.boards_socket or home.data / "run" / "boards.sock"
        from connectors.program import Program  # what it needs takes a second to import

        asyncio.run(Program(home, boards, asked.listen_fd, asked.patience).run())
    except HubError as error:
        where = f" {error.place}" if error.place else ""
        sys.stderr.write(f"{error.code}{where} {error.message()} → {error.fix()}\n")
        return 1
    except Exception:
        structlog.get_logger(__name__).exception("ended")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m connectors")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--boards-socket", type=Path, help="where the boards' server listens")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds for one piece of a thread's work, after which it hangs",
    )
    parser.add_argument("--listen-fd", type=int, help="the open socket to take pushes from, instead of one of its own")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
