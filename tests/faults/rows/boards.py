"""The boards' store is gone or damaged: F38. It is set aside and built anew from the log, and never shows anything wrong."""

from __future__ import annotations

import random
from pathlib import Path

from sqlalchemy import create_engine

from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage


def damaged(stage: Stage, chosen: random.Random) -> None:
    """Its files are deleted, cut or overwritten, its database is emptied, while no program writes there."""
    url = stage.environment_of("projector").get("HUB_BOARDS")
    with stage.without("projector"):
        if url:
            _empty(url)
        else:
            _spoil(stage.folder / "data" / "boards.sqlite", chosen)
    stage.faults += 1
    until(lambda: _folded(stage), LONGEST, "the boards are built anew")


def _empty(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.exec_driver_sql("DROP SCHEMA public CASCADE")
        conn.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()


def _spoil(file: Path, chosen: random.Random) -> None:
    raw = file.read_bytes()
    match chosen.choice(("gone", "empty", "cut", "overwritten")):
        case "gone":
            file.unlink()
        case "empty":
            file.write_bytes(b"")
        case "cut":
            file.write_bytes(raw[: len(raw) // 2])
        case _:
            file.write_bytes(chosen.randbytes(4096) + raw[4096:])


def _folded(stage: Stage) -> bool:
    """Whether every board is as far as the log was a moment ago."""
    boards = stage.hub.json("status")["boards"]
    return bool(boards) and all(board["behind"] is not None and board["behind"] < 100 for board in boards.values())


ROWS = [Row("F38", "the boards' store is gone or damaged", 2, 10, damaged)]
