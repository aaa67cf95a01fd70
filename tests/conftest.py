"""Shared by all tests: no network beyond this machine, no models from the hub, one Ray cluster for a session."""

import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from raydex.config import CrawlConfig
from tests.docsite import DocSite, page
from tests.fetching import SyncFetcher, Waits, fetching

# Before ray is imported, and inherited by every process a test starts: all must agree on mode and token.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("RAY_ADDRESS", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; what tests start would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The same examples in every run, and no limit on wall-clock time: machines are shared, and a test that fails must fail
# again. For new examples: HYPOTHESIS_PROFILE=new python -m pytest tests/test_parse_fuzz.py
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("new", deadline=None)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


class NetworkForbidden(Exception):
    """A test wanted to leave this machine."""


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(address[0]):
            raise NetworkForbidden(f"tests stay on this machine, {address[0]} is elsewhere")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ip_address(host).is_loopback


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A local Ray cluster; its `session_dir` holds what Prometheus would read."""
    import ray  # 1 s, and only tests marked `cluster` need it

    context = ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=150 * 2**20,
        include_dashboard=True,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.2",
    )
    yield context
    ray.shutdown()


@pytest.fixture
def site() -> Iterator[DocSite]:
    """A site of one page; a module that needs another has a fixture of its own."""
    with DocSite({"index.html": page("Home", "The first page.")}) as site:
        yield site


@pytest.fixture
def index_dir(tmp_path: Path) -> Path:
    return tmp_path / "docs"


@pytest.fixture
def build(tmp_path: Path, capsys: pytest.CaptureFixture[str], cluster: Any) -> Any:
    """build_index.py on the session's cluster, into a folder of the test."""
    from tests.builder import Builder  # it imports ray

    return Builder(tmp_path, capsys)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def fetcher(waits: Waits) -> Iterator[SyncFetcher]:
    with fetching(CrawlConfig(), wait=waits.wait, clock=waits.clock) as fetcher:
        yield fetcher
