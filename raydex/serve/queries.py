"""From checked texts to hits with their stage times: what both search routes share. No HTTP, no Ray.

[Query, …] → check → embed (batched by the backend) → search (in a thread) → Findings
"""

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from raydex.config import ServeConfig
from raydex.errors import QueryError, SnapshotError
from raydex.records import Found, Query, StageTimes, Vectors
from raydex.serve.deadlines import Deadline
from raydex.serve.engine import PROBE, Engine, OpenIndex
from raydex.serve.recorder import Recorder
from raydex.serve.swapping import Council, SwapCouncil

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
"""Control characters but tab and line ends, halves of surrogate pairs, and U+FFFD."""


class Backend(Protocol):
    """What the routes stand on: the Ray deployment, or DirectBackend."""

    engine: Engine
    recorder: Recorder
    swaps: SwapCouncil

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors: ...


class DirectBackend:
    """Serves from this process alone, for tests and small uses; queries of different requests are not batched."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self.engine = engine
        self.recorder = recorder
        self.swaps: SwapCouncil = Council(engine.config)

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        return await asyncio.to_thread(self.engine.embed, model_id, texts)


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


async def find(backend: Backend, queries: Sequence[Query], *, names: Sequence[str], deadline: Deadline) -> Findings:
    """Answer the queries, all of one mode, from one set of snapshots.

    Raises DeadlineExceeded when not all are answered in time, and what Engine.select raises.
    """
    engine, times, started = backend.engine, StageTimes(), time.perf_counter()
    indexes = engine.select(names)
    model_id = indexes[0].model_id
    texts = [query.text for query in queries]
    vectors = None
    async with deadline.kept():
        if any(query.mode != "lexical" for query in queries):
            vectors = await backend.embed(model_id, texts)
            times.add("embed", time.perf_counter() - started)
        search = partial(engine.find, times=times, before_each=deadline.check, seconds_left=deadline.seconds_left)
        found = await asyncio.to_thread(search, indexes, queries, vectors)
    times.add("total", time.perf_counter() - started)
    _record(backend.recorder, found, times)
    return Findings(
        found=found,
        warnings=[
            "; ".join(filter(None, (answer.message, _warning(engine, indexes, query))))
            for query, answer in zip(queries, found, strict=True)
        ],
        skipped=() if names else tuple(engine.reasons),
        snapshot=_snapshot_ids(indexes),
        timings_s={stage: round(seconds, 6) for stage, seconds in times.seconds.items()},
    )


def _warning(engine: Engine, indexes: Sequence[OpenIndex], query: Query) -> str:
    """Return what the caller must know of the answer: what the model did not read, which index has no words."""
    if query.mode == "lexical":
        return ""
    without = [index.name for index in indexes if index.searcher.lexical is None and query.mode == "hybrid"]
    told = f"no lexical index, searched by meaning alone: {', '.join(without)}" if without else ""
    return "; ".join(filter(None, (engine.length_warning(indexes[0].model_id, query.text), told)))


async def probe(backend: Backend) -> dict[str, str]:
    """Search every index once; return index → snapshot_id. Raises SnapshotError with every reason against it."""
    engine, table = backend.engine, backend.engine.table
    if table.reasons:
        raise SnapshotError("; ".join(str(reason) for reason in table.reasons.values()))
    indexes = list(table.indexes.values()) or engine.select()
    for index in indexes:
        vectors = await backend.embed(index.model_id, [PROBE])
        query = Query(text=PROBE, k=1, rerank=False)
        await asyncio.to_thread(engine.find, [index], [query], vectors, times=StageTimes())
    return _snapshot_ids(indexes)


def _snapshot_ids(indexes: Sequence[OpenIndex]) -> dict[str, str]:
    return {index.name: index.manifest.snapshot_id for index in indexes}


def _record(recorder: Recorder, answers: Sequence[Found], times: StageTimes) -> None:
    for stage, seconds in times.seconds.items():
        recorder.observe("raydex_search_stage_seconds", seconds, stage=stage)
    for found in answers:
        recorder.observe("raydex_results", len(found.hits))
        if not found.hits:
            recorder.count("raydex_zero_result_queries")
        if found.fell_through:
            recorder.count("raydex_rerank_fall_through", reason=found.fell_through)
