"""From checked texts to hits with their stage times: what both search routes share. No HTTP, no Ray.

[Query, …] → check → embed (batched by the backend) → search (in a thread) → Findings
"""

import asyncio
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raydex.config import ServeConfig
from raydex.errors import QueryError, SnapshotError
from raydex.records import Found, Query, StageTimes, Vectors
from raydex.serve.engine import Engine, OpenIndex
from raydex.serve.recorder import Recorder

PROBE = "is the service ready"

READABLE_CONTROLS = frozenset("\t\n\r")


class Backend(Protocol):
    """What the routes stand on: the Ray deployment, or DirectBackend."""

    engine: Engine
    recorder: Recorder

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors: ...


class DirectBackend:
    """Serves from this process alone, for tests and small uses; queries of different requests are not batched."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self.engine = engine
        self.recorder = recorder

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
    if len(text) > config.max_query_chars:
        raise QueryError(field, f"has {len(text)} characters, at most {config.max_query_chars} are taken")
    for position, character in enumerate(text):
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in READABLE_CONTROLS:
            raise QueryError(field, f"holds the control character U+{ord(character):04X} at position {position}")
        if character == "\ufffd":  # what decoders put where the bytes were not UTF-8
            raise QueryError(field, f"is not valid UTF-8 at position {position}")


def check_range(*, k: int, offset: int, config: ServeConfig) -> None:
    if k > config.max_k:
        raise QueryError("k", f"is {k}, allowed are 1 to {config.max_k}")
    if offset > config.max_offset:
        raise QueryError("offset", f"is {offset}, allowed are 0 to {config.max_offset}")


async def find(backend: Backend, queries: Sequence[Query], *, names: Sequence[str]) -> Findings:
    """Answer the queries, all of one mode, from one set of snapshots; errors as Engine.select raises them."""
    engine, times, started = backend.engine, StageTimes(), time.perf_counter()
    indexes = engine.select(names)
    model_id = indexes[0].model_id
    texts = [query.text for query in queries]
    vectors = None
    if any(query.mode != "lexical" for query in queries):
        vectors = await backend.embed(model_id, texts)
        times.add("embed", time.perf_counter() - started)
    found = await asyncio.to_thread(engine.find, indexes, queries, vectors, times=times)
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
    engine = backend.engine
    if engine.reasons:
        raise SnapshotError("; ".join(str(reason) for reason in engine.reasons.values()))
    for index in engine.indexes.values() or engine.select():
        vectors = await backend.embed(index.model_id, [PROBE])
        await asyncio.to_thread(
            engine.find, [index], [Query(text=PROBE, k=1, rerank=False)], vectors, times=StageTimes()
        )
    return _snapshot_ids(list(engine.indexes.values()))


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
