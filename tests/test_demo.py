"""`make demo` on a few modules: the real model, the three programs, and nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import command_line, descendants, is_running
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[1]
MODULES = ("shutil", "datetime", "subprocess")


def start(temporary: Path) -> "subprocess.Popen[str]":
    temporary.mkdir()
    return subprocess.Popen(
        [sys.executable, ROOT / "examples" / "demo.py", "--modules", *MODULES],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "COLUMNS": "200", "RAY_TMPDIR": "/tmp"},
    )


def test_demo_finds_the_page_that_answers_each_question_and_leaves_nothing_behind(tmp_path):
    demo = start(tmp_path / "tmp")
    out, err = demo.communicate(timeout=240)
    assert demo.returncode == 0, out + err
    answers = out.split("$ python test_client.py ")[1:]
    for answer, module in zip(answers, MODULES, strict=True):
        best = next(line.strip() for line in answer.splitlines() if "http://127.0.0.1" in line and "--url" not in line)
        assert f"/{module}.html#" in best, answer
    assert '"snapshot_id"' in out
    assert "Your own documentation:" in out
    assert not list((tmp_path / "tmp").glob("raydex-demo-*"))


def test_demo_that_is_interrupted_stops_and_removes_everything(tmp_path):
    demo = start(tmp_path / "tmp")
    eventually(lambda: any("build_index.py" in command_line(pid) for pid in descendants(demo.pid)), within_s=60)
    started = descendants(demo.pid)
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 130, out + err
    eventually(lambda: not any(is_running(pid) for pid in started), within_s=30)
    assert not list((tmp_path / "tmp").glob("raydex-demo-*"))
