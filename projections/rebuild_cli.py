"""`python -m projections.rebuild_cli [BOARD…] --home DIR [--verify] [--json]`: build boards again from the log, or compare them."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from hub.errors import HubError, RejectedError, preferred_language
from hub.home import Home
from hub.kafka_log import KafkaLog
from hub.logs import configure
from projections.rebuild import Comparison, rebuild
from projections.registry import PROJECTIONS
from projections.store import BoardStore


def main(arguments: list[str] | None = None) -> int:
    """Rebuild or verify the boards of one home; 0 when every board equals its history, or does so now."""
    parser = argparse.ArgumentParser(prog="python -m projections.rebuild_cli", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="BOARD", help="all, if none is named")
    parser.add_argument("--home", type=Path, default=Path())
    parser.add_argument("--verify", action="store_true", help="only compare")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        home = Home.load(asked.home)
        configure("projections", home.secrets, logging.WARNING)
        return _each(home, asked.names, asked.verify, asked.json)
    except HubError as error:
        sys.stderr.write(f"{error.code} {error.message()}\n  → {error.fix()}\n")
        return 1


def _each(home: Home, names: Sequence[str], verify: bool, as_json: bool) -> int:
    unknown = [name for name in names if name not in PROJECTIONS]
    if unknown:
        raise RejectedError("HUB-E5105", board=unknown[0], known=", ".join(PROJECTIONS))
    store, log = BoardStore(home.boards_url), KafkaLog(home.kafka_client())
    store.prepare(projection.table for projection in PROJECTIONS.values())
    try:
        found = [
            rebuild(log, store, PROJECTIONS[name], verify=verify, progress=None if as_json else _Bar(name))
            for name in names or PROJECTIONS
        ]
    finally:
        store.close()
    say = _say_json if as_json else _say
    say(found, verify)
    return 0 if not verify or all(comparison.equal for comparison in found) else 1


def _say_json(found: Sequence[Comparison], verify: bool) -> None:
    boards = [{**asdict(comparison), "equal": comparison.equal} for comparison in found]
    sys.stdout.write(orjson.dumps({"verified": verify, "boards": boards}).decode() + "\n")


def _say(found: Sequence[Comparison], verify: bool) -> None:
    for comparison in found:
        line = LINES[_line(comparison, verify)][preferred_language()]
        facts = asdict(comparison) | {"count": len(comparison.differing), "keys": ", ".join(comparison.differing[:20])}
        sys.stdout.write(line.format_map(facts) + "\n")


def _line(comparison: Comparison, verify: bool) -> str:
    if comparison.equal:
        return "equal"
    if comparison.live is None:
        return "none" if verify else "built"
    return "differs" if verify else "repaired"


LINES: Mapping[str, Mapping[str, str]] = {
    "equal": {
        "zh-CN": "✔ {board}：{rows} 行与日志一致（{records} 条记录，{built:.12}）",
        "en": "✔ {board}: {rows} rows equal the log ({records} records, {built:.12})",
    },
    "built": {
        "zh-CN": "✔ {board}：已建立 {rows} 行（{records} 条记录）",
        "en": "✔ {board}: built, {rows} rows ({records} records)",
    },
    "repaired": {
        "zh-CN": "✔ {board}：已重建 {rows} 行，修正了 {count} 行：{keys}",
        "en": "✔ {board}: rebuilt, {rows} rows, {count} of them mended: {keys}",
    },
    "none": {
        "zh-CN": "✘ {board}：还没有可比较的看板；先运行 hub up",
        "en": "✘ {board}: there is no board to compare yet; run hub up first",
    },
    "differs": {
        "zh-CN": "✘ {board}：{count} 行与日志不一致：{keys}。运行 hub rebuild {board} 修正",
        "en": "✘ {board}: {count} rows differ from the log: {keys}. hub rebuild {board} mends them",
    },
}


class _Bar:
    """Progress on one line of a terminal; nothing where there is none."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            share = done * 30 // max(1, total)
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r{self.name} [{'█' * share}{'·' * (30 - share)}] {done}/{total}{end}")
            sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
