"""What spans and log fields cost a request in this process: tracing off, on but not kept, and kept.

in-process app + HashEmbedder snapshot → microseconds of a kept answer (GET /search, the cheapest request there is)

    python bench/tracing.py
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from raydex.config import AccessConfig, ServeConfig, ServeTelemetryConfig  # noqa: E402
from raydex.embed import HashEmbedder  # noqa: E402
from raydex.serve.app import create_app  # noqa: E402
from raydex.serve.engine import Engine  # noqa: E402
from raydex.serve.queries import DirectBackend  # noqa: E402
from raydex.serve.recorder import MemoryRecorder  # noqa: E402
from raydex.tracing import request_trace, stage_times  # noqa: E402
from tests.snapshots import make_snapshot  # noqa: E402

ROUNDS, REQUESTS = 15, 400
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/search",
    "raw_path": b"/search",
    "root_path": "",
    "query_string": b"query=burning+question",
    "headers": [(b"host", b"testserver")],
    "server": ("testserver", 80),
    "client": ("127.0.0.1", 1),
}


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_snapshot(Path(folder) / "docs", {"https://docs.example.org/a.html#b": "A question."}, HashEmbedder())
        apps = {
            "off": app(Path(folder), None, share=0.0),
            "on, not kept": app(Path(folder), InMemorySpanExporter(), share=0.0),
            "on, kept": app(Path(folder), InMemorySpanExporter(), share=1.0),
        }
        taken: dict[str, list[float]] = {name: [] for name in apps}
        for _ in range(ROUNDS):  # in turns, so that a machine that slows down does so for all
            for name, one in apps.items():
                taken[name].append(await microseconds(one))
    told = {name: round(min(values), 1) for name, values in taken.items()}
    print(json.dumps({"request_us": told, "median_us": medians(taken), "off_us": cost_of_looking()}))


def medians(taken: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(values), 1) for name, values in taken.items()}


def app(folder: Path, spans: InMemorySpanExporter | None, *, share: float) -> Any:
    config = ServeConfig(
        data_dir=folder,
        access=AccessConfig(access_log="off"),
        telemetry=ServeTelemetryConfig(trace_share=share),
    )
    return create_app(DirectBackend(Engine(config), MemoryRecorder()), config, spans=spans)


async def microseconds(app: Any) -> float:
    """Return how long a request takes, on the average of a round."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None:
        pass

    started = time.perf_counter()
    for _ in range(REQUESTS):
        await app(dict(SCOPE), receive, send)
    return (time.perf_counter() - started) / REQUESTS * 1e6


def cost_of_looking() -> dict[str, float]:
    """Return what the two calls of a request that is not traced take, in microseconds."""
    count, told = 200_000, {}
    for call in (request_trace, stage_times):
        started = time.perf_counter()
        for _ in range(count):
            call()
        told[call.__name__] = round((time.perf_counter() - started) / count * 1e6, 3)
    return told


if __name__ == "__main__":
    asyncio.run(main())
