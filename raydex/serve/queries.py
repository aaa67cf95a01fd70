"""From checked texts to hits with their stage times: what both search routes share. No HTTP, no Ray.

[Query, …] → check → embed (batched by the backend) → search (in a thread) → Findings
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from raydex.config import ServeConfig
from raydex.errors import IndexNotFound, QueryError, SnapshotError
from raydex.records import Found, Query, StageTimes, Vectors
from raydex.serve.answers import Outcome
from raydex.serve.deadlines import Deadline
from raydex.serve.engine import PROBE, Engine, OpenIndex
from raydex.serve.recent import Window
from raydex.serve.recorder import Recorder
from raydex.serve.swapping import Council, SwapCouncil
from raydex.tracing import request_trace, stage_times
from utils.logs import add_log_fields

Result = TypeVar("Result")

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
"""Control characters but tab and line ends, halves of surrogate pairs, and U+FFFD."""


class Backend(Protocol):
    """What the routes stand on: the Ray deployment, or DirectBackend."""

    name: str
    engine: Engine
    recorder: Recorder
    swaps: SwapCouncil

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors: ...

    async def run(self, item: tuple[str, str] | None, work: Callable[[Vectors | None], Result]) -> Result:
        """Return what work makes of the vector of item, (model_id, text), in a thread; without item, of None."""

    async def canary_window(self) -> Window | None:
        """Return the canary's last half hour; None without a canary, or while it cannot be reached."""


class DirectBackend:
    """Serves from this process alone, for tests and small uses; queries of different requests are not batched."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self.name = ""
        self.engine = engine
        self.recorder = recorder
        self.swaps: SwapCouncil = Council(engine.config)

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        return await asyncio.to_thread(self.engine.embed, model_id, texts)

    async def run(self, item: tuple[str, str] | None, work: Callable[[Vectors | None], Result]) -> Result:
        vector = (await self.embed(item[0], [item[1]]))[0] if item else None
        return await asyncio.to_thread(work, vector)

    async def canary_window(self) -> Window | None:
        return None


@dataclass(frozen=True, slots=True)
class Findings:
    """found and warnings: one entry for each query; skipped: served indexes that were not ready and not asked."""

    found: list[Found]
    warnings: list[str]
    skipped: tuple[str, ...]
    snapshot: dict[str, str]
    timings_s: dict[str, float]


def check_text(text: str, field: str, config: ServeConfig) -> None:
    """Raise QueryError naming the field when a query cannot be meant."""
    if not text.strip():
        raise QueryError(field, "is empty; ask something")
    check_characters(text, field, config)


def check_characters(text: str, field: str, config: ServeConfig) -> None:
    if len(text) > config.max_query_chars:
        limit = f"at most {config.max_query_chars} are taken (max_query_chars)"
        raise QueryError(field, f"has {len(text)} characters, {limit}")
    if found := _NO_TEXT.search(text):
        if found[0] == "\ufffd":  # what decoders put where the bytes were not UTF-8
            raise QueryError(field, f"is not valid UTF-8 at position {found.start()}")
        raise QueryError(field, f"holds the control character U+{ord(found[0]):04X} at position {found.start()}")


def check_values(values: Sequence[str], field: str, config: ServeConfig) -> None:
    """Check the values of a filter, or the names of indexes; they are echoed in errors, so any text will not do."""
    if len(values) > config.limits.max_values:
        raise QueryError(field, f"has {len(values)} values, at most {config.limits.max_values} are taken (max_values)")
    for position, value in enumerate(values):
        check_characters(value, f"{field}[{position}]", config)


def check_range(*, k: int, offset: int, config: ServeConfig) -> None:
    if k > config.max_k:
        raise QueryError("k", f"is {_shown(k)}, allowed are 1 to {config.max_k} (max_k)")
    if offset > config.max_offset:
        raise QueryError("offset", f"is {_shown(offset)}, allowed are 0 to {config.max_offset} (max_offset)")


def _shown(number: int) -> str:
    """Return a number as it may be echoed; one of thousands of digits does not even turn into text."""
    return str(number) if number.bit_length() < 64 else "beyond 64 bits"


def select_allowed(engine: Engine, names: Sequence[str], allowed: frozenset[str] | None) -> list[OpenIndex]:
    """Return the indexes as Engine.select does, as if those that are not allowed did not exist. None allows all."""
    if allowed is None:
        return engine.select(names)
    visible = visible_names(engine, allowed)
    if hidden := [name for name in names or ([] if visible else sorted(allowed)) if name not in visible]:
        raise IndexNotFound(hidden[0], visible)
    return engine.select(names or [name for name in visible if name in engine.indexes] or visible)


def visible_names(engine: Engine, allowed: frozenset[str] | None) -> tuple[str, ...]:
    return tuple(name for name in engine.names if allowed is None or name in allowed)


def skipped_names(engine: Engine, allowed: frozenset[str] | None) -> tuple[str, ...]:
    """Return the served indexes that are not open, as far as they may be named."""
    return tuple(name for name in engine.reasons if allowed is None or name in allowed)


async def find(
    backend: Backend,
    queries: Sequence[Query],
    *,
    names: Sequence[str],
    allowed: frozenset[str] | None = None,
    deadline: Deadline,
) -> Findings:
    """Answer the queries, all of one mode, from one set of snapshots.

    Raises DeadlineExceeded when not all are answered in time, and what select_allowed raises.
    """
    engine, times, started = backend.engine, stage_times(), time.perf_counter()
    indexes = select_allowed(engine, names, allowed)
    describe(engine.config, queries, snapshot_ids(indexes))
    model_id = indexes[0].model_id
    texts = [query.text for query in queries]
    vectors = None
    times.add("validate", (validated := time.perf_counter()) - started)
    async with deadline.kept():
        if any(query.mode != "lexical" for query in queries):
            vectors = await backend.embed(model_id, texts)
            times.add("embed", time.perf_counter() - validated)
        search = partial(engine.find, times=times, before_each=deadline.check, seconds_left=deadline.seconds_left)
        found = await asyncio.to_thread(search, indexes, queries, vectors)
    times.add("total", time.perf_counter() - started)
    record(backend.recorder, [Outcome.of(answer) for answer in found], times)
    for reason in filter(None, (answer.fell_through for answer in found)):
        backend.recorder.count("raydex_rerank_fall_through", reason=reason)
    return Findings(
        found=found,
        warnings=[
            "; ".join(filter(None, (answer.message, warning(engine, indexes, query))))
            for query, answer in zip(queries, found, strict=True)
        ],
        skipped=() if names else skipped_names(engine, allowed),
        snapshot=snapshot_ids(indexes),
        timings_s={stage: round(seconds, 6) for stage, seconds in times.seconds.items()},
    )


def warning(engine: Engine, indexes: Sequence[OpenIndex], query: Query) -> str:
    """Return what the caller must know of the answer: what the model did not read, which index has no words."""
    if query.mode == "lexical":
        return ""
    without = [index.name for index in indexes if index.searcher.lexical is None and query.mode == "hybrid"]
    told = f"no lexical index, searched by meaning alone: {', '.join(without)}" if without else ""
    return "; ".join(filter(None, (engine.length_warning(indexes[0].model_id, query.text), told)))


async def probe(backend: Backend, allowed: frozenset[str] | None = None) -> dict[str, str]:
    """Search every index once; return index → snapshot_id. Raises SnapshotError with every reason against it.

    allowed: the indexes that may be named; the others are probed all the same.
    """
    engine, table = backend.engine, backend.engine.table
    if table.reasons:
        told = [str(reason) for name, reason in table.reasons.items() if allowed is None or name in allowed]
        raise SnapshotError("; ".join(told) or "an index is not open")
    indexes = list(table.indexes.values()) or engine.select()
    for index in indexes:
        vectors = await backend.embed(index.model_id, [PROBE])
        query = Query(text=PROBE, k=1, rerank=False)
        await asyncio.to_thread(engine.find, [index], [query], vectors, times=StageTimes())
    return snapshot_ids([index for index in indexes if allowed is None or index.name in allowed])


def snapshot_ids(indexes: Sequence[OpenIndex]) -> dict[str, str]:
    return {index.name: index.manifest.snapshot_id for index in indexes}


def describe(config: ServeConfig, queries: Sequence[Query], snapshots: Mapping[str, str]) -> None:
    """Tell the log lines and the trace of the request, if there is one, what is searched.

    The texts go into the trace alone, and only where the settings say so.
    """
    served = ",".join(f"{name}:{snapshot_id}" for name, snapshot_id in snapshots.items())
    add_log_fields(snapshots=served)
    if trace := request_trace():
        trace.facts |= {
            "raydex.mode": queries[0].mode,
            "raydex.k": queries[0].k,
            "raydex.queries": len(queries),
            "raydex.snapshots": served,
        }
        if config.telemetry.trace_queries:
            trace.facts["raydex.query"] = "\n".join(query.text for query in queries)


def record(recorder: Recorder, outcomes: Sequence[Outcome], times: StageTimes) -> None:
    """outcomes: of each query."""
    for stage, seconds in times.seconds.items():
        recorder.observe("raydex_search_stage_seconds", seconds, stage=stage)
    for outcome in outcomes:
        recorder.observe("raydex_results", outcome.hits)
        if outcome.is_partial:
            recorder.count("raydex_partial_answers")
            if trace := request_trace():
                trace.facts["raydex.partial"] = True
                trace.keep()
        if not outcome.hits:
            recorder.count("raydex_zero_result_queries")
        if outcome.confidence is not None:
            recorder.observe("raydex_confidence", outcome.confidence)
        if outcome.top_score is not None:
            recorder.observe("raydex_top_score", outcome.top_score)
