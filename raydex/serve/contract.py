"""The limits of this very service, written into its OpenAPI document: what that allows is never refused with 422.

Generated clients and tests (tests/test_service_fuzz.py) know the limits from there.
"""

from typing import Any

from fastapi import FastAPI

from raydex.config import ServeConfig

NO_TEXT = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffd"
"""Ranges of a regular expression: what queries.check_characters refuses, but for halves of pairs, which JSON lacks."""


URL = rf"^https?://[^\s{NO_TEXT}]+$"


def describe_limits(app: FastAPI, config: ServeConfig) -> None:
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        limits = _limits(config)
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        for parameter in (one for operation in operations for one in operation.get("parameters", ())):
            _narrow(parameter["schema"], limits.get(parameter["name"], {}))
        for name, field in document["components"]["schemas"]["BatchRequest"]["properties"].items():
            _narrow(field, limits.get(name, {}))
        verdict = document["components"]["schemas"]["FeedbackRequest"]["properties"]
        value = limits["index"]["items"]
        for name, limit in {"query": limits["query"], "url": {**value, "pattern": URL}, "index": value}.items():
            _narrow(verdict[name], limit)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI says


def _limits(config: ServeConfig) -> dict[str, dict[str, Any]]:
    """Return parameter → what its JSON schema says more."""
    value = {"maxLength": config.max_query_chars, "pattern": f"^[^{NO_TEXT}]*$"}
    query = {**value, "minLength": 1, "pattern": rf"^[^{NO_TEXT}]*[^\s{NO_TEXT}][^{NO_TEXT}]*$"}
    most = {"maxItems": config.limits.max_values}
    return {
        "k": {"maximum": config.max_k},
        "offset": {"maximum": config.max_offset},
        "timeout_ms": {"maximum": config.limits.max_timeout_ms},
        "query": query,
        "queries": {"maxItems": config.max_batch, "items": query},
        "kind": most,
        **{name: {**most, "items": value} for name in ("index", "source", "version", "language", "path")},
    }


def _narrow(schema: dict[str, Any], limits: dict[str, Any]) -> None:
    for key, limit in limits.items():
        schema[key] = {**schema[key], **limit} if key == "items" else limit
