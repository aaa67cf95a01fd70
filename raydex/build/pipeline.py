"""Keeps fetchers, readers and embedders busy, bounded in flight.

    FetchUnit → fetcher actor of the host → read task → CrawlReceipt → embedder actor → shuffle tasks → shard tasks

The driver holds receipts, never pages, chunks or vectors.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, TypeAlias

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from raydex.build.items import DuplicatesReceipt
from raydex.build.progress import BuildMetrics, Display, Status
from raydex.build.shuffle import UNITS_PER_SHUFFLE, Closing, Shuffle
from raydex.build.units import BuildContext, CrawlReceipt, EmbedReceipt, Fetched, FetchUnit
from raydex.build.workers import (
    FETCHER_SLOTS,
    WORKER_DEATHS,
    Access,
    EmbedActor,
    FetchActor,
    close_task,
    culprit_task,
    duplicates_task,
    plan_task,
    read_task,
    shard_task,
    shuffle_task,
    words_task,
)
from raydex.checkpoint import Ledger
from raydex.cluster import check_cluster
from raydex.errors import EmbedError, RaydexError
from raydex.records import Lexical, Manifest, Shard, StoredObject, stable_id
from raydex.tracing import result_in
from utils.files import is_disk_full

Ref: TypeAlias = Any
"""ray.ObjectRef; Ray's own annotations cannot say what a task of ours returns."""

REFRESH_S = 0.25
"""How often the display is drawn while nothing finishes."""

MOST_ACTOR_SLOTS = 0.5
"""Processors an embedder asks Ray for at most. It uses more; but a service on the same cluster must leave it room."""

READER_SHARE = 0.25
"""Of a node's processors, what a reader asks Ray for (at most one): on two, two run beside embedder and fetcher."""

CALLS_PER_ACTOR = 2
"""Calls an embedder has at a time: one in work, one waiting, so that it never idles."""

UNITS_PER_CALL = {"gpu": 64}
"""Units embedded together, where they wait; a processor is busy with one for seconds, a GPU for milliseconds."""

TASKS_PER_PROCESSOR = 4
"""Tasks given to Ray at a time: receipts of a large build wait on disk, not here."""

SPREAD = "SPREAD"
"""Ray would fill half of one node first; a cluster embeds with all, and a lost node must not take every actor."""

MOST_FETCHERS, CALLS_PER_FETCHER = 4, 256


@dataclass(slots=True)
class InFlight:
    """What runs now: Ray reference → what to do with its result."""

    crawls: dict[Ref, FetchUnit] = field(default_factory=dict)
    embeds: dict[Ref, tuple[int, tuple[str, ...]]] = field(default_factory=dict)  # → number of the actor, units
    suspects: dict[Ref, str] = field(default_factory=dict)  # → unit whose embedder died again and again; one at a time
    shards: set[Ref] = field(default_factory=set)
    loads: set[Ref] = field(default_factory=set)

    def refs(self) -> list[Ref]:
        return [*self.crawls, *self.embeds, *self.suspects, *self.shards, *self.loads]


@dataclass(slots=True)
class Finished:
    """What a step brought in."""

    crawls: list[CrawlReceipt] = field(default_factory=list)
    shards: list[Ref] = field(default_factory=list)


class Pipeline:
    """One build's work on the cluster. embeds: whether there is any embedding to do (a plan has none)."""

    def __init__(
        self, context: BuildContext, ledger: Ledger, status: Status, display: Display, access: Access, *, embeds: bool
    ) -> None:
        self._context, self._ledger, self._status, self._display = context, ledger, status, display
        self._metrics = BuildMetrics(context.config.index)
        self._shared_context = ray.put(context)
        self._waiting_embeds: deque[str] = deque()
        self._suspects: deque[str] = deque()
        self._in_flight = InFlight()
        self._embeds = embeds
        self._reader_slots = min(1.0, READER_SHARE * _smallest_node())
        self._most_tasks = TASKS_PER_PROCESSOR * _processors()
        self._fetchers = start_fetchers(context, access)
        self._owners: dict[str, Any] = {}
        self.actors = start_actors(context) if embeds else []
        self._in_flight.loads.update(actor.ready.remote() for actor in self.actors)
        status.embedders = max(1, len(self.actors))

    def owner(self, host: str) -> Any:
        """Return the one fetcher that makes all requests to a host."""
        return self._owners.setdefault(host, self._fetchers[len(self._owners) % len(self._fetchers)])

    def paces(self) -> dict[str, Any]:
        """Return host → how its requests went."""
        paces: dict[str, Any] = {}
        for of_fetcher in [result_of(ref) for ref in [fetcher.pace.remote() for fetcher in self._fetchers]]:
            paces |= of_fetcher
        return paces

    def crawl(self, unit: FetchUnit) -> None:
        """Begin to fetch and read a unit; a later step brings its receipt."""
        self._read(unit, self.owner(unit.host).fetch.remote(unit))

    def _read(self, unit: FetchUnit, fetched: Any) -> None:
        ref = read_task.options(num_cpus=self._reader_slots).remote(self._shared_context, unit, fetched)
        self._in_flight.crawls[ref] = unit

    def crawls_per_host(self) -> Counter[str]:
        """Return how many units are in flight."""
        return Counter(unit.host for unit in self._in_flight.crawls.values())

    def embed_all(self) -> None:
        """Wait until every chunk found so far has its vector."""
        while self._waiting_embeds or self._suspects or self._in_flight.embeds or self._in_flight.suspects:
            self.step()

    def drop_duplicates(self, units: Sequence[str]) -> DuplicatesReceipt:
        receipt: DuplicatesReceipt = result_of(duplicates_task.remote(self._shared_context, tuple(units)))
        return receipt

    def missing_vectors(self, units: Sequence[str]) -> EmbedReceipt:
        receipt: EmbedReceipt = result_of(plan_task.remote(self._shared_context, tuple(units)))
        return receipt

    def shard(
        self, shards: int, kind: str, units: Mapping[str, str], dropped: str
    ) -> tuple[tuple[Shard, ...], Closing]:
        """Write all shards; one whose units have the content they had in a killed run is taken from the ledger.

        units: unit_id → digest of its content. dropped: digest of the duplicates that are left out.
        """
        self._status.shards = shards
        shuffle = Shuffle(
            shards=shards,
            kind=kind,
            least_recall=self._context.config.vectors.least_recall,
            content=stable_id(dropped, *sorted(f"{unit_id} {content}" for unit_id, content in units.items()))[:12],
        )
        self._shuffle(shuffle, sorted(units))
        content = stable_id(dropped, kind, shuffle.least_recall, *sorted(units.values()))[:12]
        work = {n: f"shard-{n}-of-{shards}-{content}" for n in range(shards)}
        before = {line.get("unit_id"): line for line in self._ledger.lines() if line["event"] == "sharded"}
        done = {n: self._sharded_before(before.get(name)) for n, name in work.items()}
        self._status.shards_done = sum(shard is not None for shard in done.values())
        left = (n for n, shard in done.items() if shard is None)
        for n, shard in self._all_done((shard_task, n, (shuffle, n)) for n in left):
            done[n] = shard
            self._ledger.append("sharded", unit_id=work[n], shard=asdict(shard))
            self._status.shards_done += 1
        written = tuple(shard for shard in done.values() if shard is not None)
        return written, result_of(close_task.remote(self._shared_context, shuffle, written))

    def index_words(self, shards: Sequence[Shard], parent: Manifest | None) -> Lexical:
        """Write the one lexical index of all shards, or take over that of the parent."""
        task = words_task.options(num_cpus=self._reader_slots)
        lexical: Lexical = result_of(task.remote(self._shared_context, tuple(shards), parent))
        return lexical

    def _shuffle(self, shuffle: Shuffle, unit_ids: Sequence[str]) -> None:
        """Spread the rows of all units over the shards, on disk."""
        groups = (unit_ids[first : first + UNITS_PER_SHUFFLE] for first in range(0, len(unit_ids), UNITS_PER_SHUFFLE))
        calls = (
            (shuffle_task, number, (shuffle, f"{number:06d}", tuple(group))) for number, group in enumerate(groups)
        )
        for _ in self._all_done(calls):
            pass

    def _all_done(self, calls: Iterable[tuple[Any, int, tuple[Any, ...]]]) -> Iterator[tuple[int, Any]]:
        """Call tasks, a few at a time, and yield the number of each and its result, as they come.

        calls: (task, number, arguments after the context), each made when its turn comes.
        """
        waiting, running = iter(calls), dict[Ref, int]()
        while True:
            for task, number, arguments in islice(waiting, self._most_tasks - len(running)):
                ref = task.options(num_cpus=self._reader_slots).remote(self._shared_context, *arguments)
                running[ref] = number
                self._in_flight.shards.add(ref)
            if not running:
                return
            for ref in self.step().shards:
                yield running.pop(ref), result_of(ref)

    def _sharded_before(self, line: dict[str, Any] | None) -> Shard | None:
        if line is None:
            return None
        fields: dict[str, Any] = dict(line["shard"])
        objects = {role: StoredObject(**stored) for role, stored in fields.pop("objects").items()}
        whole = all((self._context.objects_dir / stored.sha256).exists() for stored in objects.values())
        return Shard(objects=objects, **fields) if whole else None

    def step(self) -> Finished:
        """Start what may start, wait for something to finish, and take it in."""
        check_cluster()
        self._start_embeds()
        self._display.refresh()
        self._metrics.queued(pages=self._status.queued_pages, embed_units=len(self._waiting_embeds))
        refs = self._in_flight.refs()
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=REFRESH_S)
        finished = Finished()
        for ref in ready:
            if ref in self._in_flight.crawls:
                finished.crawls += self._read_result(ref, self._in_flight.crawls.pop(ref))
            elif ref in self._in_flight.embeds:
                self._embed_result(ref, self._in_flight.embeds.pop(ref)[1])
            elif ref in self._in_flight.suspects:
                self._suspect_result(ref, self._in_flight.suspects.pop(ref))
            elif ref in self._in_flight.loads:
                self._in_flight.loads.discard(ref)
                result_of(ref)
            else:
                self._in_flight.shards.discard(ref)
                finished.shards.append(ref)
        return finished

    def _read_result(self, ref: Ref, unit: FetchUnit) -> list[CrawlReceipt]:
        """Return the receipt; when the unit killed its reader or fetcher, look for the page that does, one by one."""
        try:
            receipt: CrawlReceipt = result_of(ref)
        except ObjectLostError:  # the node with the bodies is gone; what was read of them is not asked for again
            self.crawl(unit)
            return []
        except (WorkerCrashedError, OutOfMemoryError, NodeDiedError, RayActorError) as error:
            if len(unit.visits) > 1:
                for visit in unit.visits:
                    self.crawl(replace(unit, unit_id=unit_name((visit.url,)), visits=(visit,)))
            else:
                self._read(unit, (Fetched(visit=unit.visits[0], reason="worker_died", detail=str(error)[:200]),))
            return []
        self._status.add_crawled(receipt)
        self._metrics.crawled(receipt)
        if receipt.chunk_count and self._embeds:
            self._waiting_embeds.append(receipt.unit_id)
        return [receipt]

    def _start_embeds(self) -> None:
        load = Counter(number for number, _ in self._in_flight.embeds.values())
        for number, actor in enumerate(self.actors):
            while self._waiting_embeds and load[number] < CALLS_PER_ACTOR:
                most = min(len(self._waiting_embeds), UNITS_PER_CALL.get(self._context.embedder.backend, 1))
                units = tuple(self._waiting_embeds.popleft() for _ in range(most))
                self._in_flight.embeds[actor.embed.remote(units)] = (number, units)
                load[number] += 1
        if self._suspects and not self._in_flight.suspects:
            unit_id = self._suspects.popleft()
            alone = self.actors[0].embed_one_by_one.options(max_task_retries=WORKER_DEATHS)
            self._in_flight.suspects[alone.remote(unit_id)] = unit_id

    def _embed_result(self, ref: Ref, unit_ids: tuple[str, ...]) -> None:
        """Take a receipt; when the embedder died each time, let the units be embedded chunk by chunk."""
        try:
            self._embedded(result_of(ref))
        except (RayActorError, OutOfMemoryError):
            self._suspects.extend(unit_ids)

    def _suspect_result(self, ref: Ref, unit_id: str) -> None:
        """Take a receipt; when the embedder died over one chunk, name it and its page."""
        try:
            self._embedded(result_of(ref))
        except (RayActorError, OutOfMemoryError) as error:
            culprit: str = result_of(culprit_task.remote(self._shared_context, unit_id))
            raise EmbedError(
                f"{culprit}: the embedder dies of it (killed, or out of memory). Exclude the page (`deny` of its "
                "source), lower --max-tokens, or give the machine more memory; the same command resumes."
            ) from error

    def _embedded(self, receipt: EmbedReceipt) -> None:
        self._status.add_embedded(receipt)
        self._metrics.embedded(receipt)


def result_of(ref: Ref) -> Any:
    """Return what a task returned, or raise what ended it without Ray's wrapping: an error of ours, or a full disk.

    ClusterLost when Ray is gone meanwhile.
    """
    while not ray.wait([ref], timeout=REFRESH_S)[0]:
        check_cluster()
    try:
        return result_in(ray.get(ref))
    except RayTaskError as error:
        if isinstance(error.cause, RaydexError) or (isinstance(error.cause, OSError) and is_disk_full(error.cause)):
            raise error.cause from error
        raise


def start_fetchers(context: BuildContext, access: Access) -> list[Any]:
    """Start the fetchers; together they take a quarter of the smallest node's slots at most."""
    count = min(MOST_FETCHERS, max(1, _processors() // 2))
    slots = min(FETCHER_SLOTS, _smallest_node() / (4 * count))
    options = {"num_cpus": slots, "max_concurrency": CALLS_PER_FETCHER, "scheduling_strategy": SPREAD}
    return [FetchActor.options(**options).remote(context, access) for _ in range(count)]


def start_actors(context: BuildContext) -> list[Any]:
    """Start the embedder pool: an actor for each GPU, or for every two processors, unless set.

    Those without a GPU take half the slots of the smallest node: should it be the last one left, all fit there, a
    reader too.
    """
    if context.embedder.backend == "gpu":
        gpus = context.config.embed.actors or max(1, _resource("GPU"))
        return [EmbedActor.options(num_cpus=MOST_ACTOR_SLOTS, num_gpus=1).remote(context, 0) for _ in range(gpus)]
    processors = _processors()
    actors = context.config.embed.actors or max(1, processors // 2)
    slots = min(MOST_ACTOR_SLOTS, _smallest_node() / (2 * actors))
    threads = max(1, processors // actors)
    options = {"num_cpus": slots, "scheduling_strategy": SPREAD}
    return [EmbedActor.options(**options).remote(context, threads) for _ in range(actors)]


def unit_name(urls: Sequence[str]) -> str:
    return stable_id(*urls)[:16]


def _smallest_node() -> float:
    """Return the processors of the smallest node that has any."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    of_nodes = [node["Resources"].get("CPU", 0.0) for node in nodes if node["Alive"]]
    return min((count for count in of_nodes if count), default=1.0)


def _processors() -> int:
    return max(1, _resource("CPU"))


def _resource(name: str) -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get(name, 0))
