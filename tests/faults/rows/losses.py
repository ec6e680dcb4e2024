"""Log, ledger, boards, or two of them are lost or older, while the hub is stopped: F47. One command brings the hub back."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.rows.boards import _empty
from tests.faults.rows.restored import _unsent
from tests.faults.stage import LONGEST, Stage

LOG, LEDGER, BOARDS = "kafka", "ledger.sqlite", "boards.sqlite"
GONE: tuple[tuple[str, ...], ...] = ((LOG,), (LEDGER,), (BOARDS,), (LOG, BOARDS), (LEDGER, BOARDS))
OLDER: tuple[tuple[str, ...], ...] = ((LOG,), (LEDGER,))
MEND = ("same", "moved", "behind", "lost", "new")


def lost(stage: Stage, chosen: random.Random) -> None:
    """Pushes that were not in the log yet would be gone with the ledger, so none is on its way then."""
    stage.load.hold()
    until(lambda: _unsent(stage) == 0, LONGEST, "all is in the log")
    url = stage.environment_of("projector").get("HUB_BOARDS")
    stage.hub.stop()
    data, copies = stage.folder / "data", stage.folder / "copies"
    older = [what for what in OLDER if (copies / what[0]).exists() and _is_ours(stage, what)]
    if older and chosen.random() < 0.5:
        _put_back(chosen.choice(older)[0], copies, data)
    else:
        for what in chosen.choice([each for each in GONE if _is_ours(stage, each)]):
            _lose(what, data, url)
    _keep(copies, data)
    told = stage.hub.json("repair")
    assert told["ok"], told
    assert told["stores"]["log"] in MEND
    stage.hub.start()
    stage.load.go_on()
    stage.faults += 1


def _is_ours(stage: Stage, what: tuple[str, ...]) -> bool:
    """Whether it lies in files of the hub's: a database server has losses of its own (F30)."""
    return stage.postgres is None or LEDGER not in what


def _lose(what: str, data: Path, boards: str | None) -> None:
    if what == BOARDS and boards:
        _empty(boards)
        return
    for file in data.glob(f"{what}*"):
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink()


def _keep(copies: Path, data: Path) -> None:
    """Copies of what is there now, for a loss to come; of each the first."""
    copies.mkdir(exist_ok=True)
    if (data / LOG).is_dir() and not (copies / LOG).exists():
        shutil.copytree(data / LOG, copies / LOG)
    if (data / LEDGER).is_file() and not (copies / LEDGER).exists():
        shutil.copy(data / LEDGER, copies / LEDGER)


def _put_back(what: str, copies: Path, data: Path) -> None:
    _lose(what, data, None)
    if (copies / what).is_dir():
        shutil.copytree(copies / what, data / what)
    else:
        shutil.copy(copies / what, data / what)


ROWS = [Row("F47", "log, ledger or boards are lost or older, and brought back", 2, 8, lost)]
