"""Builds and looking after, for an index under a URI: fetch what is needed, work in the mirror, send what came of it.

    run_mirrored(config, lambda here: run_build(here, sources)) → BuildResult

The work itself knows nothing of it: it sees a folder. Nothing here needs Ray.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from raydex.build.forgetting import Forgotten, forget
from raydex.build.garbage import Freed, choose, collect
from raydex.build.report import BuildResult
from raydex.checkpoint import build_lock, full_disk_named
from raydex.config import BuildConfig
from raydex.errors import (
    BuildLocked,
    GateRefused,
    NothingToIndex,
    RaydexError,
    SnapshotError,
    StorageError,
    TooManyFailedPages,
)
from raydex.snapshot import current_id, snapshot_ids
from raydex.storage.lease import Lease
from raydex.storage.mirror import Storage, open_storage
from raydex.storage.readers import pull_readers
from utils.files import make_folder

SENT_EVERY_S = 300.0
"""Vectors go to the storage while a build runs: what a lost machine costs at most."""

logger = logging.getLogger(__name__)


def run_mirrored(config: BuildConfig, build: Callable[[BuildConfig], BuildResult]) -> BuildResult:
    """Run a build; when the data folder is a URI, in its mirror, and publish there what it published here.

    What a refused or broken build has embedded and fetched is kept there too. A plan leaves nothing.
    """
    storage = open_storage(config.uri, config.folder)
    if storage is None:
        return build(config)
    index = config.index
    with storage.alone(index) as lease, full_disk_named(made(storage.folder)):
        storage.pull(index, alone=True)
        storage.pull_stores(index)
        _pull_live_for_build(storage, index)
        # a collection needs files of all snapshots, which are not here yet: it comes after the build, if at all
        aside = config.storage.model_copy(update={"keep_snapshots": 0})
        try:
            with vectors_sent_meanwhile(storage, index):
                result = build(config.model_copy(update={"storage": aside}))
        except (GateRefused, NothingToIndex, TooManyFailedPages):
            storage.push(index, lease)
            raise
        if result.snapshot_id:
            storage.push(index, lease)
            storage.make_live(index, result.snapshot_id, "published")
            _collect_after_build(storage, config, lease)
    return result


@contextmanager
def record_mirrored(config: BuildConfig) -> Iterator[None]:
    """Go on with the record of the runs before, wherever they ran, and send that of this one, however it ends."""
    storage = open_storage(config.uri, config.folder)
    if storage is None:
        yield
        return
    _tried(lambda: storage.pull_record(config.index))
    try:
        yield
    except BuildLocked:  # leaves no trace
        raise
    except BaseException:
        _tried(lambda: storage.push_record(config.index))
        raise
    _tried(lambda: storage.push_record(config.index))


def _tried(action: Callable[[], None]) -> None:
    try:
        action()
    except StorageError as error:  # what ended the run, or its snapshot, matters more
        logger.warning("record of the run not mirrored reason=%s", error)


@contextmanager
def vectors_sent_meanwhile(storage: Storage, index: str) -> Iterator[None]:
    """Send new vectors every few minutes and at any end: a machine may be taken away, and its disk with it."""
    stop = threading.Event()

    def send() -> None:
        try:
            storage.push_vectors(index)
        except (StorageError, OSError) as error:  # another try follows; the build itself needs no storage
            logger.warning("vectors not sent index=%s reason=%s", index, error)

    def keep_sending() -> None:
        while not stop.wait(SENT_EVERY_S):
            send()

    sender = threading.Thread(target=keep_sending, name="raydex-vectors", daemon=True)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()
        send()


def made(folder: Path) -> Path:
    """Return a folder that is there."""
    make_folder(folder)
    return folder


def _pull_live_for_build(storage: Storage, index: str) -> None:
    """A live snapshot that is damaged must not stand in the way of the build that replaces it."""
    live = current_id(storage.folder / index)
    try:
        storage.pull_objects(index, [live] if live else [], checked=True)
    except SnapshotError as error:
        logger.warning("live snapshot not whole, built as if it were the first index=%s reason=%s", index, error)


def _collect_after_build(storage: Storage, config: BuildConfig, lease: Lease) -> None:
    keep = config.storage.keep_snapshots
    try:
        if keep:
            pull_readers(storage, config.index)
        if keep and choose(storage.folder / config.index, keep).going:
            collect_mirrored(storage, config.index, config, lease)
    except (RaydexError, OSError) as error:  # the snapshot is live; the next build collects
        logger.warning("nothing collected after the build index=%s reason=%s", config.index, error)


def collect_mirrored(
    storage: Storage, index: str, config: BuildConfig, lease: Lease, *, dry_run: bool = False
) -> Freed:
    """Collect here, then delete there; objects that were never here are counted with the others.

    What stays has to be read, so it is fetched first, and kept: the next collection fetches only what is new.
    """
    folder, rules = storage.folder / index, config.storage
    pull_readers(storage, index)
    choice = choose(folder, rules.keep_snapshots)
    storage.pull_stores(index)
    storage.pull_objects(index, [name for name in choice.kept if name not in choice.unreadable])
    garbage = storage.unreferenced(index, grace_s=rules.grace_s, going=choice.going)
    absent = [stat.bytes for name, stat in garbage.items() if not (storage.folder / name).exists()]
    with build_lock(folder), full_disk_named(folder):
        freed = collect(folder, rules.keep_snapshots, grace_s=rules.grace_s, dry_run=dry_run)
    freed = replace(freed, objects=freed.objects + len(absent), bytes=freed.bytes + sum(absent))
    if not dry_run:
        lease.confirm()
        storage.drop(index, freed.snapshots, grace_s=rules.grace_s)
    return freed


def forget_mirrored(storage: Storage, index: str, what: str, lease: Lease) -> Forgotten:
    """Forget here, publish that there, then delete there, whatever its age."""
    folder = storage.folder / index
    before = set(snapshot_ids(folder))
    live = current_id(folder)
    storage.pull_stores(index)
    storage.pull_objects(index, before)
    forgotten = forget(folder, what)
    if forgotten.snapshot_id != live:
        storage.push(index, lease)
        storage.make_live(index, forgotten.snapshot_id, "forgot")
    lease.confirm()
    storage.drop(index, before - set(snapshot_ids(folder)), grace_s=0.0, everything=True)
    return forgotten


@contextmanager
def held(storage: Storage | None, index: str) -> Iterator[Lease | None]:
    """Hold a remote index, mirrored; nothing for a folder."""
    if storage is None:
        yield None
        return
    with storage.alone(index) as lease:
        storage.pull(index, alone=True)
        yield lease
