"""Looking after the snapshots of an index: list, verify, roll back. Nothing is built here.

python build_index.py --list --index docs
"""

from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from raydex.config import BuildConfig
from raydex.errors import ConfigError, SnapshotNotFound
from raydex.records import Manifest
from raydex.snapshot import current_id, index_names, list_snapshots, roll_back, snapshot_bytes, verify


def index_dir(config: BuildConfig) -> Path:
    """Return the folder of the index asked for, or of the only one there is; ConfigError, SnapshotNotFound."""
    names = index_names(config.data_dir)
    if not config.index and len(names) != 1:
        raise ConfigError(f"name one with --index; published in {config.data_dir}: {', '.join(names) or 'none'}")
    folder = config.data_dir / (config.index or names[0])
    if not folder.is_dir():
        raise SnapshotNotFound(str(folder))
    return folder


def snapshots_table(folder: Path) -> Table:
    """Return all snapshots of an index, newest first; * marks the live one."""
    live = current_id(folder)
    table = Table(title=f"{folder.name}: snapshots", title_justify="left")
    for column in ("", "snapshot", "age", "pages", "chunks", "shards", "MiB", "gate"):
        table.add_column(column, no_wrap=column == "snapshot", overflow="fold")
    for manifest in list_snapshots(folder):
        table.add_row("*" if manifest.snapshot_id == live else "", *_cells(manifest))
    return table


def _cells(manifest: Manifest) -> list[str]:
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created_at)
    return [
        manifest.snapshot_id,
        str(age).split(".")[0],
        f"{manifest.counts['pages']:,}",
        f"{manifest.counts['chunks']:,}",
        str(len(manifest.shards)),
        f"{snapshot_bytes(manifest) / 2**20:,.1f}",
        _gate(manifest),
    ]


def _gate(manifest: Manifest) -> str:
    if decided := manifest.published_anyway:
        return f"published anyway {decided.at:.10} ({', '.join(decided.checks)}): {decided.reason}"
    refused = [check for check, result in manifest.gate.items() if not result.startswith("passed")]
    return f"refused: {', '.join(refused)}" if refused else ("passed" if manifest.gate else "not run")


def verify_and_tell(folder: Path, snapshot_id: str) -> int:
    """Print what is wrong with a snapshot (the live one unless named); return the exit code, 0 when all is well."""
    name = snapshot_id or current_id(folder)
    problems = verify(folder, name)
    print("\n".join(problems) or f"{name}: every file matches its checksum")  # noqa: T201 - the result, on stdout
    return 1 if problems else 0


def roll_back_and_tell(folder: Path, snapshot_id: str) -> str:
    """Make the parent of the live snapshot, or the one named, live; say so."""
    before = current_id(folder)
    return f"{folder.name}: {roll_back(folder, snapshot_id)} is live (was {before}); restart the service to serve it"
