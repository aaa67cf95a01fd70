"""The Ray side of the units of work: tasks and two actors, a few lines each; receipts come back, never data.

Bodies travel once, from the fetcher that owns the host to the task that reads them, through Ray's object store.
"""

import asyncio
import functools
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import ray

from raydex.build.embedding import embed_units, first_missing, missing_vectors
from raydex.build.fetching import UnitFetcher
from raydex.build.gate.run import run_gate
from raydex.build.gate.verdict import Verdict
from raydex.build.items import DuplicatesReceipt, drop_duplicates
from raydex.build.lexicon import index_words
from raydex.build.loading import Loaded, load_pages
from raydex.build.reading import read_unit
from raydex.build.shuffle import Closing, Shuffle, close_shards, shard_unit, shuffle_units
from raydex.build.units import BuildContext, CrawlReceipt, EmbedReceipt, Fetched, FetchUnit
from raydex.checkpoint import VectorStore, full_disk_named
from raydex.crawl import Credentials, Discovery, Fetcher, RobotsRules, SeedAddresses, discover
from raydex.embed import Embedder, TextTokenizer, load_embedder, load_tokenizer
from raydex.errors import EmbedError
from raydex.evaluate import Golden
from raydex.records import EmbedderInfo, Lexical, Manifest, Shard
from raydex.render import Renderer
from raydex.tracing import Measured, Stretch, measured
from utils.logs import LogFormat, configure_logging, log_fields

Result = TypeVar("Result")

WORKER_DEATHS = 3
"""A unit is tried again this often when its process dies; its result does not depend on the try."""

READER_DEATHS = 1
"""A unit of pages: once more at once, then page by page (pipeline.py), to find the one that kills its reader."""

FETCHER_SLOTS = 0.25
"""Processors a fetcher asks Ray for: it mostly waits for sites."""


@functools.cache
def _tokenizer(model: str) -> TextTokenizer:
    return load_tokenizer(model)


@functools.lru_cache(maxsize=1)  # a worker may serve builds with different settings, one after another
def _log_as(kind: LogFormat) -> None:
    configure_logging(kind=kind)


@contextmanager
def _of_build(context: BuildContext) -> Iterator[None]:
    """Let log lines within say which build they are of."""
    _log_as(context.config.telemetry.log_format)
    with log_fields(build_id=context.build_id, index=context.config.index):
        yield


def _done(context: BuildContext, name: str, work: Callable[[], Result]) -> Measured[Result]:
    with _of_build(context):
        return measured(name, work)


@ray.remote(max_retries=READER_DEATHS)
def read_task(context: BuildContext, unit: FetchUnit, fetched: Sequence[Fetched]) -> Measured[CrawlReceipt]:
    tokenizer = _tokenizer(context.config.embed.model)
    done = _done(context, "read", lambda: read_unit(context, unit, fetched, tokenizer))
    fetches = [_fetch(one) for one in fetched if one.started_ns]
    return Measured(done.result, (*fetches, *done.stretches))


def _fetch(fetched: Fetched) -> Stretch:
    ended_ns = fetched.started_ns + int(fetched.seconds * 1e9)
    facts = {"raydex.url": fetched.visit.url, "raydex.origin": fetched.origin, "raydex.reason": fetched.reason}
    return Stretch("fetch", fetched.started_ns, ended_ns, facts)


@ray.remote(num_cpus=FETCHER_SLOTS, max_retries=WORKER_DEATHS)
def load_task(context: BuildContext, source_name: str) -> Measured[Loaded]:
    return _done(context, "load", lambda: load_pages(context, source_name))


@ray.remote(num_cpus=FETCHER_SLOTS, max_retries=WORKER_DEATHS)
def duplicates_task(context: BuildContext, unit_ids: Sequence[str]) -> Measured[DuplicatesReceipt]:
    return _done(context, "duplicates", lambda: drop_duplicates(context, unit_ids))


@ray.remote(num_cpus=FETCHER_SLOTS, max_retries=WORKER_DEATHS)
def plan_task(context: BuildContext, unit_ids: Sequence[str]) -> EmbedReceipt:
    return missing_vectors(context, unit_ids, VectorStore(context.vectors_dir, context.embedder.dim))


@ray.remote(max_retries=WORKER_DEATHS)
def shuffle_task(context: BuildContext, shuffle: Shuffle, group: str, unit_ids: Sequence[str]) -> Measured[None]:
    return _done(context, "shuffle", lambda: shuffle_units(context, shuffle, group, unit_ids))


@ray.remote(max_retries=WORKER_DEATHS)
def shard_task(context: BuildContext, shuffle: Shuffle, number: int) -> Measured[Shard]:
    return _done(context, "shard", lambda: shard_unit(context, shuffle, number))


@ray.remote(num_cpus=FETCHER_SLOTS, max_retries=WORKER_DEATHS)
def close_task(context: BuildContext, shuffle: Shuffle, shards: Sequence[Shard]) -> Measured[Closing]:
    return _done(context, "close", lambda: close_shards(context, shuffle, shards))


@ray.remote(max_retries=WORKER_DEATHS)
def words_task(context: BuildContext, shards: Sequence[Shard], parent: Manifest | None) -> Measured[Lexical]:
    with full_disk_named(context.index_dir):
        return _done(context, "words", lambda: index_words(shards, context.objects_dir, context.units_dir, parent))


@ray.remote(num_cpus=FETCHER_SLOTS, max_retries=WORKER_DEATHS)
def culprit_task(context: BuildContext, unit_id: str) -> str:
    return first_missing(context, unit_id, VectorStore(context.vectors_dir, context.embedder.dim))


@dataclass(frozen=True, slots=True)
class Access:
    """What a fetcher may use and reach: secrets by source, and the addresses of the seeds."""

    credentials: Mapping[str, Credentials]
    seed_addresses: SeedAddresses


class FetchWorker:
    """Owns hosts: every request to them goes through this process and its one event loop."""

    def __init__(self, context: BuildContext, access: Access) -> None:
        self._context, self._access = context, access
        self._closing = AsyncExitStack()
        self._fetcher: Fetcher | None = None
        self._renderer: Renderer | None = None
        self._starting = asyncio.Lock()

    async def fetch(self, unit: FetchUnit) -> tuple[Fetched, ...]:
        with _of_build(self._context):
            renderer = await self._browser() if unit.renders else None
            return await UnitFetcher(self._context, await self._network(), renderer).fetch(unit)

    async def robots(self, origin: str) -> RobotsRules:
        return await (await self._network()).robots(origin)

    async def discover(self, source_name: str) -> Discovery:
        return await discover(await self._network(), self._context.source(source_name), self._context.config.crawl)

    async def pace(self) -> dict[str, Any]:
        return {origin: asdict(stats) for origin, stats in (await self._network()).stats().items()}

    async def _network(self) -> Fetcher:
        if self._fetcher is None:  # made here, inside the event loop
            self._fetcher = Fetcher(
                self._context.config.crawl,
                credentials=self._access.credentials,
                addresses=self._access.seed_addresses,
            )
            await self._closing.enter_async_context(self._fetcher)
        return self._fetcher

    async def _browser(self) -> Renderer:
        async with self._starting:  # one browser, whoever asks first
            if self._renderer is None:
                crawl = self._context.config.crawl
                renderer = Renderer(
                    (await self._network()).resource, timeout_s=crawl.timeout_s, max_body_bytes=crawl.max_body_bytes
                )
                self._renderer = await self._closing.enter_async_context(renderer)
        return self._renderer


class EmbedWorker:
    """Loads the model once and embeds unit after unit; at the end it runs the gate, for which it has all at hand."""

    def __init__(self, context: BuildContext, threads: int) -> None:
        self._context, self._threads = context, threads
        self._store = VectorStore(context.vectors_dir, context.embedder.dim)

    def embed(self, unit_ids: Sequence[str]) -> Measured[EmbedReceipt]:
        return self._embedded(unit_ids)

    def embed_one_by_one(self, unit_id: str) -> Measured[EmbedReceipt]:
        """Embed and store chunk by chunk: what is missing first when this process dies has killed it."""
        return self._embedded([unit_id], checkpoint_tokens=1)

    def _embedded(self, unit_ids: Sequence[str], *, checkpoint_tokens: int = 0) -> Measured[EmbedReceipt]:
        return _done(
            self._context,
            "embed",
            lambda: embed_units(
                self._context, unit_ids, self._embedder, self._store, checkpoint_tokens=checkpoint_tokens
            ),
        )

    def gate(self, snapshot_id: str, golden: Golden | None) -> Verdict:
        config = self._context.config
        with _of_build(self._context):
            return run_gate(
                self._context.index_dir,
                snapshot_id,
                self._embedder,
                config.gate,
                golden,
                least_recall=config.vectors.least_recall,
            )

    def ready(self) -> None:
        """Load the model; EmbedError when it cannot be loaded here, or is not the one the build began with."""
        found = self._embedder.info
        if found.fingerprint != self._context.embedder.fingerprint:
            raise EmbedError(
                f"{platform.node()}: {_told(found)}; the build began with {_told(self._context.embedder)}. "
                "Give every node the same model, and name a --backend that all of them can run alike."
            )

    @functools.cached_property
    def _embedder(self) -> Embedder:
        embed = self._context.config.embed
        return load_embedder(
            embed.model,
            backend=self._context.embedder.backend,
            threads=self._threads,
            batch_tokens=embed.batch_tokens,
        )


def _told(info: EmbedderInfo) -> str:
    return f"{info.name} (weights {info.sha256[:12]}, {info.backend} {info.precision})"


ALWAYS = -1
"""Actors start again on whatever node there is; it is the unit that is given up, when its actor dies each time."""

ACTOR_TRIES = 30
"""Ray counts each second for which it does not know yet that the node of an actor is gone (about 15 s) as a try."""

EmbedActor: Any = ray.remote(max_restarts=ALWAYS, max_task_retries=ACTOR_TRIES)(EmbedWorker)
FetchActor: Any = ray.remote(max_restarts=ALWAYS, max_task_retries=ACTOR_TRIES)(FetchWorker)
