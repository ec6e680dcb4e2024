"""What expressions answer, and how they fail."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.config.strict_json import read_json
from hub.config.yaml_places import Filled
from hub.errors import FatalError, HubError, Place, RejectedError, text_of
from hub.expressions.engine import Engine
from hub.expressions.expression import Scope
from hub.expressions.functions import Function

HERE = Place("rules/won.yaml", 7, 5)
DEAL = {
    "deal": {
        "name": "网关项目", "amount": "880000", "owner": None, "count": 3, "rate": 2.5, "open": True,
        "lines": [{"sku": "A", "price": "1.10"}, {"sku": "B", "price": "2.20"}],
    }
}  # fmt: skip


def scope(engine: Engine, body: Any = DEAL, context: Any = None) -> Scope:
    return engine.scope({"body": body}, context)


def render(text: Any, body: Any = DEAL) -> Any:
    engine = Engine()
    return engine.template(text, ["body"], lambda path: HERE).render(scope(engine, body))


def condition(text: str, body: Any = DEAL) -> bool:
    engine = Engine()
    return engine.condition(text, ["body"], HERE).test(scope(engine, body))


def fails(text: str) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        render(text)
    return caught.value


def is_refused(text: str) -> FatalError:
    with pytest.raises(FatalError) as caught:
        render(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${body.deal.name}", "网关项目"),
        ("交付 ${body.deal.name}", "交付 网关项目"),
        ("${body.deal.count}", 3),
        ("${body.deal.rate}", 2.5),
        ("${body.deal.open}", True),
        ("${body.deal.owner}", None),
        ("n${body.deal.count}", "n3"),
        ("${body.deal.lines.map(l, l.sku)}", ["A", "B"]),
        ("${{'b': 1, 'a': 2}}", {"a": 2, "b": 1}),
        ("a}b${'}'}c", "a}b}c"),
        ("${timestamp('2026-11-20T10:00:00+08:00')}", "2026-11-20T02:00:00.000000Z"),
        ({"to": ["${body.deal.name}", 7]}, {"to": ["网关项目", 7]}),
    ],
)
def test_a_text_that_is_one_expression_keeps_its_type_and_others_are_joined(text: Any, value: Any) -> None:
    rendered = render(text)
    assert rendered == value
    assert type(rendered) is type(value)


@pytest.mark.parametrize("name", ["owner", "rate", "open", "lines"])
def test_only_texts_and_whole_numbers_are_joined_into_a_text(name: str) -> None:
    error = fails("x ${body.deal." + name + "}")
    assert error.code == "HUB-E3125"
    assert error.place == Place("rules/won.yaml", 7, 9)


def test_a_missing_field_is_an_error_with_its_own_column_and_a_suggestion() -> None:
    error = fails("交付 ${body.deal.nmae}")
    assert (error.code, error.place) == ("HUB-E3120", Place("rules/won.yaml", 7, 20))
    assert error.seen["missing"] == "body.deal.nmae"
    assert error.seen["near"] == "name"
    assert "body.deal.nmae" in error.message("zh-CN")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("${body.offer.name}", "body.offer"),
        ("${body.deal.owner.name}", "body.deal.owner.name"),
        ("${body.deal.lines[2].sku}", "body.deal.lines[2]"),
        ("${body['deal']['x y']}", 'body.deal["x y"]'),
        ("${body.deal.lines.map(l, l.colour)}", "colour"),
        ("${decimal(body.deal.amonut)}", "body.deal.amonut"),
    ],
)
def test_what_is_missing_is_named(text: str, missing: str) -> None:
    assert fails(text).seen["missing"] == missing


def test_a_missing_field_in_a_later_line_of_a_text_has_that_line() -> None:
    assert fails("first\n  ${body.nope}").place == Place("rules/won.yaml", 8, 14)


def test_has_asks_without_failing() -> None:
    assert condition("has(body.nope)") is False
    assert condition("has(body.deal) && body.deal.count == 3") is True


@pytest.mark.parametrize(
    "text", ["body.deal.name + 1", "1 / (body.deal.count - 3)", "double(body.deal.name)", "body.deal.count < 'x'"]
)
def test_a_failure_at_run_time_never_comes_back_as_a_text(text: str) -> None:
    error = fails("${" + text + "}")
    assert error.code == "HUB-E3121"
    assert error.seen["expression"] == text


@pytest.mark.parametrize("text", ["body.deal.name", "body.deal.owner", "body.deal.count"])
def test_a_condition_that_is_no_truth_value_fails_at_run_time(text: str) -> None:
    with pytest.raises(RejectedError, match="HUB-E3122"):
        condition(text)


def test_a_condition_that_can_never_be_a_truth_value_is_refused_when_read() -> None:
    with pytest.raises(FatalError, match="HUB-E3112"):
        Engine().condition("size(body)", ["body"], HERE)


def test_amounts_compare_as_the_example_home_writes_it() -> None:
    assert condition("double(body.deal.amount) >= 100000.0")
    assert condition("body.deal.count >= 3")
    assert condition("body.deal.rate > 2"), "a field of any number compares with whole numbers"


def test_a_syntax_error_is_placed_where_cel_points() -> None:
    error = is_refused("${body.deal.count >= 5 &&}")
    assert (error.code, error.place) == ("HUB-E3110", Place("rules/won.yaml", 7, 30))
    assert error.seen["pointed"].splitlines()[1] == "." * 23 + "^"


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    error = is_refused("${bdoy.deal.count}")
    assert (error.code, error.place, error.seen["near"]) == ("HUB-E3114", Place("rules/won.yaml", 7, 7), "body")
    assert is_refused("${decimla(1)}").seen["near"] == "decimal"


def test_an_expression_that_is_never_closed_is_refused() -> None:
    error = is_refused("a ${body.deal.name")
    assert (error.code, error.place) == ("HUB-E3115", Place("rules/won.yaml", 7, 7))
    assert "${" in error.message("en")


def test_a_long_expression_is_refused() -> None:
    assert is_refused("${'" + "x" * 2048 + "'}").code == "HUB-E3111"


def test_what_came_from_the_environment_is_never_read_as_an_expression() -> None:
    text = Filled("http://${body.x}/${body.deal.count}")
    text.spans = ((7, 16, 12),)
    assert render(text) == "http://${body.x}/3"
    wrong = Filled("http://${body.x}/${body.deal.cuont}")
    wrong.spans = ((7, 16, 12),)
    assert fails(wrong).place == Place("rules/won.yaml", 7, 5 + 7 + 12 + 1 + 2 + 10)


def test_functions_are_told_the_context_of_their_scope() -> None:
    role = Function("role", (("string",),), "string", lambda case, name: f"person/{name}-{case}")
    engine = Engine([role])
    made = engine.template("${role('clerk')}", ["body"], lambda path: HERE)
    assert made.render(scope(engine, context="c1")) == "person/clerk-c1"
    assert made.render(scope(engine, context="c2")) == "person/clerk-c2"


def test_an_error_of_a_function_comes_through_with_the_place() -> None:
    def role(case: Any, name: str) -> str:
        raise RejectedError("HUB-E3126", value=name)

    engine = Engine([Function("role", (("string",),), "string", role)])
    made = engine.template("${role('clerk')}", ["body"], lambda path: HERE)
    with pytest.raises(RejectedError) as caught:
        made.render(scope(engine))
    assert (caught.value.code, caught.value.place) == ("HUB-E3126", Place("rules/won.yaml", 7, 7))


def test_one_scope_serves_many_expressions_and_keeps_their_failures_apart() -> None:
    engine = Engine()
    here = scope(engine)
    broken = engine.expression("body.nope", ["body"], HERE)
    sound = engine.expression("body.deal.count", ["body"], HERE)
    for _ in range(3):
        with pytest.raises(RejectedError):
            broken.value(here)
        assert sound.value(here) == 3


def test_what_a_condition_read_is_told_for_people() -> None:
    engine = Engine()
    read = engine.expression(
        "double(body.deal.amount) > 1.0 && !has(body.x) && size(body.deal.lines) > 0", ["body"], HERE
    )
    assert read.matched(scope(engine)) == {"body.deal.amount": "880000"}


def test_a_path_may_be_indexed_by_another() -> None:
    engine = Engine()
    case = {"opened_by": "o/1", "entities": {"o/1": {"data": {"amount": "7"}}}}
    found = engine.expression("case.entities[case.opened_by].data.amount", ["case"], HERE)
    assert found.value(engine.scope({"case": case})) == "7"
    lost = engine.expression("case.entities[case.opened_by].data.amuont", ["case"], HERE)
    with pytest.raises(RejectedError) as caught:
        lost.value(engine.scope({"case": case}))
    assert caught.value.seen["missing"] == 'case.entities["o/1"].data.amuont'
    assert caught.value.seen["near"] == "amount"


AMOUNTS = b"""{"a": 12345678901234567.89, "b": 12345678901234567.90, "c": 880000.10, "d": 1e3, "e": 12345678901234567890,
               "f": -0.50, "lines": [{"p": 1.10}, {"p": 2.2}], "twins": [12345678901234567.89, 12345678901234567.90]}"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${decimal(body.a)}", "12345678901234567.89"),
        ("${decimal(body.b)}", "12345678901234567.90"),
        ("${decimal(body.a)} ${decimal( body['b'] )}", "12345678901234567.89 12345678901234567.90"),
        ("${decimal(body.c)}", "880000.10"),
        ("${decimal(body.d)}", "1000"),
        ("${decimal(body.e)}", "12345678901234567890"),
        ("${decimal(body.f)}", "-0.50"),
        ("${decimal(body.lines[0].p)}", "1.10"),
        ("${body.lines.map(l, decimal(l.p))}", ["1.10", "2.2"]),
        ("${decimal(12345678.9)}", "12345678.9"),
        ("${decimal('880000.10')}", "880000.10"),
        ("${decimal(3)}", "3"),
        ("${string(12345678.9)}", "1.23456789e+07"),
        ("${'decimal(body.a)'}", "decimal(body.a)"),
    ],
)
def test_decimal_is_the_number_as_it_was_written(text: str, value: Any) -> None:
    assert render(text, read_json(AMOUNTS)) == value


def test_decimal_says_when_it_cannot_tell_two_numbers_apart() -> None:
    with pytest.raises(RejectedError, match="HUB-E3127"):
        render("${body.twins.map(t, decimal(t))}", read_json(AMOUNTS))


@pytest.mark.parametrize("text", ["", "x", "1e99", "1_000", "NaN", "１２", " 1", "1 "])
def test_decimal_refuses_what_is_no_number(text: str) -> None:
    with pytest.raises(RejectedError, match="HUB-E3126"):
        render("${decimal(body.x)}", {"x": text})


PIECES = [
    *("body", ".deal", ".name", ".lines", "[0]", "(", ")", "'a'", '"', "\\", "+", "-", "==", "<", "&&", "!", "?", ":", ","),
    *("{", "}", "1", "2.5", ".map(l, ", ".all(l, ", "has(", "decimal(", "size(", ".matches(", "l", "//", "\n", "华"),
    *("\0", "\ud800"),
]  # fmt: skip


def outcome(evaluate: Callable[[], Any]) -> str:
    """The value as JSON, or the error in words."""
    try:
        return json.dumps(evaluate(), allow_nan=False)
    except HubError as error:
        return f"{text_of(error.code)} {error.message('zh-CN')} {error.fix('en')}"


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=20))
def test_any_text_gives_a_value_or_an_error_that_can_be_said(text: str) -> None:
    engine = Engine()
    assert outcome(lambda: engine.expression(text, ["body"], HERE).value(scope(engine)))
    assert outcome(lambda: engine.template(f"x ${{{text}}} y", ["body"], lambda path: HERE).render(scope(engine)))


@pytest.mark.parametrize("value", ["won", "", "赢", "12", 12, 1.5, 12345678901234567.89, True, None, [], {"a": 1}])
@pytest.mark.parametrize(
    "text", ['body.x == "won"', "body.x=='赢'", "decimal(body.x)", 'body.x == "" ', "body.y == 'won'"]
)
def test_what_needs_no_evaluation_has_the_answer_of_one(text: str, value: Any) -> None:
    engine = Engine()
    short = engine.expression(text, ["body"], HERE)
    assert short._shortcut is not None
    answers = []
    for expression in (short, dataclasses.replace(short, _shortcut=None)):
        try:
            answers.append(expression.value(scope(engine, {"x": value})))
        except HubError as error:
            answers.append((error.code, error.seen, error.place))
    assert answers[0] == answers[1]


MORE = [
    *(
        "body.x == body.y",
        "body.x == 'a' || true",
        "body.x == r'a'",
        "decimal(3)",
        "int(body.x) > 3",
        "1.0 + double(body.x) > 3.0",
    ),
    *(
        "body.x > 3 || true",
        "body.x > 3u",
        "body.x > body.y",
        "double(body.x) + 1.0 > 3.0",
    ),
]
NUMBERS: list[Any] = [
    *(3, -2, 0, 2**53 + 1, 100_000, 3.0, 0.1, -0.0, 1e300, 99999.99, True, None, [3], "x"),
    *(
        "100000",
        "99999.99",
        "0.1",
        "0.10000000000000001",
        "-3",
        "3",
        "003",
        "1_0",
        " 1",
        "1 ",
        "1e5",
        "NaN",
        "１２",
        "",
        "9" * 30,
    ),
]


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("sign", ["<", "<=", ">", ">="])
@pytest.mark.parametrize(
    "left", ["body.x {} 3", "body.x{}-2", "body.x {} 0.1", "double(body.x) {} 100000.0", "double(body.x){}0.1"]
)
def test_what_is_only_measured_has_the_answer_of_an_evaluation(left: str, sign: str, value: Any) -> None:
    test_what_needs_no_evaluation_has_the_answer_of_one(left.format(sign), value)


@pytest.mark.parametrize("text", MORE)
def test_what_is_more_than_that_is_evaluated(text: str) -> None:
    assert Engine().expression(text, ["body"], HERE)._shortcut is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'${"C:\\"}${event.a}', "C:\\x"),
        ('${"""a"}b"""}', 'a"}b'),
        ("${'''a'}b'''}", "a'}b"),
        (r"${r'a\d}' + event.a}", "a\\d}x"),
        (r"${'a\'}' + event.a}", "a'}x"),
        ("${'}' + event.a}", "}x"),
        ("${{'a': event.a}['a']}", "x"),
        ("${event.a // }", "x"),
        ("${event.a}'${event.a}'", "x'x'"),
    ],
)
def test_the_texts_of_cel_decide_where_an_expression_ends(text: str, value: str) -> None:
    engine = Engine()
    template = engine.template(text, ["event"], lambda path: Place("rules/a.yaml", 1, 1))
    assert template.render(engine.scope({"event": {"a": "x"}})) == value
