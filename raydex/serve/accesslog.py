"""One log line a request, without what was asked: who, what, how it ended, how long.

request answered method=GET route=/search status=200 seconds=0.0041 key=k3v9qmx2ab request_id=5f0c…

Queries are what people think about; they are written down only when the setting says `queries`, and only those in URLs.
A key is known by its id; its secret, and any other header, is never written.
"""

import logging
from typing import Literal

from starlette.types import Scope

from utils.logs import log_fields

logger = logging.getLogger(__name__)


class AccessLog:
    def __init__(self, kind: Literal["off", "on", "queries"]) -> None:
        self._is_on, self._with_queries = kind != "off", kind == "queries"

    def write(self, scope: Scope, *, route: str, status: int, seconds: float, request_id: str) -> None:
        """route: the template, such as /sections/{section_id}; `other` for none of ours."""
        if not self._is_on:
            return
        key = scope.get("raydex.key")
        with log_fields(query=scope["query_string"].decode("latin-1") if self._with_queries else ""):
            logger.info(
                "request answered method=%s route=%s status=%d seconds=%.4f key=%s request_id=%s",
                scope["method"] if scope["method"].isalpha() else "other",
                route,
                status,
                seconds,
                key.key_id if key else "-",
                request_id,
            )
