"""Keeps crawl tasks and embedder actors busy, bounded in flight; every finished unit goes into the ledger.

    levels of visits → crawl tasks (per host) → embedder actors → shard tasks

The driver holds receipts, never pages, chunks or vectors.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayTaskError

from raydex.build.progress import BuildMetrics, Display, Status
from raydex.build.units import (
    BuildContext,
    CrawlReceipt,
    CrawlUnit,
    EmbedReceipt,
    load_crawl_receipt,
)
from raydex.build.workers import EmbedActor, crawl_task, shard_task
from raydex.checkpoint import Ledger
from raydex.crawl import Visit
from raydex.errors import RaydexError
from raydex.records import Shard, StoredObject, stable_id
from utils.urls import origin_of

Ref: TypeAlias = Any
"""ray.ObjectRef; Ray's own annotations cannot say what a task of ours returns."""

REFRESH_S = 0.25
"""How often the display is drawn while nothing finishes."""

MOST_ACTOR_SLOTS = 0.5
"""Processors an actor asks Ray for at most. It uses more; but a service on the same cluster must leave it room."""

UNITS_PER_ACTOR = 2
"""Embed units given to an actor at a time: one in work, one waiting, so that it never idles."""


@dataclass(slots=True)
class InFlight:
    """What runs now: Ray reference → what to do with its result."""

    crawls: dict[Ref, CrawlUnit] = field(default_factory=dict)
    embeds: dict[Ref, int] = field(default_factory=dict)  # → number of the actor
    shards: set[Ref] = field(default_factory=set)
    loads: set[Ref] = field(default_factory=set)

    def refs(self) -> list[Ref]:
        return [*self.crawls, *self.embeds, *self.shards, *self.loads]


class Pipeline:
    """One build's work on the cluster. Finished units of an earlier, killed run are taken from the ledger."""

    def __init__(self, context: BuildContext, ledger: Ledger, status: Status, display: Display) -> None:
        self._context, self._ledger, self._status, self._display = context, ledger, status, display
        self._metrics = BuildMetrics(context.config.index)
        self._shared_context = ray.put(context)
        self._finished = {(line["event"], line.get("unit_id")): line for line in ledger.lines()}
        self._waiting_crawls: dict[str, deque[CrawlUnit]] = defaultdict(deque)
        self._waiting_embeds: deque[str] = deque()
        self._in_flight = InFlight()
        self._receipts: dict[str, CrawlReceipt] = {}  # of the level that is being crawled
        self._contents: dict[str, str] = {}  # unit_id → digest of its content, of all levels
        self._most_crawls = 4 * _processors()
        self.actors = start_actors(context)
        self._in_flight.loads.update(actor.ready.remote() for actor in self.actors)
        status.embedders = len(self.actors)

    def crawl(self, units: Sequence[CrawlUnit]) -> dict[str, CrawlReceipt]:
        """Return the receipts of all these units; embedding of earlier ones goes on meanwhile.

        What a killed run finished is taken from disk, but units with failed pages are tried again.
        """
        self._receipts = {}
        for unit in units:
            self._status.queued_pages += len(unit.visits)
            before = self._crawled_before(unit.unit_id)
            if before and not before.has_failures:
                self._crawled(before, resumed=True)
            else:
                self._waiting_crawls[unit.host].append(unit)
        while len(self._receipts) < len(units):
            self._step()
        return self._receipts

    def embed_all(self) -> None:
        """Wait until every chunk found so far has its vector."""
        while self._waiting_embeds or self._in_flight.embeds:
            self._step()

    def shard(self, shards: int, units: Mapping[str, str]) -> tuple[Shard, ...]:
        """Write all shards; one whose units have the content they had in a killed run is taken from the ledger.

        units: unit_id → digest of its content.
        """
        self._status.shards = shards
        content = stable_id(*units.values())[:12]
        work = {n: f"shard-{n}-of-{shards}-{content}" for n in range(shards)}
        done = {n: self._sharded_before(name) for n, name in work.items()}
        self._status.shards_done = sum(shard is not None for shard in done.values())
        ids = ray.put(tuple(units))
        running = {
            shard_task.remote(self._shared_context, n, shards, ids): n for n, shard in done.items() if shard is None
        }
        self._in_flight.shards.update(running)
        while self._in_flight.shards:
            for ref in self._step():
                shard: Shard = result_of(ref)
                done[running[ref]] = shard
                self._ledger.append("sharded", unit_id=work[running[ref]], shard=asdict(shard))
                self._status.shards_done += 1
        return tuple(shard for shard in done.values() if shard is not None)

    def _crawled_before(self, unit_id: str) -> CrawlReceipt | None:
        return load_crawl_receipt(self._context, unit_id) if ("crawled", unit_id) in self._finished else None

    def _sharded_before(self, unit_id: str) -> Shard | None:
        line = self._finished.get(("sharded", unit_id))
        if line is None:
            return None
        fields: dict[str, Any] = dict(line["shard"])
        objects = {role: StoredObject(**stored) for role, stored in fields.pop("objects").items()}
        whole = all((self._context.objects_dir / stored.sha256).exists() for stored in objects.values())
        return Shard(objects=objects, **fields) if whole else None

    def _step(self) -> list[Ref]:
        """Start what may start, wait for something to finish, take it in; return the finished shard tasks."""
        self._start_crawls()
        self._start_embeds()
        self._display.refresh()
        self._metrics.queued(pages=self._status.queued_pages, embed_units=len(self._waiting_embeds))
        ready, _ = ray.wait(self._in_flight.refs(), num_returns=1, timeout=REFRESH_S)
        finished_shards = []
        for ref in ready:
            if ref in self._in_flight.crawls:
                self._in_flight.crawls.pop(ref)
                self._crawled(result_of(ref), resumed=False)
            elif ref in self._in_flight.embeds:
                self._in_flight.embeds.pop(ref)
                self._embedded(result_of(ref))
            elif ref in self._in_flight.loads:
                self._in_flight.loads.discard(ref)
                result_of(ref)
            else:
                self._in_flight.shards.discard(ref)
                finished_shards.append(ref)
        return finished_shards

    def _start_crawls(self) -> None:
        busy = Counter(unit.host for unit in self._in_flight.crawls.values())
        for host, waiting in self._waiting_crawls.items():
            while waiting and busy[host] < self._most_per_host(waiting[0]):
                if len(self._in_flight.crawls) >= self._most_crawls:
                    return
                unit = waiting.popleft()
                self._in_flight.crawls[crawl_task.remote(self._shared_context, unit)] = unit
                busy[host] += 1

    def _most_per_host(self, unit: CrawlUnit) -> int:
        return 1 if unit.delay_s else self._context.config.crawl.per_host

    def _start_embeds(self) -> None:
        load = Counter(self._in_flight.embeds.values())
        for number, actor in enumerate(self.actors):
            while self._waiting_embeds and load[number] < UNITS_PER_ACTOR:
                self._in_flight.embeds[actor.embed.remote(self._waiting_embeds.popleft())] = number
                load[number] += 1

    def _crawled(self, receipt: CrawlReceipt, *, resumed: bool) -> None:
        self._receipts[receipt.unit_id] = receipt
        self._contents[receipt.unit_id] = receipt.content
        self._status.add_crawled(receipt, resumed=resumed)
        if not resumed:
            self._ledger.append("crawled", unit_id=receipt.unit_id, pages=len(receipt.outcomes))
            self._metrics.crawled(receipt)
        if not receipt.chunk_count:
            return
        embedded = self._finished.get(("embedded", receipt.unit_id))
        if embedded and embedded["content"] == receipt.content:
            self._status.add_embedded(EmbedReceipt(**embedded["receipt"]), resumed=True)
        else:
            self._waiting_embeds.append(receipt.unit_id)

    def _embedded(self, receipt: EmbedReceipt) -> None:
        self._status.add_embedded(receipt, resumed=False)
        self._metrics.embedded(receipt)
        content = self._contents[receipt.unit_id]
        self._ledger.append("embedded", unit_id=receipt.unit_id, content=content, receipt=asdict(receipt))


def result_of(ref: Ref) -> Any:
    """Return what a task returned, or raise the error of ours that ended it, without Ray's wrapping."""
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, RaydexError):
            raise error.cause from error
        raise


def start_actors(context: BuildContext) -> list[Any]:
    """Start the embedder pool: one actor for every two processors, unless set; together they take half the slots."""
    processors = _processors()
    actors = context.config.embed.actors or max(1, processors // 2)
    slots = min(MOST_ACTOR_SLOTS, processors / (2 * actors))
    threads = max(1, processors // actors)
    return [EmbedActor.options(num_cpus=slots).remote(context, threads) for _ in range(actors)]


def _processors() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("CPU", 1)))


def crawl_units(level: Iterable[Visit], context: BuildContext, hosts: dict[str, float]) -> list[CrawlUnit]:
    """Cut a level of visits into units of one host each, in order. hosts: origin → seconds between requests."""
    by_host: dict[str, list[Visit]] = defaultdict(list)
    for visit in level:
        by_host[origin_of(visit.url)].append(visit)
    size = context.config.crawl.batch_pages
    return [
        CrawlUnit(
            unit_id=f"level{visits[0].depth:03d}-{stable_id(*(v.url for v in part))[:16]}",
            host=host,
            visits=tuple(part),
            delay_s=hosts[host],
        )
        for host, visits in by_host.items()
        for part in (visits[first : first + size] for first in range(0, len(visits), size))
    ]
