"""serve_index.py with API keys, as a user runs it: two replicas behind Ray's proxy, a Redis, and what the logs keep."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from raydex.config import CODE_VERSION
from raydex.embed import HashEmbedder
from tests.processes import free_port
from tests.redis_server import PASSWORD, PROGRAM, redis_running
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed"),
]

ROOT = Path(__file__).parent.parent
ASKED = "zebra crossing regulations"


def run(*arguments: str | Path) -> dict[str, str]:
    """Run serve_index.py to its end, and return its JSON line."""
    done = subprocess.run(
        [sys.executable, ROOT / "serve_index.py", *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", {"https://docs.example.org/io.html#a": "Open a file."}, HashEmbedder())
    make_snapshot(data_dir / "intern", {"https://intern.example.org/x.html#a": "Open a file."}, HashEmbedder())
    return data_dir


@pytest.fixture
def redis_url() -> Iterator[str]:
    with redis_running() as server:
        yield server.url


def test_keys_guard_the_running_service_across_replicas_and_end_without_a_restart_and_no_log_has_a_secret(
    data_dir, redis_url
):
    here = ("--data-dir", data_dir)
    limited = run("--create-key", "limited", "--key-indexes", "docs", "--rate", "4/hour", *here)
    ended = run("--create-key", "ended", *here)
    port, secrets = free_port(), [limited["key"], ended["key"], PASSWORD]
    url = f"http://127.0.0.1:{port}"
    with (
        subprocess.Popen(
            [
                sys.executable,
                ROOT / "serve_index.py",
                *here,
                "--port",
                str(port),
                "--replicas",
                "2",
                "--ingress",
                "proxy",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "RAYDEX_ACCESS__REDIS_URL": redis_url},
        ) as server,
        closing(httpx.Client(base_url=url, timeout=30)) as client,
    ):
        assert server.stdout is not None
        shown = []
        for line in server.stdout:
            shown.append(line)
            if line.startswith("try "):
                break
        assert shown[-1:], server.stderr and server.stderr.read()

        def ask(key: str = "") -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return client.get("/search", params={"query": ASKED}, headers=headers)

        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["snapshot"] == {}
        refused = ask()
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="raydex"'
        assert refused.headers.get_list("X-Request-Id") == [refused.json()["error"]["request_id"]]
        assert ask("rdx_guess_" + "a" * 43).status_code == 401

        answers = [ask(limited["key"]) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2  # both replicas count in Redis
        assert list(answers[0].json()["snapshot"]) == ["docs"]
        assert re.fullmatch(r'"rate";r=3;t=\d+', answers[0].headers["RateLimit"])
        assert int(answers[-1].headers["Retry-After"]) >= 1
        for answer in (refused, *answers):
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert CODE_VERSION not in str(answer.headers)
            assert not re.search(r"/\d", answer.headers.get("Server", ""))

        assert ask(ended["key"]).status_code == 200
        run("--revoke-key", ended["key_id"], *here)
        eventually(lambda: {ask(ended["key"]).status_code for _ in range(4)} == {401}, within_s=30)
        server.terminate()
        rest, errors = server.communicate(timeout=60)
    assert server.returncode == 0, rest + errors
    log_dir = Path(next(line.split()[1] for line in shown if line.startswith("logs")))
    texts = {path: path.read_text(errors="replace") for path in log_dir.parent.rglob("*") if path.is_file()}
    texts[Path("shown")] = "".join(shown) + rest + errors
    lines = [line for text in texts.values() for line in text.splitlines() if "method=GET route=" in line]
    assert sum("route=/search status=200" in line for line in lines) >= 5
    assert sum("route=other status=429" in line for line in lines) == 2
    assert sum(f"key={limited['key_id']}" in line for line in lines) == 6
    for path, text in texts.items():
        for secret in (*secrets, *(key.split("_", 2)[2] for key in secrets[:2])):
            assert secret not in text, path
        assert not re.search(ASKED.replace(" ", r"(\+|%20| )"), text), path
