"""Every way a request can fail, as one table and one body; the request id; request figures.

error → {"error": {"type": "query_error", "message": "k: is 500, allowed are 1 to 100", "field": "k", "request_id": …}}
"""

import logging
import math
import re
import time
import uuid
from contextlib import nullcontext
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
    AuthError,
    BodyTooLarge,
    BodyTooSlow,
    DeadlineExceeded,
    EmbedError,
    Forbidden,
    HeadersTooLarge,
    IndexNotFound,
    MalformedRequest,
    Overloaded,
    QueryError,
    RateLimited,
    RaydexError,
    RequestRefused,
    RollbackRefused,
    SectionNotFound,
    ShardsLost,
    SnapshotError,
    StorageError,
    UriTooLong,
)
from raydex.serve.accesslog import AccessLog
from raydex.serve.headers import add_security_headers
from raydex.serve.recorder import Recorder
from raydex.serve.schemas import Failure, FailureResponse
from raydex.serve.status import reason_text
from raydex.tracing import Fact, RequestTrace, RequestTracing, in_request
from utils.logs import log_fields

logger = logging.getLogger(__name__)

STATUS: dict[type[RaydexError], int] = {
    AuthError: 401,
    Forbidden: 403,
    QueryError: 422,
    RateLimited: 429,
    IndexNotFound: 404,
    SectionNotFound: 404,
    RollbackRefused: 409,
    SnapshotError: 503,
    EmbedError: 503,
    StorageError: 503,
    Overloaded: 503,
    ShardsLost: 503,
    MalformedRequest: 400,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    UriTooLong: 414,
    HeadersTooLarge: 431,
    DeadlineExceeded: 504,
}  # anything else: 500

RETRY_AFTER_S = 5
"""How soon to ask again after a 503: a replica opens a snapshot of a few thousand chunks in less."""

OVERLOAD_RETRY_AFTER_S = 1
"""How soon to ask again when too many wait: what waits is answered in about a second."""

REQUEST_ID_KEY = "raydex.request_id"
OUTCOME_KEY = "raydex.outcome"
"""What became of a request, where its status does not tell."""

LONGEST_REQUEST_ID = 128
SHOWN_COMPLAINTS, LONGEST_MESSAGE = 10, 2000
"""Of what is echoed: an error is never much longer than the request that it refuses."""


def add_failure_handlers(app: FastAPI, config: ServeConfig) -> None:
    """Give each foreseen error its response; what none of these takes is left to Edge."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RaydexError)  # noqa: S101 - for mypy: it is registered for these
        return respond_to(request.scope, error, reason_text(str(error), config))

    async def refused(request: Request, error: Exception) -> JSONResponse:
        cause = error.__cause__  # FastAPI makes a 400 of whatever is raised while it reads a body
        return await (known(request, cause) if isinstance(cause, RaydexError) else _refused(request, error))

    app.add_exception_handler(RaydexError, known)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, refused)


def failure_kind(error: RaydexError) -> str:
    """Return the `type` of the body: query_error of QueryError."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def respond_to(scope: Scope, error: RaydexError, message: str = "") -> JSONResponse:
    """Return the response to a foreseen error, and raise any other. message: other words than the error's own.

    Also for the layers that stand before the routes: what they raise meets no handler.
    """
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        raise error
    field = error.field if isinstance(error, QueryError) else None
    if isinstance(error, Overloaded):
        scope[OUTCOME_KEY] = "overloaded"
    kind, text = failure_kind(error), message or str(error)
    return _respond(scope, status, kind, text, field=field, headers=_headers(error))


def _headers(error: RaydexError) -> dict[str, str]:
    if isinstance(error, RequestRefused):
        return {"Connection": "close"}  # the body may not be read
    if isinstance(error, Overloaded):
        return {"Retry-After": str(OVERLOAD_RETRY_AFTER_S)}
    if isinstance(error, AuthError):  # RFC 6750
        return {"WWW-Authenticate": 'Bearer realm="raydex"' + (', error="invalid_token"' if error.is_given else "")}
    if isinstance(error, RateLimited):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
    return {}


class Edge:
    """The outermost layer: request id, headers of every response, figures, log line, spans, the unforeseen made a 500.

    adds_header: False where the server in front (Ray Serve's proxy) writes X-Request-Id itself; two would be joined.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        recorder: Recorder,
        access_log: AccessLog,
        tracing: RequestTracing | None,
        adds_header: bool,
    ) -> None:
        self._app = app
        self._tracing = tracing
        self._recorder = recorder
        self._access_log = access_log
        self._adds_header = adds_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID_KEY] = _request_id(scope)
        trace = self._tracing.begin(Headers(scope=scope)) if self._tracing else None
        with (
            log_fields(request_id=scope[REQUEST_ID_KEY], trace_id=trace.trace_id if trace else ""),
            in_request(trace) if trace else nullcontext(),
        ):
            await self._answer(scope, receive, send, trace)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, trace: RequestTrace | None) -> None:
        started, status = time.perf_counter(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_security_headers(message)
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
        self._record(scope, status, time.perf_counter() - started, trace)

    def _record(self, scope: Scope, status: int, seconds: float, trace: RequestTrace | None) -> None:
        route = getattr(scope.get("route"), "path", "other")
        outcome = scope.get(OUTCOME_KEY) or _outcome(status)
        self._recorder.count("raydex_requests", route=route, outcome=outcome)
        self._recorder.observe("raydex_request_seconds", seconds, route=route)
        if trace:
            facts = _facts(scope, route, status, outcome)
            trace.end(f"{scope['method']} {route}", failed=status >= HTTPStatus.INTERNAL_SERVER_ERROR, facts=facts)
        self._access_log.write(scope, route=route, status=status, seconds=seconds, request_id=scope[REQUEST_ID_KEY])


def _facts(scope: Scope, route: str, status: int, outcome: str) -> dict[str, Fact]:
    """Return the attributes of a request's span, by OpenTelemetry's names where it has one. No URL: it has queries."""
    key = scope.get("raydex.key")
    return {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.status_code": status,
        "raydex.request_id": scope[REQUEST_ID_KEY],
        "raydex.outcome": outcome,
        **({"raydex.key": key.key_id} if key else {}),
        **({"error.type": outcome} if status >= HTTPStatus.INTERNAL_SERVER_ERROR else {}),
    }


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    """Answer what FastAPI's own validation refused; all complaints in the message, the first one's field."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for mypy: it is registered for these
    details = error.errors()
    complaints = [_complaint(detail) for detail in details[:SHOWN_COMPLAINTS]]
    message = "; ".join(f"{field}: {text}" if field else text for field, text in complaints)
    if len(details) > SHOWN_COMPLAINTS:
        message += f"; and {len(details) - SHOWN_COMPLAINTS} more"
    return _respond(request.scope, 422, "query_error", message, field=complaints[0][0])


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """Answer what the router refused: an unknown route, a wrong method, a body that cannot be read."""
    assert isinstance(error, HTTPException)  # noqa: S101 - for mypy: it is registered for these
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
    return JSONResponse(FailureResponse(error=failure).model_dump(), status, headers={**retry, **(headers or {})})


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
