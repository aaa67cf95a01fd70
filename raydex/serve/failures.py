"""Every way a request can fail, as one table and one body; the request id; request figures.

error → {"error": {"type": "query_error", "message": "k: is 500, allowed are 1 to 100", "field": "k", "request_id": …}}
"""

import logging
import re
import time
import uuid
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raydex.config import ServeConfig
from raydex.errors import (
    BodyTooLarge,
    BodyTooSlow,
    DeadlineExceeded,
    EmbedError,
    HeadersTooLarge,
    IndexNotFound,
    MalformedRequest,
    QueryError,
    RaydexError,
    RequestRefused,
    RollbackRefused,
    SectionNotFound,
    SnapshotError,
    StorageError,
    UriTooLong,
)
from raydex.serve.recorder import Recorder
from raydex.serve.schemas import Failure, FailureResponse
from raydex.serve.status import reason_text

logger = logging.getLogger(__name__)

STATUS: dict[type[RaydexError], int] = {
    QueryError: 422,
    IndexNotFound: 404,
    SectionNotFound: 404,
    RollbackRefused: 409,
    SnapshotError: 503,
    EmbedError: 503,
    StorageError: 503,
    MalformedRequest: 400,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    UriTooLong: 414,
    HeadersTooLarge: 431,
    DeadlineExceeded: 504,
}  # anything else: 500

RETRY_AFTER_S = 5
"""How soon to ask again after a 503: a replica opens a snapshot of a few thousand chunks in less."""

REQUEST_ID_KEY = "raydex.request_id"
LONGEST_REQUEST_ID = 128
SHOWN_COMPLAINTS, LONGEST_MESSAGE = 10, 2000
"""Of what is echoed: an error is never much longer than the request that it refuses."""


def add_failure_handlers(app: FastAPI, config: ServeConfig) -> None:
    """Give each foreseen error its response; what none of these takes is left to Edge."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RaydexError)
        return respond_to(request.scope, error, reason_text(str(error), config))

    async def refused(request: Request, error: Exception) -> JSONResponse:
        cause = error.__cause__  # FastAPI makes a 400 of whatever is raised while it reads a body
        return await (known(request, cause) if isinstance(cause, RaydexError) else _refused(request, error))

    app.add_exception_handler(RaydexError, known)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, refused)


def respond_to(scope: Scope, error: RaydexError, message: str = "") -> JSONResponse:
    """Return the response to a foreseen error, and raise any other. message: other words than the error's own."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        raise error
    field = error.field if isinstance(error, QueryError) else None
    headers = {"Connection": "close"} if isinstance(error, RequestRefused) else {}  # the body may not be read
    return _respond(scope, status, _snake_case(type(error)), message or str(error), field=field, headers=headers)


class Edge:
    """The outermost layer: request id, request figures, and the unforeseen made a 500 that tells nothing.

    adds_header: False where the server in front (Ray Serve's proxy) writes X-Request-Id itself; two would be joined.
    """

    def __init__(self, app: ASGIApp, *, recorder: Recorder, adds_header: bool) -> None:
        self._app = app
        self._recorder = recorder
        self._adds_header = adds_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID_KEY] = _request_id(scope)
        started, status = time.perf_counter(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._adds_header:
                    MutableHeaders(scope=message)["X-Request-Id"] = scope[REQUEST_ID_KEY]
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except Exception:  # the HTTP edge, on purpose broad: the caller gets a 500 and an id, the log the traceback
            logger.exception("request failed request_id=%s path=%s", scope[REQUEST_ID_KEY], scope["path"])
            if status:
                raise
            await _respond(scope, 500, "internal_error", "The service failed; its log has the request id.")(
                scope, receive, send_marked
            )
        self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._recorder.count("raydex_requests", route=route, outcome=_outcome(status))
        self._recorder.observe("raydex_request_seconds", seconds, route=route)


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """Answer what FastAPI's own validation refused; all complaints in the message, the first one's field."""
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    complaints = [_complaint(detail) for detail in details[:SHOWN_COMPLAINTS]]
    message = "; ".join(f"{field}: {text}" if field else text for field, text in complaints)
    if len(details) > SHOWN_COMPLAINTS:
        message += f"; and {len(details) - SHOWN_COMPLAINTS} more"
    return _respond(request.scope, 422, "query_error", message, field=complaints[0][0])


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """Answer what the router refused: an unknown route, a wrong method, a body that cannot be read."""
    assert isinstance(error, HTTPException)
    kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    message = f"{error.detail}: {request.method} {request.url.path}. See /docs."
    return _respond(request.scope, error.status_code, kind, message, headers=dict(error.headers or {}))


def _complaint(detail: Any) -> tuple[str | None, str]:
    """Return (field, text) of one pydantic error; `queries[3]` for the fourth query."""
    if detail["type"] == "json_invalid":
        return None, f"the body is not JSON: {detail['ctx']['error']}"
    names = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"][1:]]
    text = "unknown parameter" if detail["type"] == "extra_forbidden" else detail["msg"]
    return "".join(names).lstrip(".") or None, text


def _respond(
    scope: Scope,
    status: int,
    kind: str,
    message: str,
    *,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]} …"
    failure = Failure(type=kind, message=message, field=field, request_id=scope[REQUEST_ID_KEY])
    retry = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JSONResponse(FailureResponse(error=failure).model_dump(), status, headers={**(headers or {}), **retry})


def _request_id(scope: Scope) -> str:
    """Return the id the caller or the proxy gave, or a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if given.isprintable() and 0 < len(given) <= LONGEST_REQUEST_ID else uuid.uuid4().hex


def _outcome(status: int) -> str:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return "not_ready"
    if status == HTTPStatus.GATEWAY_TIMEOUT:
        return "too_late"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "error"
    return "client_error" if status >= HTTPStatus.BAD_REQUEST else "ok"


def _snake_case(kind: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
