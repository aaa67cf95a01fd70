"""Builds again and again: a tick every so often, a process for each run. No Ray here.

    interval, jitter → waits → build_index.py … → exit code → the next tick, or an earlier retry

    python build_index.py --sources sources.toml --index docs --every 6h

Each run is a process of its own: what it leaks ends with it, not even a crash of Ray's C++ ends the schedule, and the
next run has the code and the libraries that are installed then. Ticks lie on a grid from the start, so a long build
does not shift them; a tick that passes while a build runs is left out.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raydex.build.runs import Run, died
from raydex.errors import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DEFAULT_JITTER = 0.1
FIRST_RETRY_S = 60.0
"""After a failed run; twice as long after each further one, and never later than the next tick."""

STOP_GRACE_S = 30.0
"""What a run gets to end after SIGTERM. It needs about 3 s; what it was at is made again by the next run."""

OK, BAD_SETTINGS, LOCKED, INTERRUPTED = 0, 2, 6, 130


def duration_s(text: str) -> float:
    """Return the seconds of 90s, 30m, 6h or 1d; ConfigError for anything else, and for less than a second."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found or (seconds := float(found[1]) * SECONDS[found[2]]) < 1:
        raise ConfigError(f"--every {text!r}: expected a duration such as 30m, 6h or 1d, of one second or more")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When the next run begins. jitter: each is late by a random share of the interval, up to this one.

    So many hosts with one schedule do not build, and ask one site, at the same moment.
    """

    interval_s: float
    jitter: float
    started: float
    draw: Callable[[], float] = field(default=random.random)

    def next_run(self, now: float, *, failures: int) -> tuple[float, int]:
        """Return when to run next, and how many ticks have passed meanwhile. failures: runs in a row until now."""
        passed = int((now - self.started) // self.interval_s)
        tick = self.started + (passed + 1) * self.interval_s + self.jitter * self.interval_s * self.draw()
        if not failures:
            return tick, passed
        return min(tick, now + FIRST_RETRY_S * 2 ** min(failures - 1, 30)), passed


class Schedule:
    """Runs until it is told to stop. run: one build → its exit code; wait: seconds → True when it is over for good."""

    def __init__(
        self,
        timetable: Timetable,
        *,
        run: Callable[[], int],
        wait: Callable[[float], bool],
        clock: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._timetable, self._run, self._wait, self._clock, self._tell = timetable, run, wait, clock, tell

    def go_on(self) -> int:
        """Return the exit code: 130 when told to stop, 2 when the settings are wrong from the start."""
        failures, ticks_before, is_first = 0, -1, True
        while True:
            code = self._run()
            if code == BAD_SETTINGS and is_first:
                return BAD_SETTINGS
            is_first = False
            failures = 0 if code in {OK, LOCKED} else failures + 1
            now = self._clock()
            at, ticks = self._timetable.next_run(now, failures=failures)
            self._tell(_news(code, failures, ticks - ticks_before - 1, at - now))
            ticks_before = ticks
            if self._wait(max(0.0, at - now)):
                return INTERRUPTED


def _news(code: int, failures: int, left_out: int, wait_s: float) -> str:
    what = {OK: "done", LOCKED: "skipped, another build of this index is running"}.get(code, f"failed with exit {code}")
    again = f", {failures} in a row" if failures > 1 else ""
    late = f"; {left_out} ticks passed meanwhile" if left_out > 0 else ""
    return f"scheduled build {what}{again}{late}; the next one in {_told(wait_s)}"


def _told(seconds: float) -> str:
    unit = next(unit for unit, length in reversed(SECONDS.items()) if seconds >= length or unit == "s")
    return f"{seconds / SECONDS[unit]:.1f} {unit}"


class Runs:
    """Starts the command in a process of its own, and hands SIGTERM and SIGINT on to it."""

    def __init__(self, command: Sequence[str], index_dir: Path) -> None:
        self._command, self._index_dir = command, index_dir
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Return the exit code of one run; minus the signal that killed it. Its output is ours."""
        run = Run()
        self._process = subprocess.Popen(self._command, start_new_session=True)  # noqa: S603 - our own
        if self._over.is_set():  # told to stop while it started
            self._process.terminate()
        code = self._ended(self._process)
        if code not in {OK, BAD_SETTINGS, LOCKED}:
            died(self._index_dir, run, code)
        return code

    def _ended(self, process: "subprocess.Popen[bytes]") -> int:
        while not self._over.is_set():
            try:
                return process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                continue
        try:
            return process.wait(timeout=STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def wait(self, seconds: float) -> bool:
        return self._over.wait(seconds)

    def stop(self, *_: Any) -> None:
        self._over.set()
        if self._process and self._process.poll() is None:
            self._process.terminate()


def without_schedule(arguments: Sequence[str]) -> list[str]:
    """Return the command line of one run: the same, but for --every and --jitter."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--every")
    parser.add_argument("--jitter")
    return parser.parse_known_args(arguments)[1]


def keep_building(arguments: Sequence[str], index_dir: Path, *, every: str, jitter: float) -> int:
    """Run build_index.py with these arguments again and again, until SIGTERM or SIGINT; return the exit code."""
    if not 0 <= jitter <= 1:
        raise ConfigError(f"--jitter {jitter}: a share of the interval, 0 to 1")
    runs = Runs([sys.executable, sys.argv[0], *without_schedule(arguments)], index_dir)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runs.stop)
    timetable = Timetable(interval_s=duration_s(every), jitter=jitter, started=time.monotonic())
    return Schedule(timetable, run=runs.run, wait=runs.wait, clock=time.monotonic, tell=_say).go_on()


def _say(news: str) -> None:
    print(news, file=sys.stderr, flush=True)  # noqa: T201 - the talk of the program
