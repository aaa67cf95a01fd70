"""Parts of a running service die, as bench/outages.py measures it; here only that it comes back, by itself."""

from pathlib import Path

import pytest

from bench.outages import SCENES
from raydex.embed import HashEmbedder
from tests.machines import TEXTS
from tests.snapshots import make_snapshot

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", ["proxy", "node"])
def test_a_service_goes_on_by_itself_after_the_death_of(name, tmp_path: Path):
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    seen = SCENES[name](name, "docs", tmp_path, 2)
    assert seen["requests"] > seen["failed"]
    assert seen["p50_ms"]["last_5_s"] is not None
    assert seen["failed_in_the_last_5_s"] == 0
    if name == "node":
        assert seen["replicas_on_second_node"] == 1
