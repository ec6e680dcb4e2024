"""What the front door says when it refuses: RFC 9457 problems, in the reader's language, the same bytes every time."""

from __future__ import annotations

import functools

import orjson
from aiohttp import web

from hub.errors import text_of

STATUS = {
    "HUB-E7002": 404,
    "HUB-E7003": 405,
    "HUB-E7004": 415,
    "HUB-E7005": 413,
    "HUB-E7006": 503,
    "HUB-E7007": 408,
    "HUB-E7008": 401,
    "HUB-E7009": 400,
    "HUB-E7011": 421,
    "HUB-E7012": 503,
    "HUB-E7013": 500,
    "HUB-E7014": 503,
    "HUB-E7015": 417,
}
MORE = {405: {"Allow": "POST"}, 503: {"Retry-After": "2"}}
"""Headers of an answer besides, by status."""
LATER = {"HUB-E7014": {"Retry-After": "60"}}
"""Those of some codes: a person has to do something first."""


def problem(request: web.BaseRequest, code: str) -> web.Response:
    """The refusal of a request, by code."""
    status = STATUS[code]
    answer = web.Response(
        status=status,
        body=_body(code, language_of(request)),
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store", **MORE.get(status, {}), **LATER.get(code, {})},
    )
    if status in (408, 413):
        answer.force_close()  # the rest of the body is not waited for
    return answer


def language_of(request: web.BaseRequest) -> str:
    """`zh-CN` unless the reader puts English first."""
    first = request.headers.get("Accept-Language", "").split(",")[0].strip().lower()
    return "en" if first.startswith("en") else "zh-CN"


@functools.cache
def _body(code: str, language: str) -> bytes:
    text = text_of(code, language)
    told = {
        "type": f"urn:hub:problem:{code}",
        "title": text["say"],
        "status": STATUS[code],
        "detail": text["fix"],
        "code": code,
    }
    return orjson.dumps(told)
