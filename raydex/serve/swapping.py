"""A running service follows CURRENT: every replica prepares the new snapshot, then all commit. No HTTP, no Ray.

    Follower (one in each replica)  — Report: what it serves, has prepared, refuses →  Council (one for all replicas)
                                    ← Plan: what to prepare, what to commit, what is refused —

The council alone looks at CURRENT, and keeps nothing that the next reports would not tell it again. What it does when a
replica cannot prepare:

    refuses (corrupt, incompatible)   nobody commits; tried again when CURRENT or the files change, or on a reload
    dead (no report for LOST_AFTER_S) the others commit without it; a replica that starts opens what the others serve
    slow (after patience_s)           those that are ready commit; it follows as soon as it is ready
    cannot reach the storage          counts as slow, and tries again
"""

import asyncio
import hashlib
import itertools
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from raydex.config import ServeConfig
from raydex.errors import RaydexError, SnapshotError, StorageError
from raydex.serve.open_snapshots import Opened, OpenSnapshots, published_names
from raydex.serve.recorder import Recorder
from raydex.snapshot import current_id, manifest_path, read_manifest, stored_objects
from raydex.storage.mirror import open_storage
from raydex.storage.readers import ReaderLeases

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

IDLE_S = 2.0
"""Between two reports of a replica that has nothing to do."""

SETTLING_LOOK_S = 0.05

LOST_AFTER_S = 10.0
"""Without a report, a replica is taken for dead. One that prepares goes on reporting."""

PATIENCE_S = 300.0
"""Verifying, opening and warming take 3 s a GB here."""

UNOPENABLE = (RaydexError, ValueError, TypeError, AssertionError, RuntimeError, LookupError, MemoryError)
"""What a snapshot that is damaged, of another program or too large makes our code and the libraries below it raise."""


class Target(NamedTuple):
    """What is to be served of an index. token: another one, and what was refused is worth another try."""

    snapshot_id: str
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one replica has, by index. refused: the target, and why."""

    serving: Mapping[str, str] = field(default_factory=dict)
    prepared: Mapping[str, Target] = field(default_factory=dict)
    refused: Mapping[str, tuple[Target, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all replicas are to do. number: grows with every change; 0: nothing is known yet.

    targets: all that is to be served; agreed: what may be committed; refused: what must not be, and why. in_use: what
    somebody serves.
    """

    number: int = 0
    targets: Mapping[str, Target] = field(default_factory=dict)
    agreed: Mapping[str, Target] = field(default_factory=dict)
    refused: Mapping[str, tuple[Target, str]] = field(default_factory=dict)
    in_use: Mapping[str, frozenset[str]] = field(default_factory=dict)


class SwapCouncil(Protocol):
    """Council, or what reaches one in another process."""

    async def follow(self, member: str, report: Report, seen: int) -> Plan | None:
        """Take a report; return the plan, at once when it is newer than `seen`, else when it changes or after a while.

        None when the council cannot be reached.
        """
        ...

    async def reload(self) -> Plan | None:
        """Look now, try again what was refused, and return when every index is swapped or refused."""
        ...

    async def leave(self, member: str) -> None:
        """Count on a replica no longer."""
        ...


class Watch:
    """Looks at what is live. May be slow: it asks the disk or the storage."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self.storage = open_storage(config.uri, config.folder)

    def look(self, before: Mapping[str, Target], refused: Mapping[str, object], salt: str = "") -> dict[str, Target]:
        """Return index → target; what cannot be looked at is what it was before. salt: makes other tokens."""
        try:
            names = dict.fromkeys(self._config.index or published_names(self._config))
        except (StorageError, OSError) as error:
            logger.warning("not known what is published reason=%s", error)
            return dict(before)
        if not names:  # a folder that is not mounted rather than one that lost all its indexes
            return dict(before)
        return {name: self._target(name, before.get(name, Target("")), name in refused, salt) for name in names}

    def _target(self, name: str, before: Target, is_refused: bool, salt: str) -> Target:  # noqa: FBT001
        try:
            live = self.storage.current_id(name) if self.storage else current_id(self._config.folder / name)
            if not live or (live == before.snapshot_id and not is_refused):
                return before  # an index without CURRENT is served as before
            return Target(live, salt + self._files(name, live))
        except (StorageError, OSError) as error:
            logger.warning("not known what is live index=%s reason=%s", name, error)
            return before

    def _files(self, name: str, snapshot_id: str) -> str:
        """Return what is another text when a file of the snapshot has changed."""
        facts: dict[str, object] = {}
        if self.storage:
            for prefix in (f"{name}/snapshots/{snapshot_id}", f"{name}/objects"):
                facts.update(self.storage.remote.stats(prefix))
        else:
            index_dir = self._config.folder / name
            with suppress(SnapshotError):
                paths = [manifest_path(index_dir, snapshot_id)]
                with suppress(SnapshotError):
                    objects = stored_objects([read_manifest(index_dir, snapshot_id)])
                    paths += [index_dir / "objects" / sha256 for sha256 in objects]
                for path in paths:
                    with suppress(OSError):
                        found = path.stat()
                        facts[path.name] = (found.st_size, found.st_mtime_ns, found.st_ino)
        return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:16]


class Council:
    """Decides from the reports of all replicas. To be used from one event loop at a time."""

    def __init__(
        self,
        config: ServeConfig,
        *,
        patience_s: float = PATIENCE_S,
        lost_after_s: float = LOST_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = config.swap_check_s
        self._watch = Watch(config)
        self._leases = ReaderLeases(config.folder, self._watch.storage)
        self._patience_s, self._lost_after_s, self._clock = patience_s, lost_after_s, clock
        self._reports: dict[str, tuple[Report, float]] = {}
        self._since: dict[str, tuple[Target, float]] = {}
        self._plan = Plan()
        self._waiting: set[asyncio.Future[None]] = set()
        self._looks = itertools.count(1)
        self._look_used, self._looked_at = 0, -float("inf")

    async def follow(self, member: str, report: Report, seen: int) -> Plan:
        self._heard(member, report)
        if self._interval_s and self._clock() - self._looked_at >= self._interval_s:
            await self._look()
        if self._plan.number == seen:
            await self._change(min(IDLE_S, self._interval_s or IDLE_S))
            self._heard(member, report)
        return self._plan

    async def serving(self) -> dict[str, str]:
        """Return index → the snapshot that most replicas serve; for one that starts."""
        reports = self._live()
        names = {name for report in reports for name in report.serving}
        counts = {name: Counter(report.serving[name] for report in reports if name in report.serving) for name in names}
        return {name: count.most_common(1)[0][0] for name, count in counts.items()}

    async def reload(self) -> Plan:
        await self._look(salt=f"{time.time_ns()} ")
        deadline = self._clock() + self._patience_s
        while not self._is_settled() and self._clock() < deadline:
            await self._change(SETTLING_LOOK_S)
        return self._plan

    async def leave(self, member: str) -> None:
        self._reports.pop(member, None)
        if not self._reports:
            await asyncio.to_thread(self._leases.release)

    def _is_settled(self) -> bool:
        return all(
            name in self._plan.refused or all(self._serves(report, name, target) for report in self._live())
            for name, target in self._plan.targets.items()
        )

    @staticmethod
    def _serves(report: Report, name: str, target: Target) -> bool:
        return report.serving.get(name, "") == target.snapshot_id

    async def _look(self, salt: str = "") -> None:
        """Look at CURRENT, in a thread; of two looks at a time the one that began last counts."""
        number, self._looked_at = next(self._looks), self._clock()
        targets = await asyncio.to_thread(self._look_and_hold, self._plan, _in_use(self._live()), salt)
        if number > self._look_used:
            self._look_used = number
            self._announce(self._decided(targets))

    def _look_and_hold(self, plan: Plan, used: Mapping[str, frozenset[str]], salt: str) -> dict[str, Target]:
        """What is to be opened is leased before any replica opens it."""
        targets = self._watch.look(plan.targets, plan.refused, salt)
        for name, target in targets.items():
            if target.snapshot_id:
                self._leases.hold(name, {target.snapshot_id, *used.get(name, ())})
        return targets

    def _heard(self, member: str, report: Report) -> None:
        self._reports[member] = report, self._clock()
        if self._plan.number:
            self._announce(self._decided(self._plan.targets))

    def _live(self) -> list[Report]:
        now = self._clock()
        self._reports = {m: (r, at) for m, (r, at) in self._reports.items() if now - at < self._lost_after_s}
        return [report for report, _ in self._reports.values()]

    def _decided(self, targets: Mapping[str, Target]) -> Plan:
        agreed, refused = {}, {}
        reports = self._live()
        for name, target in targets.items():
            if self._since.get(name, (None, 0.0))[0] != target:
                self._since[name] = target, self._clock()
            if self._plan.agreed.get(name) == target or self._may_commit(name, target, reports):
                agreed[name] = target
            elif refusal := self._refusal(name, target, reports):
                refused[name] = target, refusal
        return Plan(
            number=self._plan.number,
            targets=dict(targets),
            agreed=agreed,
            refused=refused,
            in_use=_in_use(reports),
        )

    def _may_commit(self, name: str, target: Target, reports: list[Report]) -> bool:
        ready = [self._serves(report, name, target) or report.prepared.get(name) == target for report in reports]
        if any(report.refused.get(name, (None,))[0] == target for report in reports):
            return False
        is_patient = self._clock() - self._since[name][1] < self._patience_s
        return any(ready) and (all(ready) or not is_patient)

    def _refusal(self, name: str, target: Target, reports: list[Report]) -> str:
        """Return why a target is not to be served; a refusal stands, whoever comes or goes."""
        if (known := self._plan.refused.get(name)) and known[0] == target:
            return known[1]
        refusals = [report.refused[name] for report in reports if name in report.refused]
        return next((reason for refused, reason in refusals if refused == target), "")

    def _announce(self, plan: Plan) -> None:
        if self._plan.number and replace(plan, number=self._plan.number) == self._plan:
            return
        self._plan = replace(plan, number=self._plan.number + 1)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    async def _change(self, timeout_s: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        with suppress(TimeoutError):
            await asyncio.wait_for(waiter, timeout_s)
        self._waiting.discard(waiter)


def _in_use(reports: Iterable[Report]) -> dict[str, frozenset[str]]:
    used: dict[str, frozenset[str]] = {}
    for report in reports:
        for name, snapshot_id in report.serving.items():
            used[name] = used.get(name, frozenset()) | {snapshot_id}
    return used


class Follower(Generic[Opened]):
    """Does in one replica, or in one process of a shard group, what the council plans."""

    def __init__(self, engine: OpenSnapshots[Opened], council: SwapCouncil, recorder: Recorder) -> None:
        self._engine, self.council, self._recorder = engine, council, recorder
        self._member = uuid.uuid4().hex
        self._thread = ThreadPoolExecutor(1, "swap")  # the same one each time: glibc keeps memory for each thread
        self._prepared: dict[str, tuple[Target, Opened, float]] = {}
        self._refused: dict[str, tuple[Target, str]] = {}
        self._told: dict[str, Target] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        seen = 0
        try:
            while True:
                plan = await self.council.follow(self._member, self._report(), seen)
                if plan is None:
                    await asyncio.sleep(IDLE_S)
                elif plan.number:
                    await self._obey(plan)
                    seen = plan.number
        finally:
            self._thread.shutdown(wait=False)
            await self.council.leave(self._member)

    def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> "asyncio.Future[Result]":
        return asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _report(self) -> Report:
        return Report(
            serving={name: index.manifest.snapshot_id for name, index in self._engine.indexes.items()},
            prepared={name: target for name, (target, _, _) in self._prepared.items()},
            refused=dict(self._refused),
        )

    async def _obey(self, plan: Plan) -> None:
        for name in set(self._engine.names) - plan.targets.keys():
            self._engine.drop(name)
            self._recorder.count("raydex_swaps", index=name, outcome="removed")
            logger.info("index removed index=%s", name)
        for name in [name for name, (target, *_) in self._prepared.items() if not self._is_due(name, target, plan)]:
            del self._prepared[name]
        for name in [name for name, (target, _) in self._refused.items() if plan.targets.get(name) != target]:
            del self._refused[name]
        for name, target in plan.targets.items():
            if self._is_due(name, target, plan) and name not in self._prepared:
                await self._prepare(name, target)
        self._tell_refusals({**plan.refused, **self._refused})
        if any(plan.agreed.get(name) == target for name, (target, *_) in self._prepared.items()):
            await self._in_thread(self._commit, plan.agreed)
        await self._in_thread(self._engine.release, plan.in_use)

    def _is_due(self, name: str, target: Target, plan: Plan) -> bool:
        index = self._engine.indexes.get(name)
        if not target.snapshot_id or (index and index.manifest.snapshot_id == target.snapshot_id):
            return False
        return plan.targets.get(name) == target and name not in plan.refused and name not in self._refused

    async def _prepare(self, name: str, target: Target) -> None:
        """Open a snapshot in a thread, and go on reporting meanwhile."""
        started = time.perf_counter()
        work = self._in_thread(self._engine.prepare, name, target.snapshot_id)
        while not (await asyncio.wait({work}, timeout=IDLE_S))[0]:
            await self.council.follow(self._member, self._report(), -1)
        try:
            self._prepared[name] = target, work.result(), started
            return
        except (StorageError, OSError) as error:  # it may be back soon
            reason: Exception = error
            logger.warning("snapshot not prepared index=%s snapshot=%s reason=%s", name, target.snapshot_id, error)
        except UNOPENABLE as error:
            reason = error
            self._refused[name] = target, str(error) or type(error).__name__
        if name not in self._engine.indexes:
            self._engine.leave_closed(name, reason if isinstance(reason, RaydexError) else SnapshotError(str(reason)))

    def _commit(self, agreed: Mapping[str, Target]) -> None:
        """Swap all indexes that are agreed on at once; in a thread, because the old ones may close here."""
        ready = {name: found for name, found in self._prepared.items() if agreed.get(name) == found[0]}
        self._engine.commit({name: opened for name, (_, opened, _) in ready.items()})
        for name, (target, _, started) in ready.items():
            del self._prepared[name]
            self._recorder.count("raydex_swaps", index=name, outcome="swapped")
            self._recorder.observe("raydex_swap_seconds", time.perf_counter() - started, index=name)
            logger.info("snapshot served index=%s snapshot=%s", name, target.snapshot_id)

    def _tell_refusals(self, refused: Mapping[str, tuple[Target, str]]) -> None:
        """Keep for /indexes what is refused, and count and log what is refused anew."""
        for name, (target, reason) in refused.items():
            if self._told.get(name) != target:
                self._recorder.count("raydex_swaps", index=name, outcome="refused")
                logger.warning("snapshot refused index=%s snapshot=%s reason=%s", name, target.snapshot_id, reason)
        self._told = {name: target for name, (target, _) in refused.items()}
        self._engine.refuse({name: (target.snapshot_id, reason) for name, (target, reason) in refused.items()})
