"""What became of the last runs of an index: checkpoints/<index>/last_build.json, whole at any time. No Ray here.

with recorded(index_dir, exit_code): run_build(…)        → last_build.json, whether it returned or raised

A run that a signal killed writes nothing; a schedule (schedule.py) writes for it.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raydex.build.report import BuildResult
from raydex.errors import BuildLocked, RaydexError
from utils.files import write_bytes

logger = logging.getLogger(__name__)

FILE = "last_build.json"
RECENT = 20
"""Runs whose exit codes are kept."""


def last_run(index_dir: Path) -> dict[str, Any]:
    """Return what the file says; empty without one, or when it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((index_dir / FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("last run unreadable index=%s reason=%s", index_dir.name, error)
        return {}
    return found


class Run:
    """One run of the command. succeeded: it did what was asked for; result: of its build, when that came to an end."""

    def __init__(self) -> None:
        self.started_at, self._started = _now(), time.monotonic()
        self.result: BuildResult | None = None

    def record(self, index_dir: Path, *, exit_code: int, outcome: str, message: str) -> None:
        """Write the file. last_success_at and failures_in_a_row go on from what it said."""
        before = last_run(index_dir)
        succeeded = exit_code == 0
        run = {
            "started_at": self.started_at,
            "ended_at": _now(),
            "seconds": round(time.monotonic() - self._started, 1),
            "exit_code": exit_code,
            "outcome": outcome,
        }
        result = self.result
        success = {
            "last_success_at": run["ended_at"],
            "last_success_seconds": run["seconds"],
            "last_success_snapshot_id": result.snapshot_id if result else "",
        }
        kept = {name: before[name] for name in success if name in before}
        told = {
            **run,
            "message": message,
            "build_id": result.build_id if result else "",
            **(success if succeeded else kept),
            "failures_in_a_row": 0 if succeeded else before.get("failures_in_a_row", 0) + 1,
            "recent": [run, *before.get("recent", ())][:RECENT],
        }
        write_bytes(index_dir / FILE, json.dumps(told, indent=1).encode())


@contextmanager
def recorded(index_dir: Path, exit_code_of: Callable[[BaseException], int]) -> Iterator[Run]:
    """Record the run in the block, however it ends; one that was refused because another runs leaves no trace."""
    run = Run()
    try:
        yield run
    except BuildLocked:
        raise
    except BaseException as error:
        outcome = type(error).__name__ if isinstance(error, RaydexError) else _outcome_of(error)
        _record(run, index_dir, exit_code_of(error), outcome, str(error))
        raise
    _record(run, index_dir, 0, "published", "")


def _record(run: Run, index_dir: Path, exit_code: int, outcome: str, message: str) -> None:
    try:
        run.record(index_dir, exit_code=exit_code, outcome=outcome, message=message)
    except OSError as error:  # a full disk: how the run itself ended is what counts
        logger.warning("run not recorded index=%s reason=%s", index_dir.name, error)


def _outcome_of(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "unexpected"


def died(index_dir: Path, started: Run, exit_code: int) -> None:
    """Record a run that could not do so itself. exit_code: minus the signal that killed it, or the code of a crash."""
    before: Mapping[str, Any] = last_run(index_dir)
    if before.get("started_at", "") < started.started_at:
        _record(started, index_dir, exit_code, "died", f"ended with {exit_code} without a word")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
