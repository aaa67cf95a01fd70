"""Looking after the snapshots of an index. Nothing is built here; docs/lifecycle.md shows each command.

    --list --verify --diff --rollback --rollforward --gc --export --import --forget → what came of it, on stdout

Whatever deletes or adds files holds the lock of the build. A roll back does not: it must not wait for a build of hours,
and needs none, since CURRENT moves under a lock of its own (snapshot.publishing).
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from raydex.build.diffing import Change, differences
from raydex.build.exchange import Moved, archived_index, export_snapshot, import_snapshot
from raydex.build.forgetting import forget
from raydex.build.garbage import collect
from raydex.build.mirroring import collect_mirrored, forget_mirrored, held, made
from raydex.checkpoint import build_lock, full_disk_named
from raydex.config import BuildConfig
from raydex.errors import ConfigError, SnapshotNotFound
from raydex.journal import moves
from raydex.lineage import Move, chain_of, move_live, predecessor, roll_back, roll_forward
from raydex.records import Manifest
from raydex.snapshot import (
    current_id,
    index_names,
    list_snapshots,
    read_manifest,
    snapshot_bytes,
    verify,
)
from raydex.storage.mirror import Storage, open_storage

SHOWN = 20
"""Changes of each sort that --diff names; --json names all."""


def asked(options: argparse.Namespace) -> bool:
    """Tell whether any of the commands was given."""
    switches = options.list or options.gc or options.import_ is not None
    return switches or any(getattr(options, name) is not None for name in COMMANDS)


def look_after(options: argparse.Namespace, config: BuildConfig) -> int:
    """Do the command that was given, and return the exit code."""
    storage = open_storage(config.uri, config.folder)
    if storage is None:
        return _look_after(options, config, None)
    with full_disk_named(made(storage.folder)):
        return _look_after(options, config, storage)


def _look_after(options: argparse.Namespace, config: BuildConfig, storage: Storage | None) -> int:
    if options.import_ is not None:
        return _import(options, config, storage)
    place = _place(config, storage)
    if options.list:
        return _list(options, place)
    if options.gc:
        return _collect(options, config, place)
    name = next(name for name in COMMANDS if getattr(options, name) is not None)
    return COMMANDS[name](options, place)


class Place(NamedTuple):
    """An index: its folder, and where that is mirrored from, if it is."""

    folder: Path
    storage: Storage | None

    @property
    def name(self) -> str:
        return self.folder.name

    def fetch(self, *snapshot_ids: str, checked: bool = False) -> None:
        """Have the files of these snapshots here."""
        if self.storage:
            self.storage.pull_objects(self.name, snapshot_ids, checked=checked)


def _place(config: BuildConfig, storage: Storage | None) -> Place:
    """Return the index asked for, or the only one there is, its head mirrored; ConfigError, SnapshotNotFound."""
    names = storage.names() if storage else index_names(config.folder)
    if not config.index and len(names) != 1:
        raise ConfigError(f"name one with --index; published in {config.data_dir}: {', '.join(names) or 'none'}")
    name = config.index or names[0]
    if storage and name not in names:
        raise SnapshotNotFound(f"{storage.uri}/{name}")
    folder = storage.pull(name) if storage else config.folder / name
    if not folder.is_dir():
        raise SnapshotNotFound(str(folder))
    return Place(folder, storage)


def _tell(line: str, **facts: object) -> int:
    """Print what a person reads, and last what a program does; return the exit code."""
    print(line)  # noqa: T201 - the result, on stdout
    if facts:
        print(json.dumps(facts))  # noqa: T201
    return 0


def _list(options: argparse.Namespace, place: Place) -> int:
    folder = place.folder
    if options.json:
        live, days = current_id(folder), _live_times(folder)
        for manifest in list_snapshots(folder):
            _tell(json.dumps(_facts(manifest, live, days.get(manifest.snapshot_id, []))))
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(snapshots_table(folder))
    return 0


def snapshots_table(folder: Path) -> Table:
    """Return all snapshots of an index, newest first; * marks the live one."""
    live, days = current_id(folder), _live_times(folder)
    table = Table(title=f"{folder.name}: snapshots", title_justify="left")
    for column in ("", "snapshot", "parent", "age", "pages", "sections", "chunks", "shards", "MiB", "gate", "was live"):
        table.add_column(column, no_wrap=column in {"snapshot", "parent"}, overflow="fold")
    for manifest in list_snapshots(folder):
        facts = _facts(manifest, live, days.get(manifest.snapshot_id, []))
        table.add_row("*" if facts["live"] else "", *_cells(manifest, str(facts["gate"]), days))
    return table


def _facts(manifest: Manifest, live: str, live_times: list[str]) -> dict[str, object]:
    return {
        "snapshot_id": manifest.snapshot_id,
        "live": manifest.snapshot_id == live,
        "parent": manifest.parent,
        "created_at": manifest.created_at,
        **manifest.counts,
        "shards": len(manifest.shards),
        "bytes": snapshot_bytes(manifest),
        "gate": _gate(manifest),
        "live_times": live_times,
    }


def _cells(manifest: Manifest, gate: str, days: dict[str, list[str]]) -> list[str]:
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created_at)
    times = days.get(manifest.snapshot_id, [])
    return [
        manifest.snapshot_id,
        manifest.parent or "none",
        str(age).split(".")[0],
        *(f"{manifest.counts.get(name, 0):,}" for name in ("pages", "sections", "chunks")),
        str(len(manifest.shards)),
        f"{snapshot_bytes(manifest) / 2**20:,.1f}",
        gate,
        times[-1] + (f" and {len(times) - 1} × before" if times[1:] else "") if times else "",
    ]


def _gate(manifest: Manifest) -> str:
    if decided := manifest.published_anyway:
        return f"published anyway {decided.at:.10} ({', '.join(decided.checks)}): {decided.reason}"
    refused = [check for check, result in manifest.gate.items() if not result.startswith("passed")]
    return f"refused: {', '.join(refused)}" if refused else ("passed" if manifest.gate else "not run")


def _live_times(folder: Path) -> dict[str, list[str]]:
    """Return snapshot_id → when it was live, `from – to` in UTC, as the journal has it."""
    lived: dict[str, list[str]] = {}
    steps = moves(folder, current_id(folder))
    ends = [*(entry.at[:16].replace("T", " ") for entry in steps[1:]), "now"]
    for entry, end in zip(steps, ends, strict=False):
        lived.setdefault(entry.snapshot_id, []).append(f"{entry.at[:16].replace('T', ' ')} – {end}")
    return lived


def _verify(options: argparse.Namespace, place: Place) -> int:
    """Read every byte of a snapshot (the live one unless named), and the manifests of its ancestors."""
    folder = place.folder
    name = options.verify or current_id(folder)
    if place.storage:
        place.storage.pull_objects(place.name, [name], anew=True)
    problems, chain = verify(folder, name), chain_of(folder, name)
    problems += [problem for problem in chain.problems if problem not in problems]
    if problems:
        _tell("\n".join(problems))
        return 1
    manifests = f"{len(chain.snapshots)} manifests as they were published, up to where {chain.end}"
    return _tell(f"{name}: every file matches its checksum; {manifests}")


def _diff(options: argparse.Namespace, place: Place) -> int:
    """Compare two snapshots; without names the parent of the live one and the live one, with one that and the live."""
    if len(options.diff) > 2:
        raise ConfigError(f"--diff takes two snapshots at most, found {len(options.diff)}")
    folder = place.folder
    after = options.diff[1] if len(options.diff) == 2 else current_id(folder)
    before = options.diff[0] if options.diff else predecessor(folder)
    place.fetch(before, after)
    counts: Counter[tuple[str, str]] = Counter()
    found = differences(folder, read_manifest(folder, before), read_manifest(folder, after))
    for change in _printed(found, counts, everything=options.json):
        _tell(change)
    told = {f"{kind}s": {name: counts[kind, name] for name in CHANGES} for kind in ("page", "section")}
    lines = [f"{kind}: " + ", ".join(f"{count:,} {name}" for name, count in by.items()) for kind, by in told.items()]
    return _tell(f"{before} → {after}: {'; '.join(lines)}", before=before, after=after, **told)


CHANGES = ("added", "removed", "changed")
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def _printed(found: Iterable[Change], counts: Counter[tuple[str, str]], *, everything: bool) -> Iterator[str]:
    """Count the changes, and yield the lines to print for them: all as JSON, or the first of each sort."""
    for change in found:
        sort = (change.kind, change.change)
        counts[sort] += 1
        if everything:
            yield json.dumps(asdict(change))
        elif counts[sort] <= SHOWN:
            yield f"{_SIGNS[change.change]} {change.kind} {change.url}"
        elif counts[sort] == SHOWN + 1:
            yield f"{_SIGNS[change.change]} … more {change.kind}s {change.change}; --json names them all"


def _roll_back(options: argparse.Namespace, place: Place) -> int:
    return _moved(place, roll_back, options.rollback, full=options.full)


def _roll_forward(options: argparse.Namespace, place: Place) -> int:
    return _moved(place, roll_forward, options.rollforward, full=options.full)


def _moved(place: Place, move: Move, wanted: str, *, full: bool) -> int:
    now, before = move_live(place.folder, place.storage, move, wanted, full=full)
    return _tell(
        f"{place.name}: {now} is live (was {before}); services that run follow", snapshot_id=now, before=before
    )


def _collect(options: argparse.Namespace, config: BuildConfig, place: Place) -> int:
    rules = config.storage
    if not rules.keep_snapshots:
        raise ConfigError("--gc needs --keep-snapshots of 1 or more")
    with held(place.storage, place.name) as lease:
        if place.storage and lease:
            freed = collect_mirrored(place.storage, place.name, config, lease, dry_run=options.dry_run)
        else:
            with _alone(place.folder):
                freed = collect(place.folder, rules.keep_snapshots, grace_s=rules.grace_s, dry_run=options.dry_run)
    return _tell(freed.told(place.name), **asdict(freed))


def _export(options: argparse.Namespace, place: Place) -> int:
    folder = place.folder
    name = options.snapshot or current_id(folder)
    if not name:
        raise SnapshotNotFound(str(folder))
    place.fetch(name, checked=True)
    with full_disk_named(options.export.resolve().parent):
        moved = export_snapshot(folder, name, options.export)
    return _tell(_told(moved, f"{moved.snapshot_id} exported to {options.export}"), **asdict(moved))


def _import(options: argparse.Namespace, config: BuildConfig, storage: Storage | None) -> int:
    file: Path = options.import_
    folder = config.folder / (config.index or archived_index(file))
    with held(storage, folder.name) as lease:
        before = current_id(folder)
        with _alone(folder):
            moved = import_snapshot(folder, file, live=options.publish)
        if storage and lease:
            storage.push(folder.name, lease)
            if moved.live and (options.publish or not before):
                storage.make_live(folder.name, moved.snapshot_id, "imported")
    state = "live" if moved.live else "not live: see --list, --diff and --rollforward"
    return _tell(_told(moved, f"{moved.snapshot_id} imported from {file}, {state}"), **asdict(moved))


def _told(moved: Moved, what: str) -> str:
    size = f"{moved.files} files, {moved.bytes / 2**20:,.1f} MiB"
    return f"{moved.index}: {what} ({size}; sha256 of its manifest {moved.manifest_sha256})"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with build_lock(folder), full_disk_named(folder):
        yield


def _forget(options: argparse.Namespace, place: Place) -> int:
    if not options.forget:
        raise ConfigError("--forget: name a URL prefix or a source")
    with held(place.storage, place.name) as lease:
        if place.storage and lease:
            forgotten = forget_mirrored(place.storage, place.name, options.forget, lease)
        else:
            forgotten = forget(place.folder, options.forget)
    return _tell(forgotten.told(place.name))


COMMANDS: dict[str, Callable[[argparse.Namespace, Place], int]] = {
    "verify": _verify,
    "diff": _diff,
    "rollback": _roll_back,
    "rollforward": _roll_forward,
    "export": _export,
    "forget": _forget,
}
"""Those that name something; --list, --gc and --import are looked at by themselves."""
