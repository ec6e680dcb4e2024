"""What the harness tells: rows by their names, one table, an exit code, and no row twice when it is resumed."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from tests.faults import __main__ as harness
from tests.faults.row import STORES, Outcome, Row, all_rows


def outcome(**facts: object) -> Outcome:
    made = Outcome("F4", "sqlite", 7, faults=8, events=500, seconds=61.2, peak_mb={"processor": 110.0})
    for name, value in facts.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("wrong", [{"lost": 1}, {"doubled": 1}, {"stuck": 1}, {"wrong": ["audit"]}])
def test_a_row_holds_only_when_nothing_is_wrong(wrong: dict[str, object]) -> None:
    assert outcome().held
    assert not outcome(**wrong).held
    assert harness.table([outcome(**wrong).as_json()]).endswith("NO")


def test_rows_have_the_names_of_the_matrix_and_somewhere_to_play() -> None:
    for name, row in all_rows().items():
        assert re.fullmatch(r"[FS][1-9][0-9]?[a-h]?", name)
        assert 0 < row.sample <= row.nightly
        assert set(row.stores) <= set(STORES)
    assert list(all_rows())[:3] == ["F1", "F2", "F3"]


def test_what_was_played_is_not_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, played = tmp_path / "kept.jsonl", list[tuple[str, int, int, str]]()

    def play(rows: Sequence[tuple[Row, int]], seed: int, store: str) -> list[Outcome]:
        played.extend((row.name, count, seed, store) for row, count in rows)
        return [Outcome(row.name, store, seed, faults=count, lost=int(store == "postgresql")) for row, count in rows]

    monkeypatch.setattr(harness, "play", play)
    for asked in (["F1", "--store", "sqlite"], ["F1", "F31"]):
        monkeypatch.setattr(sys, "argv", ["faults", *asked, "--count", "3", "--resume", str(kept)])
        code = harness.main()
    assert played == [("F1", 3, 7, "sqlite"), ("F31", 3, 7, "sqlite"), ("F1", 3, 7, "postgresql")]
    assert code == 1
    assert [orjson.loads(line)["held"] for line in kept.read_bytes().splitlines()] == [True, True, False]
    assert capsys.readouterr().out.count("\n") == 2 + 4


def test_a_sample_plays_on_one_hub_what_needs_no_surroundings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    played = list[tuple[set[str], str]]()

    def play(rows: Sequence[tuple[Row, int]], seed: int, store: str) -> list[Outcome]:
        played.append(({row.name for row, _ in rows}, store))
        return []

    monkeypatch.setattr(harness, "play", play)
    monkeypatch.setattr(sys, "argv", ["faults", "--store", "sqlite"])
    harness.main()
    (plain, _), *others = played
    assert {"F1", "F30", "S1"} <= plain
    assert [rows for rows, _ in others] == [{"F15", "F16"}, {"F18"}, {"F48", "F49"}]


def test_a_tenth_is_one_of_the_nightly_count_and_never_less_than_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    played = dict[tuple[str, str], int]()

    def play(rows: Sequence[tuple[Row, int]], seed: int, store: str) -> list[Outcome]:
        ((row, count),) = rows
        played[row.name, store] = count
        return []

    monkeypatch.setattr(harness, "play", play)
    monkeypatch.setattr(sys, "argv", ["faults", "--tenth"])
    harness.main()
    for name, row in all_rows().items():
        for store in row.stores:
            assert row.nightly <= 10 * played[name, store] < row.nightly + 10 or played[name, store] == row.sample


def test_a_row_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["faults", "F99"])
    with pytest.raises(SystemExit):
        harness.main()
    assert "no such row: F99; there are F1, F2" in capsys.readouterr().err
