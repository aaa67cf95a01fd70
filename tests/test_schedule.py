"""Builds on a schedule: when they run, what a failure, a lock or a SIGTERM does, and what is kept of the last run."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import build_index
from raydex.build.runs import RECENT, Run, died, last_run, recorded
from raydex.build.schedule import Runs, Schedule, Timetable, duration_s, without_schedule
from raydex.checkpoint import build_lock
from raydex.errors import BuildLocked, ConfigError, NothingToIndex
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
HOUR = 3600.0


class Clock:
    """A clock that only moves when somebody waits, or a build takes its time."""

    def __init__(self, waits: int) -> None:
        self.now, self.waited, self._left = 0.0, list[float](), waits

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.now += seconds
        self._left -= 1
        return self._left < 0


def scheduled(codes, *, takes_s=60.0, jitter=0.0, draw=0.5):
    """Run builds with these exit codes, hourly; return exit code, when each began, what was said."""
    clock, begun = Clock(waits=len(codes) - 1), list[float]()
    said: list[str] = []
    answers = iter(codes)

    def run():
        begun.append(clock.now)
        clock.now += takes_s
        return next(answers)

    timetable = Timetable(interval_s=HOUR, jitter=jitter, started=0.0, draw=lambda: draw)
    schedule = Schedule(timetable, run=run, wait=clock.wait, clock=clock, tell=said.append)
    return schedule.go_on(), begun, said


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), ("1.5d", 129600)])
def test_duration_is_a_number_and_a_unit(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["6", "h", "6 hours", "-1h", "0s", ""])
def test_anything_else_is_no_duration(text):
    with pytest.raises(ConfigError, match="30m, 6h or 1d"):
        duration_s(text)


def test_builds_begin_at_once_and_then_on_a_grid_that_their_length_does_not_shift():
    code, begun, said = scheduled([0, 0, 0], takes_s=600)
    assert (code, begun) == (130, [0, HOUR, 2 * HOUR])
    assert said == ["scheduled build done; the next one in 50.0 m"] * 3


def test_jitter_makes_each_build_late_by_a_share_of_the_interval():
    assert scheduled([0, 0, 0], jitter=0.5, draw=0.5)[1] == [0, 1.25 * HOUR, 2.25 * HOUR]


def test_tick_that_passes_during_a_long_build_is_left_out_and_reported():
    _, begun, said = scheduled([0, 0], takes_s=2.5 * HOUR)
    assert begun == [0, 3 * HOUR]
    assert "2 ticks passed meanwhile" in said[0]


def test_tick_that_finds_the_lock_taken_is_skipped_and_no_failure():
    _, begun, said = scheduled([6, 6, 0])
    assert begun == [0, HOUR, 2 * HOUR]
    assert said[0].startswith("scheduled build skipped, another build of this index is running")


def test_failed_build_is_tried_again_ever_later_and_never_later_than_the_next_tick():
    _, begun, said = scheduled([1, 3, -9, 1, 1, 1, 1, 0, 0], takes_s=0)
    assert begun == [0, 60, 180, 420, 900, 1860, HOUR, 2 * HOUR, 3 * HOUR]
    assert "failed with exit -9, 3 in a row" in said[2]


def test_bad_settings_end_a_schedule_at_its_first_run_only():
    assert scheduled([2])[0] == 2
    assert scheduled([0, 2, 0])[:2] == (130, [0, HOUR, HOUR + 120])


def test_run_is_the_same_command_without_the_schedule():
    given = ["--every", "6h", "https://a/", "--index=docs", "--jitter=0.2", "--max-pages", "5"]
    assert without_schedule(given) == ["https://a/", "--index=docs", "--max-pages", "5"]


@pytest.mark.parametrize("more", [["--every", "soon"], ["--every", "6h", "--jitter", "2"]])
def test_wrong_schedule_ends_with_2(more, tmp_path, capsys):
    assert build_index.main(["https://a/", "--data-dir", str(tmp_path), *more]) == 2
    assert more[-1] in capsys.readouterr().err


def program(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def test_stopped_schedule_ends_its_build_with_sigterm_and_waits_for_it(tmp_path):
    started = tmp_path / "started"
    handler = "signal.signal(signal.SIGTERM, lambda *_: exit(130))"
    text = f"import pathlib, signal\n{handler}\npathlib.Path({str(started)!r}).touch()\nsignal.pause()"
    runs = Runs(program(tmp_path, text), tmp_path)

    def stop_when_started() -> None:
        eventually(started.exists, within_s=30, poll_s=0.01)
        runs.stop()

    stopper = threading.Thread(target=stop_when_started)
    stopper.start()
    assert runs.run() == 130
    assert runs.wait(60)
    stopper.join()


def test_build_that_ignores_sigterm_is_killed_after_the_grace(tmp_path, monkeypatch):
    monkeypatch.setattr("raydex.build.schedule.STOP_GRACE_S", 0.05)
    text = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pause()"
    runs = Runs(program(tmp_path, text), tmp_path)
    runs.stop()
    assert runs.run() in {-signal.SIGKILL, -signal.SIGTERM}  # SIGTERM: it came before the program could ignore it


def test_run_that_was_killed_is_recorded_by_the_schedule(tmp_path):
    runs = Runs(program(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), tmp_path)
    assert runs.run() == -signal.SIGKILL
    assert (last_run(tmp_path)["outcome"], last_run(tmp_path)["exit_code"]) == ("died", -signal.SIGKILL)


def test_last_run_is_a_file_that_keeps_the_last_success_and_the_exit_codes(tmp_path):
    with recorded(tmp_path, build_index.exit_code):
        pass
    success = last_run(tmp_path)
    for _ in range(2):
        with pytest.raises(NothingToIndex), recorded(tmp_path, build_index.exit_code):
            raise NothingToIndex("docs", "http_404: 1", "report.json")
    last = last_run(tmp_path)
    assert (success["exit_code"], success["failures_in_a_row"]) == (0, 0)
    assert (last["exit_code"], last["outcome"], last["failures_in_a_row"]) == (4, "NothingToIndex", 2)
    assert last["last_success_at"] == success["ended_at"]
    assert [run["exit_code"] for run in last["recent"]] == [4, 4, 0]


def test_interrupted_run_is_recorded_with_130(tmp_path):
    with pytest.raises(KeyboardInterrupt), recorded(tmp_path, build_index.exit_code):
        raise KeyboardInterrupt
    assert (last_run(tmp_path)["exit_code"], last_run(tmp_path)["outcome"]) == (130, "interrupted")


def test_only_the_newest_runs_are_kept_and_a_damaged_file_is_as_good_as_none(tmp_path):
    for number in range(RECENT + 2):
        Run().record(tmp_path, exit_code=number, outcome="x", message="")
    assert [run["exit_code"] for run in last_run(tmp_path)["recent"]] == list(range(RECENT + 1, 1, -1))
    (tmp_path / "last_build.json").write_text("{")
    assert last_run(tmp_path) == {}


def test_record_that_cannot_be_written_ends_no_run_that_succeeded(tmp_path, caplog):
    (tmp_path / "last_build.json").mkdir()
    with recorded(tmp_path, build_index.exit_code):
        pass
    assert "run not recorded" in caplog.text


def test_run_refused_by_the_lock_leaves_the_record_of_the_one_that_runs(tmp_path):
    with pytest.raises(BuildLocked), recorded(tmp_path, build_index.exit_code):
        raise BuildLocked("docs", "pid 1")
    assert last_run(tmp_path) == {}


def test_run_that_recorded_its_own_end_is_not_recorded_again(tmp_path):
    run = Run()
    Run().record(tmp_path, exit_code=1, outcome="StorageFull", message="full")
    died(tmp_path, run, 1)
    assert last_run(tmp_path)["outcome"] == "StorageFull"


def test_second_build_of_an_index_ends_with_6_and_names_pid_host_and_start_of_the_first(tmp_path, capsys):
    with build_lock(tmp_path / "docs"):
        arguments = ["https://a.example/", "--index", "docs", "--data-dir", str(tmp_path), "--model", "hash"]
        assert build_index.main(arguments) == 6
    note = (tmp_path / "docs" / "build.lock").read_text()
    assert note in capsys.readouterr().err
    assert [word in note for word in ("pid ", " on ", " since ")] == [True] * 3
    assert json.dumps(last_run(tmp_path / "docs")) == "{}"


def test_schedule_whose_index_is_locked_reports_the_skipped_tick_and_ends_at_sigterm_with_130(tmp_path):
    settings = ["--index", "docs", "--data-dir", str(tmp_path), "--model", "hash", "--every", "1h"]
    command = [sys.executable, "build_index.py", "https://a.example/", *settings]
    with build_lock(tmp_path / "docs"):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        said = iter(process.stderr)
        assert next(line for line in said if "is being built by pid " in line)
        assert next(line for line in said if "scheduled build skipped" in line)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 130
