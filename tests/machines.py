"""Machines with a mirror of their own that work on one index on S3, and what tests ask of them."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count

import build_index
from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.serve.engine import Engine
from raydex.storage.mirror import Storage, open_storage
from tests.builder import Builder
from tests.snapshots import make_snapshot


class Machine(Builder):
    """A machine with a mirror of its own that builds and looks after an index on S3."""

    def __init__(self, uri, work_dir, capsys):
        super().__init__(work_dir, capsys)
        self.uri, self.work_dir = uri, work_dir

    def __call__(self, *arguments):
        fixed = ["--index", "docs", "--data-dir", self.uri, "--work-dir", str(self.work_dir), "--model", "hash"]
        code = build_index.main([*arguments, *fixed])
        self.stdout, self.stderr = self._capsys.readouterr()
        last = self.stdout.splitlines()[-1] if self.stdout else ""
        return code, json.loads(last) if last.startswith("{") else {}

    def storage(self) -> Storage:
        found = open_storage(self.uri, self.work_dir)
        assert found
        return found

    def engine(self) -> Engine:
        return Engine(ServeConfig(data_dir=self.uri, work_dir=self.work_dir, index=("docs",)))


def sent(requests, method, part=""):
    return [line for line in requests if line.startswith(method) and part in line]


TEXTS = {f"https://docs.example.org/{word}.html#{word}": f"all about {word}" for word in ("file", "date", "loop")}

SECONDS = count()


def published(machine, texts):
    """Publish a snapshot without a crawl; return its manifest."""
    storage = machine.storage()
    with storage.alone("docs") as lease:
        folder = storage.pull("docs", alone=True)
        now = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=next(SECONDS))  # no two of one age
        manifest = make_snapshot(folder, texts, HashEmbedder(), published=False, now=now)
        storage.push("docs", lease)
        storage.make_live("docs", manifest.snapshot_id, "published")
    return manifest


def first_hit(engine, text):
    index = engine.select(["docs"])[0]
    vectors = engine.embed(index.model_id, [text])
    return engine.indexes["docs"].searcher.holdings.dense.search(vectors, k=1)[0][0]
