"""The Ray side of the units of work: three tasks and an actor, a few lines each; receipts come back, never data."""

import functools
import platform
from typing import Any

import ray

from raydex.build.gate import run_gate
from raydex.build.units import (
    BuildContext,
    CrawlReceipt,
    CrawlUnit,
    EmbedReceipt,
    crawl_unit,
    embed_unit,
    shard_unit,
)
from raydex.checkpoint import VectorStore
from raydex.config import CrawlConfig
from raydex.crawl import Fetcher, RobotsRules, fetch_robots
from raydex.embed import Embedder, TextTokenizer, load_embedder, load_tokenizer
from raydex.errors import EmbedError
from raydex.records import Shard

WORKER_DEATHS = 3
"""A unit is tried again this often when its process dies; its result does not depend on the try."""


TASK_SLOTS = 0.25
"""Processors a task asks Ray for. Crawl tasks mostly wait for the site; and on one processor, half of which belongs to
the embedder, everything must still find room."""


@functools.cache
def _tokenizer(model: str) -> TextTokenizer:
    return load_tokenizer(model)


@ray.remote(num_cpus=TASK_SLOTS, max_retries=WORKER_DEATHS)
def robots_task(config: CrawlConfig, host: str) -> RobotsRules:
    with Fetcher(config) as fetcher:
        return fetch_robots(fetcher, host)


@ray.remote(num_cpus=TASK_SLOTS, max_retries=WORKER_DEATHS)
def crawl_task(context: BuildContext, unit: CrawlUnit) -> CrawlReceipt:
    return crawl_unit(context, unit, _tokenizer(context.config.embed.model))


@ray.remote(num_cpus=TASK_SLOTS, max_retries=WORKER_DEATHS)
def shard_task(context: BuildContext, number: int, shards: int, unit_ids: tuple[str, ...]) -> Shard:
    return shard_unit(context, number, shards, unit_ids)


class EmbedWorker:
    """Loads the model once and embeds unit after unit; at the end it runs the gate, for which it has all at hand."""

    def __init__(self, context: BuildContext, threads: int) -> None:
        self._context, self._threads = context, threads
        folder = context.index_dir / "vectors" / context.embedder.fingerprint[:16]
        self._store = VectorStore(folder, context.embedder.dim)

    def embed(self, unit_id: str) -> EmbedReceipt:
        return embed_unit(self._context, unit_id, self._embedder, self._store)

    def gate(self, snapshot_id: str) -> tuple[dict[str, str], tuple[str, ...]]:
        return run_gate(self._context, snapshot_id, self._embedder)

    def ready(self) -> None:
        """Load the model; EmbedError when it cannot be loaded here, or is not the one the build began with."""
        found = self._embedder.info
        if found.fingerprint != self._context.embedder.fingerprint:
            raise EmbedError(
                f"{platform.node()}: the model {found.name!r} has weights {found.sha256[:12]}, the build began with "
                f"{self._context.embedder.sha256[:12]}. Give every node the same model."
            )

    @functools.cached_property
    def _embedder(self) -> Embedder:
        embed = self._context.config.embed
        return load_embedder(embed.model, threads=self._threads, batch_size=embed.batch_size)


EmbedActor: Any = ray.remote(max_restarts=WORKER_DEATHS, max_task_retries=WORKER_DEATHS)(EmbedWorker)
