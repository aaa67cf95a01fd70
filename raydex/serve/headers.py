"""Headers that keep browsers from doing more with our answers than they should; CORS; the page /docs.

Every response says nosniff, no-store, no referrer, and a policy (CSP) under which nothing is loaded or framed. /docs
has a policy of its own, made from the page: its inline script by hash, its few files by the URLs that FastAPI gives.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import Message

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""no-store: answers change with the snapshot, and depend on who asks; no cache on the way may keep them."""


def add_security_headers(message: Message) -> None:
    """Add to a response what it does not say itself."""
    given = list(message.get("headers", ()))
    names = {name for name, _ in given}
    given.extend(one for one in HEADERS if one[0] not in names)
    message["headers"] = given


def cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """Return the layer that lets pages of these origins ask; it answers preflights, which carry no key."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            # those of a trace also while nothing is traced: a page that is should work with either service
            allow_headers=[
                *("Authorization", "X-API-Key", "Content-Type"),
                *("X-Request-Id", "X-Session-Id", "traceparent", "tracestate"),
            ],
            expose_headers=["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"],
            allow_credentials=False,  # a key is sent by the page's own script, never by the browser of itself
        )
    ]


def add_docs_page(app: FastAPI) -> None:
    """Serve Swagger UI at /docs, under a policy that allows what this page needs and no more."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}", title=f"{app.title}: API", oauth2_redirect_url=None
        )
        page.headers["Content-Security-Policy"] = page_policy(bytes(page.body).decode())
        return page


def describe_keys(app: FastAPI) -> None:
    """Say in the OpenAPI document how a key is given; Swagger UI then asks for one."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        document.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"header": []}, {}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI says


def page_policy(page: str) -> str:
    """Return the policy for this very page: its inline scripts by hash, its files by URL, requests to ourselves."""
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
        for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    ]
    scripts, styles, images = (
        re.findall(pattern, page)
        for pattern in (
            r'<script src="(https://[^"]+)"',
            r'<link[^>]*rel="stylesheet" href="(https://[^"]+)"',
            r'<link rel="shortcut icon" href="(https://[^"]+)"',
        )
    )
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src", *hashes, *scripts)),
            " ".join(("style-src 'unsafe-inline'", *styles)),  # Swagger UI sets styles from its script
            " ".join(("img-src 'self' data:", *images)),
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
