"""The HTTP face: routes over a backend, as one FastAPI app. Nothing here knows of Ray.

    app = create_app(DirectBackend(engine, MemoryRecorder()), config)

GET /search · POST /search · GET /suggest · GET /indexes · GET /sections/{section_id} · /healthz · /readyz · /docs
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from fastapi import APIRouter, FastAPI
from fastapi import Query as QueryString
from starlette.middleware import Middleware

from raydex.config import CODE_VERSION, ServeConfig
from raydex.errors import QueryError
from raydex.records import Filters, Hit, Query
from raydex.serve.failures import Edge, add_failure_handlers
from raydex.serve.queries import Backend, Findings, check_range, check_text, find, probe
from raydex.serve.schemas import (
    AliveResponse,
    BatchAnswer,
    BatchRequest,
    BatchResponse,
    FailureResponse,
    IndexesResponse,
    ReadyResponse,
    Result,
    SearchOptions,
    SearchParameters,
    SearchResponse,
    SectionResponse,
    Suggested,
    SuggestParameters,
    SuggestResponse,
)
from raydex.serve.status import index_statuses, record_gauges

logger = logging.getLogger(__name__)

GAUGE_INTERVAL_S = 10.0
"""Between two looks at the disk for the age gauges; Ray exports metrics every 10 s."""

FAILURES: dict[int | str, dict[str, object]] = {
    422: {"model": FailureResponse, "description": "A parameter is wrong; `field` names it."},
    404: {"model": FailureResponse, "description": "No such index or section."},
    503: {"model": FailureResponse, "description": "Not ready; try again after Retry-After seconds."},
}


def create_app(backend: Backend, config: ServeConfig, *, adds_request_id: bool = True) -> FastAPI:
    """adds_request_id: False behind a proxy that writes the X-Request-Id header itself."""
    app = FastAPI(
        title="Raydex",
        summary="Search in documentation.",
        description=_describe_limits(config),
        version=CODE_VERSION,
        redirect_slashes=False,
        lifespan=lambda _: _fresh_gauges(backend, config),
        middleware=[Middleware(Edge, recorder=backend.recorder, adds_header=adds_request_id)],
        responses=FAILURES,
    )
    add_failure_handlers(app, config)
    app.include_router(_search_routes(backend, config), tags=["search"])
    app.include_router(_content_routes(backend, config), tags=["content"])
    app.include_router(_health_routes(backend), tags=["health"])
    return app


def _search_routes(backend: Backend, config: ServeConfig) -> APIRouter:
    router = APIRouter()

    @router.get("/search", summary="Search for one query")
    async def search(parameters: Annotated[SearchParameters, QueryString()]) -> SearchResponse:
        check_text(parameters.query, "query", config)
        check_range(k=parameters.k, offset=parameters.offset, config=config)
        found = await find(backend, [_query(parameters.query, parameters)], names=parameters.index)
        answer = found.found[0]
        return SearchResponse(
            message=_join(found.warnings[0], _skipped(found)),
            snapshot=found.snapshot,
            confidence=answer.confidence,
            results=_results(answer.hits),
            facets=answer.facets,
            timings_s=found.timings_s,
        )

    @router.post("/search", summary="Search for several queries at once")
    async def search_many(request: BatchRequest) -> BatchResponse:
        if len(request.queries) > config.max_batch:
            raise QueryError("queries", f"has {len(request.queries)} queries, at most {config.max_batch} are taken")
        for position, text in enumerate(request.queries):
            check_text(text, f"queries[{position}]", config)
        check_range(k=request.k, offset=request.offset, config=config)
        found = await find(backend, [_query(text, request) for text in request.queries], names=request.index)
        return BatchResponse(
            message=_join(_with_messages(found), _skipped(found)),
            snapshot=found.snapshot,
            answers=_answers(request.queries, found),
            timings_s=found.timings_s,
        )

    @router.get("/suggest", summary="Symbols, titles and headings, while a person types")
    async def suggest(parameters: Annotated[SuggestParameters, QueryString()]) -> SuggestResponse:
        check_text(parameters.query, "query", config)
        check_range(k=parameters.k, offset=0, config=config)
        engine = backend.engine
        found = engine.suggest(engine.select(parameters.index), parameters.query, k=parameters.k)
        return SuggestResponse(
            suggestions=[
                Suggested(text=one.text, kind=one.kind, url=url, index=name, is_corrected=one.is_corrected)
                for name, one, url in found
            ]
        )

    return router


def _query(text: str, options: SearchOptions) -> Query:
    return Query(
        text=text,
        k=options.k,
        offset=options.offset,
        mode=options.mode,
        filters=Filters(
            sources=tuple(options.source),
            versions=tuple(options.version),
            languages=tuple(options.language),
            kinds=tuple(options.kind),
            paths=tuple(options.path),
        ),
        group_by=options.group_by,
        facets=options.facets,
        explain=options.explain,
        rerank=options.rerank,
    )


def _content_routes(backend: Backend, config: ServeConfig) -> APIRouter:
    router = APIRouter()

    @router.get("/indexes", summary="What is served, and how old it is")
    async def indexes() -> IndexesResponse:
        return IndexesResponse(indexes=await asyncio.to_thread(index_statuses, backend.engine, config))

    @router.get("/sections/{section_id:path}", summary="A whole section, by the percent-encoded id from a hit")
    async def section(section_id: str) -> SectionResponse:
        index, found = await asyncio.to_thread(backend.engine.section, section_id)
        return SectionResponse(
            section_id=found.section_id,
            source=found.url,
            title=found.title,
            headings=found.headings,
            content=found.text,
            index=index,
        )

    return router


def _health_routes(backend: Backend) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", summary="Is the process alive?")
    async def healthz() -> AliveResponse:
        return AliveResponse()

    @router.get("/readyz", summary="Is every index open, and does a search work?")
    async def readyz() -> ReadyResponse:
        return ReadyResponse(snapshot=await probe(backend))

    return router


@asynccontextmanager
async def _fresh_gauges(backend: Backend, config: ServeConfig) -> AsyncIterator[None]:
    async def keep() -> None:
        while True:
            statuses = await asyncio.to_thread(index_statuses, backend.engine, config)
            record_gauges(statuses, backend.recorder)
            await asyncio.sleep(GAUGE_INTERVAL_S)

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _answers(queries: Sequence[str], found: Findings) -> list[BatchAnswer]:
    return [
        BatchAnswer(
            query=query,
            message=warning,
            confidence=answer.confidence,
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


def _skipped(found: Findings) -> str:
    return f"not searched, because not ready: {', '.join(found.skipped)}" if found.skipped else ""


def _join(*messages: str) -> str:
    return "; ".join(message for message in messages if message)


def _describe_limits(config: ServeConfig) -> str:
    return (
        f"Limits of this service: k up to {config.max_k}, offset up to {config.max_offset}, queries up to "
        f"{config.max_query_chars} characters, up to {config.max_batch} queries in one POST.\n\n"
        'Every error has the body `{"error": {"type", "message", "field", "request_id"}}`.'
    )
