"""What a request may cost before anybody looks at its meaning: headers, URL, body, nesting, patience (docs/limits.md).

    scope, receive → Limits → the app, which receives one bounded body, read when it asks for it

Starlette's own limit of bodies knows no deadline and no nesting, and answers in words of its own.
"""

import asyncio
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raydex.config import LimitsConfig
from raydex.errors import (
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooLarge,
    MalformedRequest,
    QueryError,
    RequestRefused,
    UriTooLong,
)
from raydex.serve.failures import respond_to

WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
LONGEST_LENGTH = 15
"""Digits of a Content-Length that are worth reading as a number."""

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+\\?"?|[\[{]|[\]}]', re.DOTALL)


class Limits:
    """The layer below Edge, which gives the request its id."""

    def __init__(self, app: ASGIApp, *, config: LimitsConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check_url(scope)
                if self._check_headers(scope) or scope["method"] in WITH_BODY:
                    receive = self._bounded(receive)
            except RequestRefused as error:
                await respond_to(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check_url(self, scope: Scope) -> None:
        query_string, limit = scope["query_string"], self._config.max_url_bytes
        if len(query_string) + len(scope["path"]) > limit:
            raise UriTooLong(f"the URL has more than {limit} bytes (max_url_bytes); POST /search takes more")
        if not query_string.isascii():
            raise MalformedRequest("the query string holds bytes beyond ASCII; percent-encode its UTF-8")
        if b"%" in query_string and (found := _BAD_ESCAPE.search(query_string)):
            raise MalformedRequest(f"the query string has a bare % at byte {found.start()}; write it as %25")

    def _check_headers(self, scope: Scope) -> bool:
        """Return whether the headers announce a body."""
        headers, config = scope["headers"], self._config
        if len(headers) > config.max_headers:
            raise HeadersTooLarge(f"more than {config.max_headers} headers (max_headers)")
        size, announced = 0, False
        for name, value in headers:
            size += len(name) + len(value)
            if name == b"content-length":
                self._check_length(value)
                announced = announced or value != b"0"
            elif name == b"transfer-encoding":
                announced = True
        if size > config.max_header_bytes:
            raise HeadersTooLarge(f"the headers have more than {config.max_header_bytes} bytes (max_header_bytes)")
        return announced

    def _check_length(self, value: bytes) -> None:
        if not value.isdigit():
            raise MalformedRequest("Content-Length is not a number")
        if len(value) > LONGEST_LENGTH or int(value) > self._config.max_body_bytes:
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        is_read = False

        async def receive_bounded() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return await self._read(receive)

        return receive_bounded

    async def _read(self, receive: Receive) -> Message:
        """Return the body as one message, or the message that the client has gone."""
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return message
                    body += message.get("body", b"")
                    if len(body) > self._config.max_body_bytes:
                        raise self._too_large()
                    more = message.get("more_body", False)
        except TimeoutError as error:
            limit = self._config.body_timeout_s
            raise BodyTooSlow(f"the body did not come whole within {limit:g} s (body_timeout_s)") from error
        self._check_nesting(bytes(body))
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    def _check_nesting(self, body: bytes) -> None:
        limit = self._config.max_nesting
        if body.count(b"[") + body.count(b"{") <= limit:
            return
        depth = 0
        for found in _STRING_OR_BRACKET.finditer(body):
            depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
            if depth > limit:
                raise QueryError("body", f"is nested deeper than {limit} (max_nesting)")

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body has more than {self._config.max_body_bytes} bytes (max_body_bytes)")
