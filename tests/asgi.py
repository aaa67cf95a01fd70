"""Asks an ASGI app byte by byte: what no HTTP client would send, as no server would mend it.

ask(app, "GET", "/search", query=b"query=%zz").status        ask(app, "POST", "/search", body=b"{", headers=JSON)
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Message

JSON = ((b"content-type", b"application/json"),)
HOST = (b"host", b"testserver")
Header = tuple[bytes, bytes]


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


def escaped(text: str) -> bytes:
    """Percent-encode any text, halves of surrogate pairs too, which come out as what is not UTF-8."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="").encode()


async def whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


def ask(app: ASGIApp, method: str, path: str, **request: Any) -> Answer:
    return asyncio.run(ask_async(app, method, path, **request))


async def ask_async(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    query: bytes = b"",
    headers: Sequence[Header] = (),
    body: bytes = b"",
    pieces: AsyncIterator[bytes] | None = None,
) -> Answer:
    """pieces: the body as it comes in, with no Content-Length; otherwise body, with one."""
    length = [] if pieces else [(b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [HOST, *length, *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    answer, arriving = Answer(), pieces or whole(body)

    async def receive() -> Message:
        async for piece in arriving:
            return {"type": "http.request", "body": piece, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


def check_refusal(answer: Answer, status: int = 0, *, says: str = "") -> dict[str, Any]:
    """Assert that an answer is a 4xx (or `status`) with the one error body; return what stands under "error"."""
    assert answer.status == status if status else 400 <= answer.status < 500, (answer.status, answer.body[:500])
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert list(answer.json()) == ["error"]
    assert set(error) == {"type", "message", "field", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert says in error["message"], error["message"]
    assert len(answer.body) < 20_000, "an error must not be long"
    return error
