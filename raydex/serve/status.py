"""What is served and how old it is: the rows of GET /indexes, and the same figures as gauges.

Engine, checkpoints/<index>/CURRENT, …/builds/*/report.json, …/last_build.json  →  IndexStatus
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from raydex.config import ServeConfig
from raydex.errors import SnapshotError
from raydex.serve.engine import Engine, OpenIndex
from raydex.serve.recorder import Recorder
from raydex.serve.schemas import IndexStatus, LastBuild, LastRun
from raydex.snapshot import snapshot_bytes

logger = logging.getLogger(__name__)

Row = TypeVar("Row", bound=BaseModel)


def index_statuses(engine: Engine, config: ServeConfig) -> list[IndexStatus]:
    """Return one row for each index the service was asked to serve, open or not."""
    return [_status(engine, config, name) for name in engine.names]


def last_build(index_dir: Path) -> LastBuild | None:
    """Return the report of the build that finished last; None when there is none that can be read."""
    newest_first = sorted(index_dir.glob("builds/*/report.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((report for path in newest_first if (report := _read(LastBuild, path))), None)


def last_run(index_dir: Path) -> LastRun | None:
    """Return what became of the newest run, also of one that built nothing; None when nobody says so."""
    path = index_dir / "last_build.json"
    return _read(LastRun, path) if path.exists() else None


def record_gauges(statuses: Sequence[IndexStatus], recorder: Recorder) -> None:
    for status in statuses:
        if status.ready:
            recorder.set("raydex_snapshot_age_seconds", status.age_s, index=status.name)
            recorder.set("raydex_snapshot_chunks", status.chunks, index=status.name)
            recorder.set("raydex_snapshot_bytes", status.bytes, index=status.name)
            recorder.set("raydex_shards", status.shards, index=status.name)
            recorder.set("raydex_shards_ok", status.shards_ok, index=status.name)
        if status.last_build:
            _record_build(status.name, status.last_build, recorder)
        if status.last_run:
            _record_run(status.name, status.last_run, recorder)


def reason_text(message: str, config: ServeConfig) -> str:
    """Return what an error says as callers read it: indexes are named, the folder they lie in is not."""
    return message.replace(f"{config.folder}/", "").replace(f"{config.data_dir}/", "")


def _record_build(index: str, build: LastBuild, recorder: Recorder) -> None:
    for outcome, pages in build.pages.items():
        recorder.set("raydex_last_build_pages", pages, index=index, outcome=outcome)
    for origin, chunks in build.chunks.items():
        recorder.set("raydex_last_build_chunks", chunks, index=index, origin=origin)
    recorder.set("raydex_last_build_tokens", build.tokens_embedded, index=index, origin="embedded")
    recorder.set("raydex_last_build_tokens", build.tokens_reused, index=index, origin="reused")
    recorder.set("raydex_last_build_bytes", build.downloaded_bytes, index=index)
    for check, is_passed in build.gate.items():
        recorder.set("raydex_last_build_gate", float(is_passed), index=index, check=check)
    for stage, seconds in build.timings_s.items():
        recorder.set("raydex_last_build_seconds", seconds, index=index, stage=stage)


def _record_run(index: str, run: LastRun, recorder: Recorder) -> None:
    recorder.set("raydex_last_run_failures", run.failures_in_a_row, index=index)
    recorder.set("raydex_last_run_exit_code", run.exit_code, index=index)
    recorder.set("raydex_last_run_seconds", run.seconds, index=index)
    if run.last_success_at:
        recorder.set("raydex_last_success_timestamp_seconds", run.last_success_at.timestamp(), index=index)


def _status(engine: Engine, config: ServeConfig, name: str) -> IndexStatus:
    index_dir, table = config.folder / name, engine.table
    index = table.indexes.get(name)
    status = IndexStatus(
        name=name,
        ready=index is not None,
        current_snapshot_id=engine.published_id(name),
        last_build=last_build(index_dir),
        last_run=last_run(index_dir),
    )
    if index is None:
        reason = table.reasons.get(name, SnapshotError("it has just been removed"))
        return status.model_copy(update={"reason": reason_text(str(reason), config)})
    refused_id, reason_of_refusal = table.refused.get(name, ("", ""))
    is_due = status.current_snapshot_id not in {index.manifest.snapshot_id, refused_id, ""}
    facts = {
        "refused_snapshot_id": refused_id,
        "reason": reason_text(reason_of_refusal, config),
        "stale": is_due,
        **_figures(index),
    }
    return status.model_copy(update=facts)


def _figures(index: OpenIndex) -> dict[str, object]:
    manifest = index.manifest
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created_at)
    return {
        "snapshot_id": manifest.snapshot_id,
        "created_at": manifest.created_at,
        "age_s": round(age.total_seconds(), 3),
        "pages": sum(shard.page_count for shard in manifest.shards),
        "sections": sum(shard.section_count for shard in manifest.shards),
        "chunks": sum(shard.chunk_count for shard in manifest.shards),
        "shards": len(manifest.shards),
        "shards_ok": index.searcher.holdings.shards_ok,
        "bytes": snapshot_bytes(manifest),
        "model": manifest.embedder.name,
    }


def _read(kind: type[Row], path: Path) -> Row | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        logger.warning("build report not readable path=%s reason=%s", path, error)
        return None
