"""Whether the driver notices that its Ray is gone: a raylet and a GCS of sockets alone."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydex import cluster
from raydex.cluster import Pulse
from raydex.errors import ClusterLost
from tests.waiting import eventually


class FakeRay:
    """Listens where Ray's two processes would."""

    def __init__(self, folder: Path) -> None:
        self.raylet = socket.socket(socket.AF_UNIX)
        self.raylet.bind(str(folder / "raylet"))
        self.raylet.listen()
        self.gcs = socket.create_server(("127.0.0.1", 0))
        host, port = self.gcs.getsockname()
        self.address_info = {"raylet_socket_name": str(folder / "raylet"), "gcs_address": f"{host}:{port}"}


@pytest.fixture
def fake_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    monkeypatch.setattr(cluster, "PROBE_EVERY_S", 0.01)
    fake = FakeRay(tmp_path)
    yield fake
    fake.raylet.close()
    fake.gcs.close()


def lost(pulse: Pulse) -> ClusterLost:
    """Return the error as soon as check() raises it."""
    found: list[ClusterLost] = []

    def is_lost() -> bool:
        try:
            pulse.check()
        except ClusterLost as error:
            found.append(error)
        return bool(found)

    eventually(is_lost, within_s=30, poll_s=0.01)
    return found[0]


def test_cluster_that_answers_is_not_lost(fake_ray):
    pulse = Pulse(fake_ray.address_info)
    fake_ray.gcs.accept()[0].close()  # it has been looked at
    pulse.check()
    pulse.stop()


def test_gone_raylet_is_lost_at_once(fake_ray):
    pulse = Pulse(fake_ray.address_info)
    fake_ray.raylet.close()
    assert "Ray's raylet at " in str(lost(pulse))
    pulse.stop()


def test_gone_gcs_is_lost_after_the_time_it_has_to_come_back(fake_ray, monkeypatch):
    monkeypatch.setattr(cluster, "GCS_PATIENCE_S", 0.05)
    pulse = Pulse(fake_ray.address_info)
    fake_ray.gcs.close()
    assert fake_ray.address_info["gcs_address"] in str(lost(pulse))
    pulse.stop()
