"""What an answer says by its body: many systems say no with HTTP 200. Pure."""

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


class Said(enum.Enum):
    """What an answer says of the request. Without settings that tell, it says nothing."""

    DONE = "done"
    CREDENTIALS = "credentials"
    RETRY = "retry"
    REFUSED = "refused"
    UNCLEAR = "unclear"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Reading:
    """The conditions of a `send` or a `find`, compiled. `setting` is where they stand."""

    setting: str
    done: Condition | None
    others: Mapping[Said, Condition]

    def said(self, scope: Scope) -> Said:
        """What the answer says. A condition that cannot be evaluated does not hold; `done` is then unclear."""
        done = None if self.done is None else _holds(self.done, scope)
        if done:
            return Said.DONE
        for said, condition in self.others.items():
            if _holds(condition, scope):
                return said
        if self.done is None:
            return Said.NOTHING
        return Said.UNCLEAR if done is None or Said.REFUSED in self.others else Said.REFUSED


def reading(told: settings.Answers, path: Path, instance: Instance, engine: Engine) -> Reading:
    """Compile; raises FatalError with the exact place for a condition that cannot be read."""

    def condition(name: str) -> Condition | None:
        text = getattr(told, name)
        place = instance.place((*path, name))
        return None if text is None else engine.condition(text, ("command", "response"), place)

    others = {said: condition(said.value) for said in (Said.CREDENTIALS, Said.RETRY, Said.REFUSED)}
    given = {said: one for said, one in others.items() if one is not None}
    return Reading(dotted(path), condition("done"), given)


def field_that_says_no(answer: Json) -> str | None:
    """The field by which an answer says no in the words that most systems have for it, None where it does not say so."""
    return next(_denials(answer), None) if isinstance(answer, dict) else None


_CODES = ("errcode", "errCode", "error_code", "errorCode", "err_code", "errno")
_FINE = ("", "0", "ok", "none", "null", "success", "false")
_WORDS = ("msg", "message", "errmsg", "error_message")
_WELL = (*_FINE, "200", "201", "20000", "succeeded", "成功", "操作成功", "请求成功", "发送成功")


def _denials(answer: Mapping[str, Json]) -> Iterator[str]:
    yield from (name for name in _CODES if not _is_among(_FINE, answer.get(name)))
    yield from (name for name in ("ok", "success") if answer.get(name) is False)
    yield from (name for name in ("error", "errors") if answer.get(name) and not _is_among(_FINE, answer[name]))
    has_words = any(isinstance(answer.get(name), str) and not _is_among(_WELL, answer[name]) for name in _WORDS)
    if has_words and "code" in answer and not _is_among(_WELL, answer["code"]):
        yield "code"


def _is_among(words: tuple[str, ...], value: Json) -> bool:
    return value is None or (isinstance(value, str | int | float) and str(value).lower().strip() in words)


def _holds(condition: Condition, scope: Scope) -> bool | None:
    """None where it cannot be said."""
    try:
        return condition.test(scope)
    except RejectedError:
        return None
