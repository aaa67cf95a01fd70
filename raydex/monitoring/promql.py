"""Asks Prometheus over its HTTP API.

async with PromQL("http://127.0.0.1:9090") as prometheus: series = await prometheus.over(expr, start, end, step_s)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from raydex.errors import PrometheusError

TIMEOUT_S = 10.0
MOST_SERIES = 50
"""Of one expression: more lines than that tell nobody anything."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its labels, and (seconds since 1970, value), oldest first."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


class PromQL:
    """A Prometheus at an address. Raises PrometheusError when it does not answer, or refuses an expression."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def over(self, expr: str, start: float, end: float, step_s: float) -> list[Series]:
        """Return each series of the expression from start to end, both in seconds since 1970."""
        asked = {"query": expr, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_s:g}"}
        data = await self._ask("/api/v1/query_range", asked)
        return [
            Series(row["metric"], tuple((float(when), float(value)) for when, value in row["values"]))
            for row in data["result"][:MOST_SERIES]
        ]

    async def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing, as Prometheus tells them."""
        data = await self._ask("/api/v1/alerts", {})
        alerts: list[dict[str, Any]] = data["alerts"]
        return alerts

    async def _ask(self, path: str, form: dict[str, str]) -> Any:
        try:
            answer = await (self._http.post(path, data=form) if form else self._http.get(path))
            body = answer.json()
        except httpx.HTTPError as error:
            raise PrometheusError(self.url, f"gives no answer ({type(error).__name__})") from error
        except ValueError as error:
            raise PrometheusError(self.url, f"gives no JSON (status {answer.status_code})") from error
        if body.get("status") != "success":
            raise PrometheusError(self.url, str(body.get("error", f"status {answer.status_code}")))
        return body["data"]
