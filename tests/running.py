"""build_index.py in a process of its own, with a Ray cluster of its own or on one that runs."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raydex.checkpoint import Ledger
from raydex.snapshot import current_id
from tests.docsite import DocSite
from tests.processes import command_line, descendants
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
BATCH_PAGES = 2
SETTINGS = ("--index", "docs", "--model", "hash", "--batch-pages", str(BATCH_PAGES), "--shards", "32")


class RunningBuild:
    """One run of the command; what it has done so far is read from disk, by anybody at any time."""

    def __init__(self, site: DocSite, data_dir: Path, *more: str) -> None:
        self.index_dir = data_dir / "docs"
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "build_index.py",
            site.url,
            "--data-dir",
            str(data_dir),
            *SETTINGS,
            *more,
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Return as soon as the condition holds; fail when the build ends or the time is over before."""

        def holds() -> bool:
            if condition():
                return True
            assert self.process.poll() is None, self.process.communicate()
            return False

        eventually(holds, within_s=seconds, poll_s=0.005)  # a build passes the points of interest in milliseconds

    def wait_for_more_of(self, finished: Callable[[], int], *, than: int) -> None:
        self.wait_for(lambda: finished() > than)

    def resumed(self, site: DocSite, data_dir: Path) -> "RunningBuild":
        """Start the build again, and wait until it goes on: workers of the killed one may finish a file until then."""
        before = self.events("resume")
        again = RunningBuild(site, data_dir)
        again.wait_for_more_of(lambda: again.events("resume"), than=before)
        return again

    def kill(self) -> None:
        """SIGKILL the driver. Its workers die with the raylet, at once; Ray's two agents take up to a minute more."""
        self.process.kill()
        self.process.communicate()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self, seconds: float = 120) -> tuple[int, str, str]:
        """Wait until it ends; return exit code, stdout, stderr."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            self.process.send_signal(signal.SIGABRT)  # faulthandler says where it hangs
            raise AssertionError(f"not ended within {seconds:g} s: {self.process.communicate()[1]}") from error
        return self.process.returncode, out, err

    def result(self) -> dict[str, Any]:
        code, out, err = self.end()
        assert code == 0, err
        return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]

    def vector_files(self) -> int:
        return len(list((self.index_dir / "vectors").glob("*/*.parquet")))

    def events(self, name: str) -> int:
        """Return how often the ledger of the newest build says so."""
        ledgers = sorted((self.index_dir / "builds").glob("*/ledger.jsonl"))
        return [line["event"] for line in Ledger(ledgers[-1].parent).lines()].count(name) if ledgers else 0

    def sharded(self) -> int:
        return self.events("sharded")

    def processes(self) -> dict[int, str]:
        """Return pid → command line of all that runs below the build."""
        return {pid: command_line(pid) for pid in descendants(self.process.pid)}

    def workers(self, title: str) -> list[int]:
        """Return the pids below the build whose command line holds the title."""
        return [pid for pid, line in self.processes().items() if title in line]


def stored_keys(index_dir: Path) -> Counter[bytes]:
    """Return how often each key lies in the embedding store: more than once, it was embedded in two runs."""
    files = (index_dir / "vectors").glob("*/*.parquet")
    return Counter(key for path in files for key in pq.read_table(path, columns=["key"])["key"].to_pylist())


def shards_written_twice(index_dir: Path) -> list[str]:
    """Return the shards that a ledger names more than once."""
    finished: Counter[str] = Counter()
    for path in (index_dir / "builds").glob("*/ledger.jsonl"):
        lines = Ledger(path.parent).lines()
        finished.update(f"{path.parent.name}/{line['unit_id']}" for line in lines if line["event"] == "sharded")
    return [name for name, count in finished.items() if count > 1]


def manifests_beside_the_live_one(index_dir: Path) -> int:
    live = current_id(index_dir)
    return sum(path.parent.name != live for path in index_dir.glob("snapshots/*/manifest.json"))
