"""`python -m tests.nightly [WORD …] [--full]`: every part of the night that has one of these words in its name, one after another.

What has been played is kept in a file, so that a night that was stopped goes on there; once all was played the next one begins
anew. Ends with one table; 0 when every part held.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.nightly.parts import Counts, Part, parts

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".nightly"
"""What was played, and what each part has said."""
STOPPED = 130
"""The exit code of a night that was stopped."""
COLUMNS = ("part", "count", "verdict", "time")


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Play what is left, and tell all."""
    parser = argparse.ArgumentParser(prog="python -m tests.nightly", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only parts with one of these in their name")
    parser.add_argument("--full", action="store_true", help="ten times the counts of an ordinary night")
    parser.add_argument("--list", action="store_true", help="name the parts")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    counts: Counts = "full" if asked.full else "tenth"
    wanted = [part for part in parts(counts) if not asked.words or any(word in part.name for word in asked.words)]
    if asked.list:
        print("\n".join(f"{part.count:>8}  {part.name}" for part in wanted))
        return 0
    return night(wanted, folder)


def night(wanted: Sequence[Part], folder: Path = FOLDER) -> int:
    """Play those that are not played yet; whether all held, as an exit code."""
    folder.mkdir(exist_ok=True)
    file, marks = folder / "played.jsonl", {part.mark for part in wanted}
    before = _played(file)
    mine, others = ([each for each in before if (_mark(each) in marks) is ours] for ours in (True, False))
    try:
        for part in wanted:
            if part.mark not in map(_mark, mine):
                mine.append(play(part, folder))
                _keep(file, [*others, *mine])
    except KeyboardInterrupt:
        print(table(mine))
        return STOPPED
    print(table(mine))
    _keep(folder / "last.jsonl", mine)
    _keep(file, others)  # the next night begins anew
    return 0 if all(each["held"] for each in mine) else 1


def _keep(file: Path, outcomes: Sequence[dict[str, Any]]) -> None:
    """Write what was played, whole or not at all."""
    draft = file.with_suffix(".draft")
    draft.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in outcomes))
    draft.replace(file)


def play(part: Part, folder: Path) -> dict[str, Any]:
    """One part, all that it says in a file of its own."""
    said = folder / (part.name.partition(":")[0].replace(" ", "-").replace("/", "-") + ".log")
    print(f"{part.name} × {part.count} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    with said.open("wb") as out, _running(part, out) as process:
        code = process.wait()
    seconds = round(time.monotonic() - began, 1)
    print(f"{part.name}: {'held' if code == 0 else f'DID NOT HOLD, see {said}'}", file=sys.stderr, flush=True)
    return {"part": part.name, "count": part.count, "held": code == 0, "seconds": seconds, "said": said.name}


@contextlib.contextmanager
def _running(part: Part, out: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Its process, which is told to stop when the night is; Ctrl-C of a terminal reaches it by itself."""
    process = subprocess.Popen(
        part.command, cwd=ROOT, env={**os.environ, **part.environment}, stdout=out, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _mark(outcome: dict[str, Any]) -> tuple[str, str]:
    return outcome["part"], outcome["count"]


def _played(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines() if line] if file.exists() else []


def table(outcomes: Sequence[dict[str, Any]]) -> str:
    """A line for each part, and one for all."""
    rows = [COLUMNS]
    for each in outcomes:
        verdict = "held" if each["held"] else f"NO: {each['said']}"
        rows.append((each["part"], each["count"], verdict, _time(each["seconds"])))
    failed = sum(not each["held"] for each in outcomes)
    rows.append(("all", str(len(outcomes)), f"{failed} did not hold", _time(sum(each["seconds"] for each in outcomes))))
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


if __name__ == "__main__":
    sys.exit(main())
