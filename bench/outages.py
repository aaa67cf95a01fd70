"""Kills parts of a running service under load, and says what fails and for how long. About 5 minutes.

    python bench/outages.py --data-dir checkpoints --index docs [--only replica,proxy] [--clients 8]

    replica   SIGKILL of one of two replicas
    hung      SIGSTOP of one of two replicas for 10 s, then SIGCONT
    proxy     SIGKILL of the process that listens
    keeper    SIGKILL of the process of Ray that looks after HAProxy
    plain     SIGKILL of Ray's own proxy, with --ingress proxy
    group     SIGKILL of the process of one of the groups that have the shards (two of them, --group-memory-mb)
    group_of_two   the same, where each group has two processes (--group-replicas 2)
    group_hung     SIGSTOP of it for 10 s, then SIGCONT
    gcs       SIGKILL of the GCS of a service on a Ray of its own, which keeps nothing in Redis
    node      SIGKILL of the second of two nodes, each with a replica
    head      SIGKILL of the GCS of two nodes, which keeps its tables in Redis; it is started again after 10 s

Clients ask without retrying, on kept connections, and give up after 5 s. `failing_s` is the time from the first failure
to the last, `gap_s` the longest time without one answer; `partial` are answers without the shards of a group. The last
line is one JSON object, also written to bench/results/outages.json.
"""

import argparse
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# before a Ray starts: every process of Ray must agree on mode and token
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

from bench.local import LAST_LINE_OF_SERVICE, ROOT, free_port, stop
from bench.swap import QUERIES, REPLICA
from raydex.search import megabytes, split
from raydex.snapshot import current_id, read_manifest
from tests.processes import command_line, descendants

RESULTS = Path(__file__).parent / "results" / "outages.json"
BEFORE_S, HUNG_S, HEADLESS_S = 5.0, 10.0, 10.0
AFTER_S = {"head": 60.0, "gcs": 90.0}
"""How long a scene is looked at; others 25 s."""

CLIENT_TIMEOUT_S, REPLACED_WITHIN_S = 5.0, 60.0

Answer = tuple[float, float, str]
"""When it came, after how many seconds, and what went wrong ("": nothing)."""

PARTIAL = "partial"
"""What is wrong with an answer that says of itself that shards are missing: it is an answer all the same."""


class Asking:
    """Clients that ask until they are stopped."""

    def __init__(self, url: str, index: str, clients: int) -> None:
        self.answers: list[Answer] = []
        self._url, self._index, self._over = url, index, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, first: int) -> None:
        with httpx.Client(base_url=self._url, timeout=CLIENT_TIMEOUT_S) as client:
            for number in count(first * 100_000):
                if self._over.is_set():
                    return
                query = f"{QUERIES[number % len(QUERIES)]} {number}"  # no cache helps
                started = time.monotonic()
                try:
                    answer = client.get("/search", params={"query": query, "index": self._index})
                    wrong = "" if answer.status_code == httpx.codes.OK else str(answer.status_code)
                    if not wrong and len(set(answer.json()["shards_ok"].split("/"))) > 1:
                        wrong = PARTIAL
                except httpx.HTTPError as error:
                    wrong = type(error).__name__
                now = time.monotonic()
                self.answers.append((now, now - started, wrong))
                if wrong not in {"", PARTIAL}:
                    time.sleep(0.05)


ROWS = {
    "replica": "one of two replicas (SIGKILL)",
    "hung": "one of two replicas stands still for 10 s (SIGSTOP)",
    "proxy": "the process that listens (HAProxy, SIGKILL)",
    "keeper": "the process of Ray that looks after HAProxy (SIGKILL)",
    "plain": "Ray's own proxy, with `--ingress proxy` (SIGKILL)",
    "node": "one of two nodes, each with a replica (SIGKILL)",
    "head": "the GCS of two nodes, tables in Redis, back after 10 s (SIGKILL)",
    "gcs": "the GCS of a service on a Ray of its own (SIGKILL)",
}


GROUP_ROWS = {
    "group": "the process of one of two groups (SIGKILL)",
    "group_of_two": "one of the two processes of a group (SIGKILL)",
    "group_hung": "the process of one of two groups stands still for 10 s (SIGSTOP)",
}


def doc_rows(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rows of the table in docs/outages.md."""
    for scene, what in ROWS.items():
        found = result[scene]
        failures = ", ".join(f"{count:,} × {name}" for name, count in found["failures"].items()) or "–"
        p99 = [found["p99_ms"][when] for when in ("before", "after", "last_5_s")]
        cells = " / ".join("nobody answered" if one is None else f"{one:.0f}" for one in p99)
        seconds = f"{found['failing_s']:.1f} s | {found['gap_s']:.1f} s"
        yield f"| {what} | {found['failed']:,} of {found['requests']:,} | {failures} | {seconds} | {cells} |"
    for scene, what in GROUP_ROWS.items():
        found = result[scene]
        cells = " / ".join(f"{found['p99_ms'][when]:.0f}" for when in ("before", "after", "last_5_s"))
        counts = f"{found['failed']:,} of {found['requests']:,} | {found['partial']:,} | {found['partial_s']:.1f} s"
        yield f"| {what} | {counts} | {found['gap_s']:.1f} s | {cells} |"
    yield f"a replica killed after that was replaced within {result['head']['replica_replaced_s']:.0f} s"
    yield f"everything of Ray ends {result['gcs']['first_failure_s']:.0f} s after the GCS"


def measured(url: str, index: str, clients: int, harm: Callable[[], None], after_s: float) -> dict[str, Any]:
    """Return what clients see of a harm that is done after some seconds."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(50):
            client.get("/search", params={"query": f"{QUERIES[0]} {number}", "index": index})
    asking = Asking(url, index, clients)
    time.sleep(BEFORE_S)
    at = time.monotonic()
    harm()
    time.sleep(max(0.0, at + after_s - time.monotonic()))
    asking.end()
    answers = {"", PARTIAL}
    before = [seconds for when, seconds, wrong in asking.answers if when < at and wrong in answers]
    after = [(when, seconds) for when, seconds, wrong in asking.answers if when >= at and wrong in answers]
    failed = [(when, wrong) for when, _, wrong in asking.answers if when >= at and wrong not in answers]
    partial = [when for when, _, wrong in asking.answers if when >= at and wrong == PARTIAL]
    answered = sorted([at, *(when for when, _ in after), asking.answers[-1][0]])
    last = [seconds for when, seconds in after if when > at + after_s - BEFORE_S]
    return {
        "requests": len(after) + len(failed),
        "failed": len(failed),
        "failures": dict(Counter(wrong for _, wrong in failed)),
        "partial": len(partial),
        "partial_s": round(partial[-1] - partial[0], 2) if partial else 0.0,
        "failing_s": round(failed[-1][0] - failed[0][0], 2) if failed else 0.0,
        "first_failure_s": round(failed[0][0] - at, 2) if failed else None,
        "failed_in_the_last_5_s": sum(when > at + after_s - BEFORE_S for when, _ in failed),
        "gap_s": round(float(np.max(np.diff(answered))), 2),
        "p50_ms": {"before": _ms(before, 50), "after": _ms([s for _, s in after], 50), "last_5_s": _ms(last, 50)},
        "p99_ms": {"before": _ms(before, 99), "after": _ms([s for _, s in after], 99), "last_5_s": _ms(last, 99)},
    }


def _ms(seconds: list[float], percent: int) -> float | None:
    return round(1000 * float(np.percentile(seconds, percent)), 1) if seconds else None


@contextmanager
def service(index: str, data_dir: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run serve_index.py with two replicas; yield its URL and its pid."""
    port = free_port()
    fixed = ["--index", index, "--data-dir", str(data_dir), "--port", str(port), "--replicas", "2"]
    command = [sys.executable, "serve_index.py", *fixed, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, text=True)
    try:
        if not any(line.startswith(LAST_LINE_OF_SERVICE) for line in process.stdout or ()):
            raise subprocess.CalledProcessError(process.wait(), "serve_index.py")
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        stop(process)


def replicas(below: int) -> list[int]:
    return sorted(pid for pid in descendants(below) if REPLICA in command_line(pid))


def listeners(below: int) -> list[int]:
    """Return the processes that take requests from the network: HAProxy, or Ray's own proxy."""
    lines = {pid: command_line(pid) for pid in descendants(below)}
    found = [pid for pid, line in lines.items() if Path(line.split(" ")[0]).name.startswith("haproxy")]
    return sorted(found or [pid for pid, line in lines.items() if "ProxyActor" in line])


def keepers(below: int) -> list[int]:
    return sorted(pid for pid in descendants(below) if "HAProxyManager" in command_line(pid))


def group_processes(below: int) -> list[int]:
    return sorted(pid for pid in descendants(below) if "ServeReplica:raydex:ShardGroup1" in command_line(pid))


def gcs(below: int) -> list[int]:
    return sorted(pid for pid in descendants(below) if "/gcs_server " in command_line(pid))


VICTIMS = {
    "replica": (replicas, 1),
    "hung": (replicas, 1),
    "proxy": (listeners, 0),
    "keeper": (keepers, 0),
    "plain": (listeners, 0),
    "gcs": (gcs, 0),
    "group": (group_processes, 1),
    "group_of_two": (group_processes, 1),
    "group_hung": (group_processes, 1),
}
"""Scene → (which processes, how many of them; 0: all)."""


def on_one_node(name: str, index: str, data_dir: Path, clients: int) -> dict[str, Any]:
    arguments: tuple[str, ...] = ("--ingress", "proxy") if name == "plain" else ()
    if "group" in name:
        manifest = read_manifest(data_dir / index, current_id(data_dir / index))
        most_mb = max(map(megabytes, split(manifest, 2)))
        arguments = ("--group-memory-mb", str(most_mb), "--group-replicas", "2" if name == "group_of_two" else "1")
    with service(index, data_dir, *arguments) as (url, pid):
        find, wanted = VICTIMS[name]

        def harm() -> None:
            victims = find(pid)[-wanted:]
            print(f"{name}: {', '.join(command_line(victim)[:80] for victim in victims)}", flush=True)
            for victim in victims:
                os.kill(victim, signal.SIGSTOP if "hung" in name else signal.SIGKILL)
            if "hung" in name:
                time.sleep(HUNG_S)
                os.kill(victims[0], signal.SIGCONT)

        return measured(url, index, clients, harm, AFTER_S.get(name, 25.0))


def on_two_nodes(name: str, index: str, data_dir: Path, clients: int) -> dict[str, Any]:
    with (
        two_nodes(with_redis=name == "head") as (cluster, started),
        service(index, data_dir, "--ray-address", started["address"]) as (url, _),
    ):
        beyond = replicas(started["raylet"])
        print(f"{name}: {len(replicas(cluster.pid))} replicas, {len(beyond)} on the second node", flush=True)

        def harm() -> None:
            if name == "node":
                for pid in (started["raylet"], *descendants(started["raylet"])):
                    os.kill(pid, signal.SIGKILL)
                return
            _say(cluster, "kill-gcs")
            time.sleep(HEADLESS_S)
            _say(cluster, "start-gcs")

        result = {
            "replicas_on_second_node": len(beyond),
            **measured(url, index, clients, harm, AFTER_S.get(name, 25.0)),
        }
        if name == "head":
            result["replica_replaced_s"] = _replaced_s(cluster.pid)
        return result


def _replaced_s(below: int) -> float:
    """Kill a replica; return after how many seconds there is another, which the GCS has to know of."""
    before = replicas(below)
    os.kill(before[0], signal.SIGKILL)
    started = time.monotonic()
    while not set(replicas(below)) - set(before):
        if time.monotonic() - started > REPLACED_WITHIN_S:
            raise TimeoutError("the replica is not replaced")
        time.sleep(0.05)
    return round(time.monotonic() - started, 2)


@contextmanager
def two_nodes(*, with_redis: bool) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Run a cluster of two nodes with one processor each; with_redis: whose GCS may die and come back."""
    with tempfile.TemporaryDirectory(prefix="raydex-outages-") as work:
        environment, redis = dict(os.environ), None
        if with_redis:
            port = str(free_port())
            redis = subprocess.Popen(
                ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", work],
                stdout=subprocess.DEVNULL,
            )
            environment |= {"RAY_REDIS_ADDRESS": f"127.0.0.1:{port}", "RAY_external_storage_namespace": "raydex"}
            environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "60"
        command = [sys.executable, "-m", "tests.two_nodes", "1", "1"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        cluster = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        try:
            line = next(line for line in cluster.stdout or () if line.startswith("{"))
            yield cluster, json.loads(line)
        finally:
            cluster.communicate(timeout=60)  # closes stdin
            if redis:
                stop(redis)


def _say(cluster: "subprocess.Popen[str]", command: str) -> None:
    assert cluster.stdin is not None
    cluster.stdin.write(f"{command}\n")
    cluster.stdin.flush()


SCENES = {
    "replica": on_one_node,
    "hung": on_one_node,
    "proxy": on_one_node,
    "keeper": on_one_node,
    "plain": on_one_node,
    "group": on_one_node,
    "group_of_two": on_one_node,
    "group_hung": on_one_node,
    "gcs": on_one_node,
    "node": on_two_nodes,
    "head": on_two_nodes,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "checkpoints")
    parser.add_argument("--index", default="python-docs")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--only", default=",".join(SCENES))
    options = parser.parse_args()
    result: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    result |= {"clients": options.clients, "processors": os.cpu_count(), "python": platform.python_version()}
    for name in options.only.split(","):
        result[name] = SCENES[name](name, options.index, options.data_dir, options.clients)
        print(f"{name}: {json.dumps(result[name])}", flush=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
