"""Which rows go where: the shard of a page, and what is left out as duplicates. No Ray here."""

from collections.abc import Collection
from pathlib import Path

import pyarrow.parquet as pq


def shard_number(page_id: str, shards: int) -> int:
    """The shard of a page: its id modulo the number of shards, so that an edited page touches one shard."""
    return int(page_id[:8], 16) % shards


class Dropped:
    """The pages and sections that are left out as duplicates."""

    FILE = "dropped.parquet"

    def __init__(self, ids: Collection[str]) -> None:
        self.ids = frozenset(ids)

    @classmethod
    def read(cls, build_dir: Path) -> "Dropped":
        return cls(pq.read_table(build_dir / cls.FILE, columns=["id"])["id"].to_pylist())
