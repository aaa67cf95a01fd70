"""The HTTP face: routes over a backend, as one FastAPI app. Nothing here knows of Ray.

    app = create_app(DirectBackend(engine, MemoryRecorder()), config)

GET /search · POST /search · GET /suggest · GET /indexes · GET /sections/{section_id} · POST /feedback
POST /admin/… · GET /admin/report · /healthz · /readyz · /docs
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi import Query as QueryString
from opentelemetry.sdk.trace.export import SpanExporter
from starlette.middleware import Middleware

from raydex.analytics.log import QueryLog
from raydex.config import ServeConfig, ServeTelemetryConfig
from raydex.errors import QueryError
from raydex.keys import KeyRing
from raydex.lexical import Suggestion
from raydex.records import Hit, Vectors
from raydex.serve.access import Access, allowed_indexes, charge
from raydex.serve.accesslog import AccessLog
from raydex.serve.admin import admin_routes
from raydex.serve.answers import shards_ok
from raydex.serve.contract import describe_limits
from raydex.serve.deadlines import Deadline
from raydex.serve.failures import Edge, add_failure_handlers
from raydex.serve.headers import add_docs_page, cross_origin, describe_keys
from raydex.serve.insights import Insights, feedback_routes
from raydex.serve.limits import Limits
from raydex.serve.ops import ops_routes
from raydex.serve.queries import (
    Backend,
    Findings,
    check_range,
    check_text,
    check_values,
    find,
    probe,
    select_allowed,
    snapshot_ids,
)
from raydex.serve.rates import Meter
from raydex.serve.recent import Recent
from raydex.serve.schemas import (
    AliveResponse,
    BatchAnswer,
    BatchRequest,
    BatchResponse,
    FailureResponse,
    IndexesResponse,
    ReadyResponse,
    Result,
    SearchParameters,
    SearchResponse,
    SectionResponse,
    Suggested,
    SuggestParameters,
    SuggestResponse,
)
from raydex.serve.searching import LISTS, Searching, SearchRoute, check_options, join, query_of, skipped_text
from raydex.serve.status import index_statuses, record_gauges
from raydex.serve.swapping import Follower
from raydex.tracing import RequestTracing, open_sender

logger = logging.getLogger(__name__)

API_VERSION = "1"
"""Of the routes and bodies. The version of the program is nobody's business who only calls it."""

GAUGE_INTERVAL_S = 10.0
"""Between two looks at the disk for the age gauges; Ray exports metrics every 10 s."""

DESCRIPTIONS = {
    400: "The URL, the headers or the bytes of the body are not well formed.",
    401: "A valid API key is needed.",
    403: "The key does not allow this.",
    404: "No such index or section.",
    405: "Another method is meant; Allow names it.",
    408: "The body did not come in time.",
    413: "The body is too long.",
    414: "The URL is too long.",
    422: "A parameter is wrong; `field` names it.",
    429: "Too many requests with this key; see Retry-After and RateLimit.",
    431: "The headers are too many or too long.",
    503: "Not ready; try again after Retry-After seconds.",
    504: "No answer within `timeout_ms`.",
}
FAILURES: dict[int | str, dict[str, object]] = {
    status: {"model": FailureResponse, "description": text} for status, text in DESCRIPTIONS.items()
}


def create_app(
    backend: Backend, config: ServeConfig, *, adds_request_id: bool = True, spans: SpanExporter | None = None
) -> FastAPI:
    """adds_request_id: False behind a proxy that writes the X-Request-Id header itself.

    spans: where to, in place of the endpoint of the settings.
    """
    tracing = _tracing(config.telemetry, spans)
    insights = Insights(QueryLog(config, backend.recorder.count))
    app = FastAPI(
        title="Raydex",
        summary="Search in documentation.",
        description=_describe_limits(config),
        version=API_VERSION,
        docs_url=None,  # ours, below, has a policy of what it may load
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # its spans would hold the query string
        lifespan=lambda _: _at_work(backend, config, insights.log, tracing),
        middleware=[
            Middleware(
                Edge,
                recorder=backend.recorder,
                access_log=AccessLog(config.access.access_log),
                tracing=tracing,
                adds_header=adds_request_id,
            ),
            Middleware(Limits, config=config.limits),
            *cross_origin(config.access.cors_origins),
            Middleware(
                Access,
                config=config,
                keys=KeyRing(config.keys_path),
                meter=Meter(config.access, backend.recorder),
                recorder=backend.recorder,
            ),
        ],
        responses=FAILURES,
    )
    add_failure_handlers(app, config)
    add_docs_page(app)
    describe_keys(app)
    describe_limits(app, config)
    searching = Searching(backend, config, insights)
    app.include_router(_search_routes(backend, config, searching, insights), tags=["search"])
    app.include_router(_content_routes(backend, config), tags=["content"])
    app.include_router(_health_routes(backend), tags=["health"])
    app.include_router(admin_routes(backend), tags=["admin"])
    app.include_router(feedback_routes(backend, config, insights), dependencies=[Depends(_said_once)])
    if isinstance(backend.recorder, Recent):
        app.include_router(ops_routes(backend.recorder, insights, backend.canary_window), tags=["health"])
    app.router.routes.insert(0, SearchRoute(searching))
    return app


def _search_routes(backend: Backend, config: ServeConfig, searching: Searching, insights: Insights) -> APIRouter:
    router = APIRouter(dependencies=[Depends(_said_once)])

    @router.get("/search", summary="Search for one query", response_model=SearchResponse)
    async def search(request: Request, parameters: Annotated[SearchParameters, QueryString()]) -> Response:
        body = await searching.respond(parameters, request.scope)
        return Response(body, media_type="application/json")

    @router.post("/search", summary="Search for several queries at once")
    async def search_many(request: Request, batch: BatchRequest) -> BatchResponse:
        if len(batch.queries) > config.max_batch:
            limit = f"at most {config.max_batch} are taken (max_batch)"
            raise QueryError("queries", f"has {len(batch.queries)} queries, {limit}")
        for position, text in enumerate(batch.queries):
            check_text(text, f"queries[{position}]", config)
        deadline, allowed = check_options(batch, config), allowed_indexes(request.scope)
        await charge(request.scope, len(batch.queries) - 1)
        queries = [query_of(text, batch) for text in batch.queries]
        found = await find(backend, queries, names=batch.index, allowed=allowed, deadline=deadline)
        for text, answer in zip(batch.queries, found.found, strict=True):
            if not batch.offset:
                best = answer.hits[0].chunk.url if answer.hits else ""
                insights.searched(request.scope, text, list(found.snapshot), results=len(answer.hits), best=best)
        return BatchResponse(
            message=join(_with_messages(found), skipped_text(found.skipped)),
            snapshot=found.snapshot,
            answers=_answers(batch.queries, found),
            timings_s=found.timings_s,
        )

    @router.get("/suggest", summary="Symbols, titles and headings, while a person types")
    async def suggest(request: Request, parameters: Annotated[SuggestParameters, QueryString()]) -> SuggestResponse:
        check_text(parameters.query, "query", config)
        check_range(k=parameters.k, offset=0, config=config)
        check_values(parameters.index, "index", config)
        engine, deadline = backend.engine, Deadline.of(parameters.timeout_ms, config.limits)
        indexes = select_allowed(engine, parameters.index, allowed_indexes(request.scope))

        def work(_: Vectors | None) -> list[tuple[str, Suggestion, str]]:
            deadline.check()
            return engine.suggest(indexes, parameters.query, k=parameters.k)

        async with deadline.kept():
            found = await backend.run(None, work)
        return SuggestResponse(
            snapshot=snapshot_ids(indexes),
            suggestions=[
                Suggested(text=one.text, kind=one.kind, url=url, index=name, is_corrected=one.is_corrected)
                for name, one, url in found
            ],
        )

    return router


def _said_once(request: Request) -> None:
    """Refuse a parameter that is given twice and is no list: which of the two is meant?"""
    names = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in names.items():
        if count > 1 and name not in LISTS:
            raise QueryError(name, f"is given {count} times")


def _content_routes(backend: Backend, config: ServeConfig) -> APIRouter:
    router = APIRouter()

    @router.get("/indexes", summary="What is served, and how old it is")
    async def indexes(request: Request) -> IndexesResponse:
        statuses = await asyncio.to_thread(index_statuses, backend.engine, config)
        allowed = allowed_indexes(request.scope)
        seen = [one for one in statuses if allowed is None or one.name in allowed]
        return IndexesResponse(replica=backend.name, indexes=seen)

    @router.get("/sections/{section_id:path}", summary="A whole section, by the percent-encoded id from a hit")
    async def section(request: Request, section_id: str) -> SectionResponse:
        allowed = allowed_indexes(request.scope)
        index, found = await asyncio.to_thread(backend.engine.section, section_id, allowed=allowed)
        return SectionResponse(
            section_id=found.section_id,
            source=found.url,
            title=found.title,
            headings=found.headings,
            content=found.text,
            index=index.name,
            snapshot=snapshot_ids([index]),
        )

    return router


def _health_routes(backend: Backend) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", summary="Is the process alive?")
    async def healthz() -> AliveResponse:
        return AliveResponse()

    @router.get("/readyz", summary="Is every index open, and does a search work?")
    async def readyz(request: Request) -> ReadyResponse:
        return ReadyResponse(snapshot=await probe(backend, allowed_indexes(request.scope)))

    return router


@asynccontextmanager
async def _at_work(
    backend: Backend, config: ServeConfig, log: QueryLog, tracing: RequestTracing | None
) -> AsyncIterator[None]:
    """Keep the gauges fresh, follow CURRENT and write the query log for as long as the app runs."""

    async def keep_gauges() -> None:
        while True:
            statuses = await asyncio.to_thread(index_statuses, backend.engine, config)
            record_gauges(statuses, backend.recorder)
            await asyncio.sleep(GAUGE_INTERVAL_S)

    follower = Follower(backend.engine, backend.swaps, backend.recorder)
    tasks = [asyncio.create_task(work) for work in (keep_gauges(), follower.run())]
    for task in tasks:
        task.add_done_callback(_tell_death)
    log.start()
    try:
        yield
    finally:
        await asyncio.to_thread(log.close)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        if tracing:
            await asyncio.to_thread(tracing.close)


def _tracing(config: ServeTelemetryConfig, spans: SpanExporter | None) -> RequestTracing | None:
    sender = open_sender(config, "raydex-serve", spans)
    if sender is None:
        return None
    return RequestTracing(sender, share=config.trace_share, follows_callers=config.trace_callers == "follow")


def _tell_death(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        logger.error("work behind the requests has ended, restart the service", exc_info=task.exception())


def _answers(queries: Sequence[str], found: Findings) -> list[BatchAnswer]:
    return [
        BatchAnswer(
            query=query,
            message=warning,
            confidence=answer.confidence,
            shards_ok=shards_ok(answer),
            results=_results(answer.hits),
            facets=answer.facets,
        )
        for query, warning, answer in zip(queries, found.warnings, found.found, strict=True)
    ]


def _results(hits: Sequence[Hit]) -> list[Result]:
    return [
        Result(
            rank=hit.rank,
            score=hit.score,
            scores=hit.scores,
            content=hit.chunk.text,
            highlights=list(hit.highlights),
            excerpt=hit.excerpt,
            source=hit.chunk.url,
            title=hit.chunk.title,
            headings=hit.chunk.headings,
            kind=hit.kind,
            version=hit.version,
            index=hit.index,
            section_id=hit.chunk.section_id,
            chunk_id=hit.chunk.chunk_id,
            more=_results(hit.more),
            copies=list(hit.copies),
            explanation=hit.explanation,
        )
        for hit in hits
    ]


def _with_messages(found: Findings) -> str:
    count = sum(bool(warning) for warning in found.warnings)
    return f"{count} of {len(found.warnings)} answers have a message of their own" if count else ""


def _describe_limits(config: ServeConfig) -> str:
    limits = config.limits
    return (
        f"Limits of this service: k up to {config.max_k}, offset up to {config.max_offset}, queries up to "
        f"{config.max_query_chars} characters, up to {config.max_batch} queries in one POST, {limits.max_values} "
        f"values of a filter, timeout_ms up to {limits.max_timeout_ms} (unasked {limits.default_timeout_ms}), a body "
        f"of {limits.max_body_bytes:,} bytes.\n\n"
        'Every error has the body `{"error": {"type", "message", "field", "request_id"}}`.'
    )
