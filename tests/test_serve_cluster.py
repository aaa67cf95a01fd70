"""The service on a real Ray: over HTTP, with its metrics, as the script a user starts and stops."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest

import serve_index
from raydex.analytics.store import Store
from raydex.client import AsyncRaydexClient, RaydexClient, SearchAnswer
from raydex.config import AccessConfig, AnalyticsConfig, LimitsConfig, ServeConfig, ServeTelemetryConfig
from raydex.embed import HashEmbedder
from raydex.errors import ConfigError, ServiceError, SnapshotNotFound
from raydex.records import Vectors
from raydex.serve.engine import Engine
from tests.processes import descendants, free_port, is_running, scrape
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent
WORDS = ("file", "date", "thread", "socket", "module", "class", "string", "list", "loop", "test")
TEXTS = {
    f"https://docs.example.org/{first}.html#{second}": f"{first} {second} {first}{second}"
    for first in WORDS
    for second in WORDS
    if first != second
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", TEXTS, HashEmbedder(), shards=3)
    return data_dir


@pytest.fixture(scope="module")
def url(cluster: Any, data_dir: Path) -> Iterator[str]:
    """The service on the shared cluster, with one index that is open and one that is not built."""
    from ray import serve

    from raydex.serve.deployments import build_application

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    config = ServeConfig(
        data_dir=data_dir,
        index=("docs", "unbuilt"),
        embed_batch=8,
        limits=LimitsConfig(body_timeout_s=1),
        analytics=AnalyticsConfig(query_log="hashes", flush_s=1),
    )
    serve.run(build_application(config), name="raydex", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture
def client(url: str) -> Iterator[RaydexClient]:
    with RaydexClient(url, attempts=1) as client:
        yield client


def test_concurrent_requests_each_get_their_own_answer(client):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: client.search(text, k=1, index=["docs"]), TEXTS.values()))
    assert [answer.results[0].content for answer in answers] == list(TEXTS.values())


def test_an_async_client_asks_many_at_once(url):
    async def ask_all() -> list[SearchAnswer]:
        async with AsyncRaydexClient(url) as client:
            return await asyncio.gather(*(client.search(text, k=1, index=["docs"]) for text in TEXTS.values()))

    assert [answer.results[0].content for answer in asyncio.run(ask_all())] == list(TEXTS.values())


def test_searches_and_verdicts_reach_the_log_on_disk_from_every_replica(client, data_dir):
    client.search("a word that is logged", index=["docs"])
    assert client.feedback("a word that is logged", "https://docs.example.org/file.html#date", "up", index="docs")
    log = Store(data_dir / "_analytics")
    eventually(lambda: {"search", "up"} <= set(log.read(date.min, date.max)["kind"].to_pylist()), within_s=60)
    assert set(log.read(date.min, date.max)["text"].to_pylist()) == {""}
    assert client.report(days=1).searches >= 1


def test_limits_hold_behind_the_proxy(url):
    with httpx.Client(base_url=url, trust_env=False) as http:
        long = http.post("/search", content=b"x" * 2_000_000, headers={"Content-Type": "application/json"})
        deep = http.post("/search", content=b"[" * 100, headers={"Content-Type": "application/json"})
        late = http.get("/search?query=x&index=docs&timeout_ms=100000")
    answers = [(answer.status_code, answer.json()["error"]["type"]) for answer in (long, deep, late)]
    assert answers == [(413, "body_too_large"), (422, "query_error"), (422, "query_error")]


def test_a_body_that_trickles_is_let_go_behind_the_proxy(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        connection.sendall(head.encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_batch_is_answered_in_order(client):
    queries = list(TEXTS.values())[:20]
    batch = client.search_many(queries, k=1, index=["docs"])
    assert [answer.results[0].content for answer in batch.answers] == queries


def test_a_section_id_with_slashes_and_anchor_passes_the_proxy(client):
    section_id = next(iter(TEXTS))
    assert client.section(section_id).source == section_id


def test_suggestions_pass_the_proxy_and_lead_to_their_sections(client):
    found = client.suggest("thre", k=20, index=["docs"]).suggestions
    assert {one.kind for one in found} == {"title", "heading"}
    assert all(one.url.split("#")[0] in {url.split("#")[0] for url in TEXTS} for one in found)


def test_errors_have_the_shape_and_one_request_id(url, client):
    with pytest.raises(ServiceError, match="k: ") as refused:
        client.search("x", k=0)
    assert refused.value.status == 422
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}/search?query=x&index=unbuilt")
    with caught.value as response:
        error = json.load(response)["error"]
        assert response.status == 503
        assert response.headers["Retry-After"]
        assert response.headers.get_all("X-Request-Id") == [error["request_id"]]


def test_readiness_names_the_index_that_is_not_open(client):
    assert not client.ready()
    with pytest.raises(ServiceError, match=r"build_index\.py URL --index unbuilt"):
        client.wait_ready(0)


class NamedModels:
    """An engine whose vectors tell who made them of what."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        self.calls.append((model_id, list(texts)))
        return np.array([[ord(model_id), ord(text)] for text in texts], np.float32)


def test_a_batch_of_two_models_asks_each_once_and_keeps_the_order():
    from raydex.serve.deployments import embed_mixed

    engine = NamedModels()
    items = [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")]
    rows = embed_mixed(cast(Engine, engine), items)
    assert [(chr(int(row[0])), chr(int(row[1]))) for row in rows] == items
    assert engine.calls == [("a", ["x", "y"]), ("b", ["x"])]


def test_folders_mean_the_same_to_a_replica_that_starts_elsewhere(tmp_path, monkeypatch):
    from raydex.serve.deployments import for_any_folder

    monkeypatch.chdir(tmp_path)
    config = ServeConfig(
        data_dir=Path("data"),
        access=AccessConfig(keys_file=Path("keys.json")),
        analytics=AnalyticsConfig(query_log_dir=Path("log")),
    )
    there = for_any_folder(config)
    monkeypatch.chdir("/")
    found = [there.folder, there.keys_path, there.analytics_dir, for_any_folder(ServeConfig()).analytics_dir.name]
    assert found == [tmp_path / "data", tmp_path / "keys.json", tmp_path / "log", "_analytics"]


def test_every_deployment_logs_as_the_settings_say_and_no_calls(data_dir):
    from raydex.serve.deployments import build_application

    golden = data_dir / "queries.jsonl"
    golden.write_text('{"id": "q", "query": "file", "gold": ["https://docs.example.org/file.html#date"]}')
    telemetry = ServeTelemetryConfig(log_format="json")
    config = ServeConfig(data_dir=data_dir, replicas=2, canary_queries=str(golden), telemetry=telemetry)
    application: Any = build_application(config)
    service = application._bound_deployment
    beside = [one._bound_deployment for one in service.init_kwargs.values()]
    assert [one.name for one in beside] == ["SwapCouncil", "Canary"]
    for one in (service, *beside):
        assert one._deployment_config.logging_config["encoding"] == "JSON"
        assert one._deployment_config.logging_config["enable_access_log"] is False


def test_metrics_can_be_scraped_where_service_discovery_says(cluster, client):
    client.search("file date", k=3, index=["docs"])
    with pytest.raises(ServiceError):
        client.search(" ")
    service_discovery = Path(cluster.address_info["session_dir"]) / "prom_metrics_service_discovery.json"
    eventually(service_discovery.exists, within_s=60)
    wanted = {
        "ray_raydex_requests",
        "ray_raydex_request_seconds",
        "ray_raydex_search_stage_seconds",
        "ray_raydex_results",
        "ray_raydex_answers",
        "ray_raydex_waiting",
        "ray_raydex_snapshot_age_seconds",
        "ray_raydex_snapshot_chunks",
        "ray_raydex_snapshot_bytes",
    }
    families = eventually(lambda: f if wanted <= set(f := scrape(service_discovery)) else None, within_s=60)
    assert families is not None
    requests = families["ray_raydex_requests"]
    labels = [sample.labels for sample in requests.samples if sample.name == "ray_raydex_requests_total"]
    assert {("/search", "ok"), ("/search", "client_error")} <= {(row["route"], row["outcome"]) for row in labels}
    assert {(row["application"], row["deployment"]) for row in labels} == {("raydex", "SearchService")}
    stages = {sample.labels["stage"] for sample in families["ray_raydex_search_stage_seconds"].samples}
    assert stages - {"groups"} == {  # that one is of another test on this cluster, which Ray still exports
        "validate",
        "embed",
        "filter",
        "lexical",
        "scan",
        "merge",
        "score",
        "fuse",
        "present",
        "serialise",
        "total",
    }
    assert len(TEXTS) in {sample.value for sample in families["ray_raydex_snapshot_chunks"].samples}


def test_the_builder_for_serve_run_makes_a_working_application(url, data_dir):
    from ray import serve

    application = serve_index.app({"index": "docs", "data_dir": str(data_dir), "max_k": "3"})
    serve.run(application, name="built", route_prefix="/built")
    with RaydexClient(f"{url}/built") as client:
        assert client.ready()
        assert client.search("file date", k=1).results[0].source == "https://docs.example.org/file.html#date"
        with pytest.raises(ServiceError, match="allowed are 1 to 3"):
            client.search("file", k=4)
    serve.delete("built")


def test_the_builder_refuses_unknown_settings_and_missing_snapshots(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown setting indx; known: .*index"):
        serve_index.app({"indx": "docs"})
    with pytest.raises(ConfigError, match="max_k"):
        serve_index.app({"max_k": "many"})
    with pytest.raises(SnapshotNotFound, match=r"build_index\.py URL --index docs"):
        serve_index.app({"index": "docs", "data_dir": str(tmp_path)})


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "serve_index.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_script_serves_until_a_signal_and_leaves_no_process_behind(data_dir, stop):
    port = free_port()
    with start("--data-dir", data_dir, "--index", "docs", "--port", str(port)) as server:
        assert server.stdout is not None
        shown = []
        for line in server.stdout:
            shown.append(line)
            if line.startswith("try "):
                break
        url = f"http://127.0.0.1:{port}"
        text = "".join(shown)
        assert f"{url}/docs" in text, server.stderr and server.stderr.read()
        assert "dashboard   http://127.0.0.1:" in text
        assert "prom_metrics_service_discovery.json" in text
        assert "the one in RAY_AUTH_TOKEN" in text
        assert os.environ["RAY_AUTH_TOKEN"] not in text
        smoke = subprocess.run(
            [sys.executable, ROOT / "test_client.py", "--url", url, "--wait", "30"], capture_output=True, text=True
        )
        assert smoke.returncode == 0, smoke.stdout + smoke.stderr
        started = descendants(server.pid)
        assert len(started) > 5
        server.send_signal(stop)
        rest, errors = server.communicate(timeout=60)
    assert server.returncode == 0, rest + errors
    assert errors == ""
    eventually(lambda: not any(is_running(pid) for pid in started), within_s=30)


def test_the_script_without_a_snapshot_names_the_build_command_and_exits_2(tmp_path, capsys):
    assert serve_index.main(["--data-dir", str(tmp_path), "--index", "docs"]) == 2
    assert "python build_index.py URL --index docs" in capsys.readouterr().err
    assert serve_index.main(["--data-dir", str(tmp_path)]) == 2


def test_the_script_refuses_a_taken_port_and_names_it(data_dir, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert serve_index.main(["--data-dir", str(data_dir), "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err


def test_the_script_refuses_an_address_that_is_not_its_own(data_dir, capsys):
    assert serve_index.main(["--data-dir", str(data_dir), "--host", "192.0.2.1", "--allow-anonymous"]) == 2
    assert "of 192.0.2.1 cannot be used" in capsys.readouterr().err


def test_the_script_reads_the_serve_table_of_a_sources_file(tmp_path, data_dir, capsys):
    sources = tmp_path / "sources.toml"
    sources.write_text(f'[serve]\ndata_dir = "{data_dir}"\nport = 0\n')
    assert serve_index.main(["--sources", str(sources)]) == 2
    assert f"port = 0 (from {sources})" in capsys.readouterr().err
    assert serve_index.main(["--sources", str(tmp_path / "none.toml")]) == 2


def test_help_documents_examples_exit_codes_and_every_setting(capsys):
    with pytest.raises(SystemExit):
        serve_index.main(["--help"])
    shown = capsys.readouterr().out
    assert "exit codes:" in shown
    assert "RAYDEX_MAX_K" in shown
