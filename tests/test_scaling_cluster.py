"""The number of replicas follows the load, behind HAProxy as behind Ray's own proxy."""

from pathlib import Path

import pytest

from bench.swap import REPLICA, Load
from raydex.config import ScalingConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import ConfigError
from raydex.serve.deployments import how_many
from raydex.snapshot import current_id
from tests.machines import TEXTS
from tests.processes import command_line, descendants
from tests.service_process import served
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

FLAGS = ("--replicas", "1", "--max-replicas", "2", "--queue-length", "1", "--busy-s", "0", "--calm-s", "1")


@pytest.mark.parametrize("ingress", ["haproxy", "proxy"])
def test_load_adds_a_replica_and_calm_removes_it_without_a_failed_request(tmp_path: Path, ingress: str) -> None:
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    load = Load({current_id(tmp_path / "docs"): False}, "docs")
    with served(tmp_path, "--ingress", ingress, *FLAGS) as (url, pid):

        def replicas() -> int:
            return sum(REPLICA in command_line(below) for below in descendants(pid))

        assert replicas() == 1
        with load.running(url, 1):
            with load.running(url, 8):
                eventually(lambda: replicas() == 2, within_s=90)
            eventually(lambda: replicas() == 1, within_s=120)
    assert dict(load.failed) == {}
    assert load.answers.total() > 0


def test_the_fewest_replicas_are_one_when_the_load_decides_unless_more_are_asked_for():
    counts = [how_many(ServeConfig(replicas=count, scaling=ScalingConfig(max_replicas=3))) for count in (0, 2)]
    limits = [(found["autoscaling_config"].min_replicas, found["autoscaling_config"].max_replicas) for found in counts]
    assert limits == [(1, 3), (2, 3)]
    assert how_many(ServeConfig(replicas=2)) == {"num_replicas": 2}


def test_a_most_below_the_fewest_is_refused_naming_both():
    with pytest.raises(ConfigError, match="max_replicas is 1, less than replicas, 2"):
        how_many(ServeConfig(replicas=2, scaling=ScalingConfig(max_replicas=1)))
