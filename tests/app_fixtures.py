"""Two small indexes, and the app over them in process: what tests of the HTTP face share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from raydex.embed import HashEmbedder
from raydex.serve.recorder import MemoryRecorder
from tests.serving import OTHER_TEXTS, TEXTS, client_for, config_for
from tests.snapshots import make_snapshot


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    make_snapshot(tmp_path / "other", OTHER_TEXTS, HashEmbedder(), shards=1)
    return tmp_path


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def client(data_dir: Path, recorder: MemoryRecorder) -> Iterator[TestClient]:
    with client_for(config_for(data_dir), recorder) as client:
        yield client
