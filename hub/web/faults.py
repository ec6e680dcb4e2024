"""Error responses: RFC 9457 problem JSON for programs, a page for people; both with code and fix."""

from __future__ import annotations

import uuid
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from hub.errors import FatalError, HubError, RejectedError, RetryableError
from hub.web.pages import Pages

log = structlog.get_logger(__name__)
STATUS = {"HUB-E7101": 404, "HUB-E7102": 400, "HUB-E7103": 421, "HUB-E7104": 403, "HUB-E7105": 409, "HUB-E7106": 403}
BY_STATUS = {404: "HUB-E7101", 405: "HUB-E7107", 400: "HUB-E7102"}


def status_of(error: HubError) -> int:
    """The HTTP status of an error: 503 to retry later, 4xx for a request that cannot succeed, 500 for our own fault."""
    if isinstance(error, RetryableError):
        return 503
    return STATUS.get(error.code, 400 if isinstance(error, RejectedError) else 500)


def problem(error: HubError, language: str, path: str) -> dict[str, Any]:
    """The error as a problem document."""
    return {
        "type": f"urn:hub:error:{error.code}",
        "title": error.message(language),
        "status": status_of(error),
        "detail": error.fix(language),
        "instance": path,
        "code": error.code,
    }


def answer(request: Request, error: HubError, pages: Pages) -> Response:
    """The response in the form that the caller reads."""
    document = problem(error, pages.language(request), request.url.path)
    if request.headers.get("hx-request"):  # a part of an open page: what happened, in one line
        return PlainTextResponse(f"{document['code']} {document['title']} {document['detail']}", document["status"])
    if wants_page(request):
        return pages.render(request, "error.html", status=document["status"], problem=document)
    return JSONResponse(document, document["status"], media_type="application/problem+json")


def wants_page(request: Request) -> bool:
    """Whether the request comes from a browser and is for a page, not for data."""
    path = request.url.path
    data = path.startswith("/api/") or path.endswith((".json", ".csv"))
    return not data and "text/html" in request.headers.get("accept", "")


def install(app: FastAPI, pages: Pages) -> None:
    """Register the handlers for all errors."""

    @app.exception_handler(HubError)
    async def known(request: Request, error: HubError) -> Response:
        return answer(request, error, pages)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(request, RejectedError("HUB-E7102", field=where, reason=first["msg"]), pages)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        mark = uuid.uuid4().hex[:8]
        log.error("web.failed", id=mark, path=request.url.path, exc_info=error)
        return answer(request, FatalError("HUB-E7108", id=mark), pages)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = BY_STATUS.get(error.status_code, "HUB-E7102")
        return answer(request, RejectedError(code, path=request.url.path[:200], field="", reason=error.detail), pages)
