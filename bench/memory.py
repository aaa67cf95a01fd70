"""Memory of a command and all the processes below it, sampled while it runs.

    peak, line, wall_s = watch(["build_index.py", …])      Counter(driver=…, workers=…, ray=…), bytes

A process counts with its unique set size (private pages in /proc/PID/smaps_rollup): what would be free without it.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.local import ROOT, stop
from tests.processes import command_line, descendants

SAMPLE_S = 0.2
IDLE_S = 10
"""Until a new Ray's dashboard and agents have loaded all they load."""

IDLE_RAY = "from raydex.cluster import ray_running\nwith ray_running(''):\n    print('ready', flush=True)\n    input()"
RAY_PROGRAMS = (
    "raylet/raylet",
    "gcs/gcs_server",
    "dashboard/dashboard.py",
    "dashboard/agent.py",
    "runtime_env/agent/main.py",
    "_private/log_monitor.py",
    "autoscaler/_private/monitor.py",
)
"""How the programs that Ray runs beside its workers are called on their command lines."""


def idle_ray() -> Counter[str]:
    """Return the sizes of a Ray without work, by kind of process, when it has settled."""
    command = [sys.executable, "-c", IDLE_RAY]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise subprocess.CalledProcessError(process.wait(), "an idle Ray")
            time.sleep(IDLE_S)
            return sizes(process.pid)
        finally:
            process.communicate("\n")


def watch(arguments: list[str]) -> tuple[Counter[str], dict[str, Any], float]:
    """Run a script of the repository; return its largest sample, the JSON of its last line, its wall seconds."""
    started, peak = time.perf_counter(), Counter[str]()
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while process.poll() is None:
            peak = max(peak, sizes(process.pid), key=Counter.total)
            time.sleep(SAMPLE_S)
    finally:
        stop(process)
    out = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak, json.loads(out.splitlines()[-1]), round(time.perf_counter() - started, 2)


def sizes(driver: int) -> Counter[str]:
    """Return bytes held by the tree below and with the driver: of itself, Ray's own programs, and the workers."""
    sizes: Counter[str] = Counter(driver=_unique_bytes(driver))
    for pid in descendants(driver):
        line = command_line(pid)
        is_worker = "ray::" in line or "default_worker.py" in line
        sizes["ray" if not is_worker and any(name in line for name in RAY_PROGRAMS) else "workers"] += _unique_bytes(
            pid
        )
    return sizes


def _unique_bytes(pid: int) -> int:
    """Return the memory that would be free if this process ended; 0 when it has."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def mb(size: int) -> float:
    return round(size / 1e6, 1)
