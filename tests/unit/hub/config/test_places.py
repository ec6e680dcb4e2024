"""YAML with places: what is read, and how each mistake is pointed at."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hub.config.yaml_places import Filled, mask, parse_yaml, read_yaml
from hub.errors import FatalError, Place

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


def problem(text: str) -> tuple[str, int, int]:
    error = parse_yaml(text, "x.yaml", {}).errors[0]
    assert error.place
    return error.code, error.place.line, error.place.column


@given(VALUES)
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    text = yaml.safe_dump({"value": value}, allow_unicode=True)
    assert parse_yaml(text, "x.yaml", {}).value == {"value": value}


def test_only_json_types_come_out_and_no_surprises() -> None:
    text = "[yes, no, 007, 1:30, 2026-11-20, 2026-11-20T02:00:00Z, 0x1f, 12.50, -3, +86138, ~, true, '']"
    assert parse_yaml(text, "x.yaml", {}).value == [
        "yes", "no", "007", "1:30", "2026-11-20", "2026-11-20T02:00:00Z", "0x1f", 12.5, -3, "+86138", None, True, "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: 1\n\tb: 2", "HUB-E3004", 2, 1),
        ("a: 1\n  b: 2", "HUB-E3002", 2, 4),
        ("a: {b: 1\nc: 2", "HUB-E3002", 2, 2),
        ("a: [1\n", "HUB-E3002", 2, 1),
        ("a: 1\nb: 2\na: 3", "HUB-E3003", 3, 1),
        ("a: !!python/object:os.system x", "HUB-E3002", 1, 4),
        ("a: &x [*x]", "HUB-E3002", 1, 4),
        ("a: &x {<<: *x}", "HUB-E3002", 1, 4),
        ("a: {<<: 3}", "HUB-E3002", 1, 9),
        ("? [a]\n: b", "HUB-E3002", 1, 3),
        ("a: \"x${env:NOPE}\"", "HUB-E3006", 1, 6),
        ("a: ${env:}", "HUB-E3009", 1, 4),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place(text: str, code: str, line: int, column: int) -> None:
    assert problem(text) == (code, line, column)


@pytest.mark.parametrize(
    "number",
    [0, 7, -3, 1285704473650888702, 2**63 - 1, -(2**63), 0.1, 12.5, -99999.99, 123456789012345.6],
)
def test_a_number_is_the_one_that_is_written(number: float) -> None:
    assert parse_yaml(f"a: {number}", "x.yaml", {}).value == {"a": number}


@pytest.mark.parametrize(
    "text",
    [
        str(2**63), str(-(2**63) - 1), "18446744073709551617", "9" * 5000, "12E5", "1e3", "-2e-7", "1e400", "1.5E+3",
        "12345678901234567.89", "0.12345678901234567890",
    ],
)  # fmt: skip
def test_a_number_that_would_be_another_one_is_a_mistake(text: str) -> None:
    assert problem(f"a: [{text}]") == ("HUB-E3012", 1, 5)
    assert parse_yaml(f"a: '{text}'", "x.yaml", {}).value == {"a": text}


@given(st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,3})?", fullmatch=True))
def test_no_number_is_read_as_another_one(text: str) -> None:
    located = parse_yaml(f"a: {text}", "x.yaml", {})
    assert located.errors or Decimal(str(located.value["a"])) == Decimal(text)


def test_aliases_without_measure_are_refused() -> None:
    rows = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    rows += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert problem("\n".join(rows))[0] == "HUB-E3002"
    assert problem("[" * 5000) == ("HUB-E3002", 0, 0)


def test_aliases_and_merges_work_and_point_at_where_they_were_written() -> None:
    located = parse_yaml("base: &b {p: 1, q: 2}\nmore: {<<: *b, q: 3}\nsame: *b\ntwo: {<<: [{p: 7}, *b]}", "x.yaml", {})
    assert located.value == {
        "base": {"p": 1, "q": 2}, "more": {"q": 3, "p": 1}, "same": {"p": 1, "q": 2}, "two": {"p": 7, "q": 2},
    }  # fmt: skip
    assert located.place(("more", "p")) == Place("x.yaml", 1, 14)
    assert located.place(("more", "q")) == Place("x.yaml", 2, 19)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: hello", 1, 4),
        ('a: "hello"', 1, 5),
        ("a: 'hello'", 1, 5),
        ("a: |\n  hello\n", 2, 3),
        ("a: >-\n    hello\n", 2, 5),
        ("a: [x, hello]", 1, 4),
    ],
)
def test_the_place_of_a_text_is_its_first_character(text: str, line: int, column: int) -> None:
    assert parse_yaml(text, "x.yaml", {}).place(("a",)) == Place("x.yaml", line, column)


def test_what_is_not_there_has_the_place_where_it_would_stand() -> None:
    located = parse_yaml("a:\n  b: 1\n", "x.yaml", {})
    assert located.place(("a", "c", 3)) == Place("x.yaml", 2, 3)
    assert located.key_place(("a", "b")) == Place("x.yaml", 2, 3)


def test_the_environment_is_filled_in_and_secrets_are_known() -> None:
    environ = {"URL": "http://pm", "PM_TOKEN": "t0p", "X": "s3cret"}
    located = parse_yaml(
        "url: ${env:URL}/x/${body.y}\nauth: Bearer ${env:PM_TOKEN}\nsecret: ${env:X}", "x.yaml", environ
    )
    assert located.value == {"url": "http://pm/x/${body.y}", "auth": "Bearer t0p", "secret": "s3cret"}
    assert {"t0p", "s3cret"} <= located.secrets
    assert mask("Bearer t0p to http://pm", located.secrets) == "Bearer *** to http://pm"
    url = located.value["url"]
    assert isinstance(url, Filled)
    assert [url.is_filled(at) for at in (0, 8, 9)] == [True, True, False]
    assert url.original(url.index("${body")) == len("${env:URL}/x/")


def test_every_missing_variable_is_told_at_once() -> None:
    located = parse_yaml("a: ${env:A}\nb: ${env:B}", "x.yaml", {})
    assert [(error.code, error.seen["name"]) for error in located.errors] == [("HUB-E3006", "A"), ("HUB-E3006", "B")]
    with pytest.raises(FatalError, match="HUB-E3006"):
        located.sound()


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    codes = [read_yaml(tmp_path / name, name, {}).errors[0].code for name in ("bad.yaml", "none.yaml")]
    assert codes == ["HUB-E3008", "HUB-E3008"]
    (tmp_path / "mark.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_yaml(tmp_path / "mark.yaml", "mark.yaml", {}).value == {"a": 1, "b": 2}
