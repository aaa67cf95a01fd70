"""GET /search, the route that must be fast: query string → checks → kept, shared or computed answer → bytes.

What is well formed never meets FastAPI: the query string is read by msgspec with the types of SearchParameters, and the
answer is sent as it was encoded. What is not goes to FastAPI's own route, which says what is wrong with it.
"""

import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Annotated, Any, get_origin
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from pydantic import BaseModel
from starlette._utils import get_route_path
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from raydex.config import ServeConfig
from raydex.records import Filters, Query, Vectors
from raydex.serve.access import allowed_indexes
from raydex.serve.answers import Answer, Answers, encode
from raydex.serve.deadlines import Deadline
from raydex.serve.insights import Insights
from raydex.serve.queries import (
    Backend,
    check_range,
    check_text,
    check_values,
    describe,
    record,
    select_allowed,
    skipped_names,
    snapshot_ids,
    warning,
)
from raydex.serve.schemas import SearchOptions, SearchParameters
from raydex.tracing import stage_times


def struct_of(model: type[BaseModel]) -> type[msgspec.Struct]:
    """Return a msgspec type that takes what a model of plain fields takes, and no more."""
    fields = []
    for name, field in model.model_fields.items():
        limits = {key: getattr(limit, key) for limit in field.metadata for key in ("ge", "le") if hasattr(limit, key)}
        kind: Any = Annotated[field.annotation, msgspec.Meta(**limits)] if limits else field.annotation
        is_list = get_origin(field.annotation) is list
        fields.append((name, kind) if field.is_required() else (name, kind, [] if is_list else field.default))
    return msgspec.defstruct(model.__name__, fields, forbid_unknown_fields=True, kw_only=True, frozen=True)


READ_BY_MSGSPEC = struct_of(SearchParameters)
LISTS = frozenset(name for name, field in SearchParameters.model_fields.items() if get_origin(field.annotation) is list)


def read(query_string: bytes) -> Any:
    """Return the parameters, or None for what only FastAPI can read or refuse."""
    values: dict[str, Any] = {}
    try:
        for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
            if name in LISTS:
                values.setdefault(name, []).append(value)
            elif name in values:
                return None
            else:
                values[name] = value
        return msgspec.convert(values, READ_BY_MSGSPEC, strict=False)
    except ValueError:  # msgspec's own is one too
        return None


def check_options(options: SearchOptions, config: ServeConfig) -> Deadline:
    """Return until when the answer must be there; raise QueryError for what is beyond a limit."""
    check_range(k=options.k, offset=options.offset, config=config)
    for name in LISTS:
        check_values(getattr(options, name), name, config)
    return Deadline.of(options.timeout_ms, config.limits)


class Searching:
    """Answers single searches of one app. Its answers are kept and shared; see answers.py."""

    def __init__(self, backend: Backend, config: ServeConfig, insights: Insights) -> None:
        self._backend, self._config, self._insights = backend, config, insights
        self.answers = Answers(config.cache_mb * 1_000_000)
        self._served: dict[str, str] = {}

    async def respond(self, parameters: Any, scope: Scope) -> bytes:
        """Return the body of the response, as schemas.SearchResponse describes it. scope: of who asks."""
        started, config, engine = time.perf_counter(), self._config, self._backend.engine
        allowed = allowed_indexes(scope)
        check_text(parameters.query, "query", config)
        deadline = check_options(parameters, config)
        indexes = select_allowed(engine, parameters.index, allowed)
        skipped = () if parameters.index else skipped_names(engine, allowed)
        query, ids, times = query_of(parameters.query, parameters), snapshot_ids(indexes), stage_times()
        validated = time.perf_counter()

        def work(vector: Vectors | None) -> Answer:
            if vector is not None:
                times.add("embed", time.perf_counter() - validated)
            rows = None if vector is None else vector[np.newaxis]
            search = partial(engine.find, before_each=deadline.check, seconds_left=deadline.seconds_left)
            found = search(indexes, [query], rows, times=times)[0]
            if found.fell_through:
                self._backend.recorder.count("raydex_rerank_fall_through", reason=found.fell_through)
            told = (found.message, warning(engine, indexes, query), skipped_text(skipped))
            encoding = time.perf_counter()
            answer = encode(found, message=join(*told), snapshot=ids)
            times.add("serialise", time.perf_counter() - encoding)
            return answer

        def make() -> Awaitable[Answer]:
            self._give_up_unserved()
            times.add("validate", validated - started)
            return self._backend.run(item, work)

        item = None if query.mode == "lexical" else (indexes[0].model_id, query.text)
        key = (tuple(ids.items()), skipped, query)
        describe(config, [query], ids)
        async with deadline.kept():
            answer, origin = await self.answers.get(key, make)
        times.add("total", time.perf_counter() - started)
        record(self._backend.recorder, [answer.outcome], times)
        self._backend.recorder.count("raydex_answers", origin=origin)
        if not query.offset:  # a further page is no further search
            self._insights.searched(scope, query.text, list(ids), results=answer.outcome.hits, best=answer.best)
        return answer.with_timings(times.seconds)

    def _give_up_unserved(self) -> None:
        """Free the answers of snapshots that have been swapped since the last search: no key names those again."""
        served = snapshot_ids(list(self._backend.engine.indexes.values()))
        if served != self._served:
            self._served = served
            self.answers.give_up(lambda key: any(served.get(name) != kept for name, kept in key[0]))


class SearchRoute(BaseRoute):
    """GET /search for what `read` can read; whatever it cannot, the next route of that path is asked."""

    path, key = "/search", "raydex.parameters"

    def __init__(self, searching: Searching) -> None:
        self.searching = searching

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "GET" and get_route_path(scope) == self.path:
            parameters = read(scope["query_string"])
            if parameters is not None:
                return Match.FULL, {"route": self, self.key: parameters}
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self.searching.respond(scope[self.key], scope)
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def query_of(text: str, options: SearchOptions) -> Query:
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


def skipped_text(skipped: Sequence[str]) -> str:
    return f"not searched, because not ready: {', '.join(skipped)}" if skipped else ""


def join(*messages: str) -> str:
    return "; ".join(message for message in messages if message)
