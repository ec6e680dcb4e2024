"""Decides an answer's outcome by its body: many systems report an error with HTTP 200. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from connectors.http import settings
from hub.config.strict_json import Json
from hub.errors import RejectedError
from hub.expressions.engine import Engine
from hub.expressions.expression import Condition, Scope
from hub.kit.connector import Instance
from hub.kit.settings import dotted

Path = tuple[str | int, ...]


class ResponseOutcome(enum.Enum):
    """The outcome that an answer reports. Without conditions in the settings it is NOTHING."""

    DONE = "done"
    CREDENTIALS = "credentials"
    RETRY = "retry"
    REFUSED = "refused"
    UNCLEAR = "unclear"
    NOTHING = "nothing"


@dataclass(frozen=True)
class ResponseConditions:
    """The conditions of a `send` or a `find`, compiled. `setting` is their path in the settings."""

    setting: str
    done: Condition | None
    others: Mapping[ResponseOutcome, Condition]

    def outcome(self, scope: Scope) -> ResponseOutcome:
        """The answer's outcome. A condition that cannot be evaluated does not hold; for `done` the outcome is then unclear."""
        done = None if self.done is None else _holds(self.done, scope)
        if done:
            return ResponseOutcome.DONE
        for outcome, condition in self.others.items():
            if _holds(condition, scope):
                return outcome
        if self.done is None:
            return ResponseOutcome.NOTHING
        return (
            ResponseOutcome.UNCLEAR
            if done is None or ResponseOutcome.REFUSED in self.others
            else ResponseOutcome.REFUSED
        )


def compile_conditions(answers: settings.Answers, path: Path, instance: Instance, engine: Engine) -> ResponseConditions:
    """Compile; raises FatalError with the exact place for a condition that cannot be read."""

    def condition(name: str) -> Condition | None:
        text = getattr(answers, name)
        place = instance.place((*path, name))
        return None if text is None else engine.condition(text, ("command", "response"), place)

    others = {
        outcome: condition(outcome.value)
        for outcome in (ResponseOutcome.CREDENTIALS, ResponseOutcome.RETRY, ResponseOutcome.REFUSED)
    }
    configured = {outcome: each for outcome, each in others.items() if each is not None}
    return ResponseConditions(dotted(path), condition("done"), configured)


def error_field(answer: Json) -> str | None:
    """The field by which an answer reports an error, by the names that most systems use; None where it reports none."""
    return next(_error_fields(answer), None) if isinstance(answer, dict) else None


_CODE_FIELDS = ("errcode", "errCode", "error_code", "errorCode", "err_code", "errno")
_SUCCESS_VALUES = ("", "0", "ok", "none", "null", "success", "false")
_TEXT_FIELDS = ("msg", "message", "errmsg", "error_message")
_SUCCESS_TEXTS = (*_SUCCESS_VALUES, "200", "201", "20000", "succeeded", "成功", "操作成功", "请求成功", "发送成功")


def _error_fields(answer: Mapping[str, Json]) -> Iterator[str]:
    yield from (name for name in _CODE_FIELDS if not _is_among(_SUCCESS_VALUES, answer.get(name)))
    yield from (name for name in ("ok", "success") if answer.get(name) is False)
    yield from (
        name for name in ("error", "errors") if answer.get(name) and not _is_among(_SUCCESS_VALUES, answer[name])
    )
    has_words = any(
        isinstance(answer.get(name), str) and not _is_among(_SUCCESS_TEXTS, answer[name]) for name in _TEXT_FIELDS
    )
    if has_words and "code" in answer and not _is_among(_SUCCESS_TEXTS, answer["code"]):
        yield "code"


def _is_among(words: tuple[str, ...], value: Json) -> bool:
    return value is None or (isinstance(value, str | int | float) and str(value).lower().strip() in words)


def _holds(condition: Condition, scope: Scope) -> bool | None:
    """Whether the condition holds; None where it cannot be evaluated."""
    try:
        return condition.test(scope)
    except RejectedError:
        return None
