"""A running service follows CURRENT: what a caller sees of it, in process."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from starlette.testclient import TestClient

from raydex.build.garbage import choose, collect
from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import EmbedError
from raydex.lineage import roll_back, roll_forward
from raydex.records import Vectors
from raydex.serve import engine as engine_module
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from raydex.snapshot import current_id, publish, read_manifest, stored_objects
from raydex.storage.readers import FOLDER, LEASE_S, ReaderLeases, leased
from tests.machines import TEXTS, Machine, published
from tests.snapshots import make_snapshot
from tests.waiting import eventually

SECONDS = count()
QUERY = "all about file"


def make(data_dir: Path, word: str, index: str = "docs", *, live: bool = True, **options: Any) -> str:
    """Write a snapshot in which every text ends with a word; return its id."""
    now = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=next(SECONDS))
    texts = {url: f"{text} {word}" for url, text in TEXTS.items()}
    embedder = options.pop("embedder", HashEmbedder())
    return make_snapshot(data_dir / index, texts, embedder, now=now, published=live, **options).snapshot_id


class Service:
    """The app in process, and what it is asked."""

    def __init__(self, data_dir: Path, backend: type[DirectBackend] = DirectBackend, **settings: Any) -> None:
        self.config = ServeConfig(data_dir=data_dir, **{"swap_check_s": 0.02, **settings})
        self.engine, self.recorder = Engine(self.config), MemoryRecorder()
        self.backend = backend(self.engine, self.recorder)
        self.client = TestClient(create_app(self.backend, self.config))

    def __enter__(self) -> "Service":
        self.client.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.__exit__(*exception)

    def answer(self) -> tuple[str, str]:
        """Return the snapshot that a search names, and the last word of its first hit."""
        found = self.client.get("/search", params={"query": QUERY, "index": "docs"}).json()
        return found["snapshot"]["docs"], found["results"][0]["content"].rpartition(" ")[2]

    def status(self, index: str = "docs") -> dict[str, Any]:
        rows = self.client.get("/indexes").json()["indexes"]
        return next((row for row in rows if row["name"] == index), {})

    def serves(self, snapshot_id: str, index: str = "docs") -> bool:
        return bool(self.status(index).get("snapshot_id") == snapshot_id)

    def swaps(self, outcome: str, index: str = "docs") -> int:
        return len(self.recorder.values("raydex_swaps", index=index, outcome=outcome))


@pytest.fixture
def first(tmp_path: Path) -> str:
    return make(tmp_path, "first")


@pytest.fixture
def service(tmp_path: Path, first: str) -> Iterator[Service]:
    with Service(tmp_path) as service:
        yield service


def test_a_published_snapshot_is_served_without_a_restart_and_so_is_a_roll_back(service, tmp_path, first):
    assert service.answer() == (first, "first")
    second = make(tmp_path, "second")
    eventually(lambda: service.serves(second), within_s=20)
    assert service.answer() == (second, "second")
    assert not service.status()["stale"]
    roll_back(tmp_path / "docs", first)
    eventually(lambda: service.serves(first), within_s=20)
    assert service.answer() == (first, "first")
    roll_forward(tmp_path / "docs")
    eventually(lambda: service.serves(second), within_s=20)
    assert service.swaps("swapped") == len(service.recorder.values("raydex_swap_seconds", index="docs")) == 3
    assert service.swaps("refused") == 0


class HeldBackend(DirectBackend):
    """Embeds a query only when it may: so a request can be held while something else happens."""

    held, goes_on = threading.Event(), threading.Event()

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        if texts == [QUERY]:
            self.held.set()
            await asyncio.to_thread(self.goes_on.wait)
        return await super().embed(model_id, texts)


def test_a_request_is_answered_by_the_snapshot_it_began_with_which_then_closes(tmp_path, first):
    with Service(tmp_path, HeldBackend) as service:
        old = ref(service.engine.indexes["docs"])
        before = set(stored_objects([service.engine.indexes["docs"].manifest]))
        answers: list[tuple[str, str]] = []
        asking = threading.Thread(target=lambda: answers.append(service.answer()))
        asking.start()
        assert HeldBackend.held.wait(20)
        second = make(tmp_path, "second")
        names = before - set(stored_objects([read_manifest(tmp_path / "docs", second)]))
        eventually(lambda: service.serves(second), within_s=20)
        assert old() is not None
        assert any(name in Path("/proc/self/maps").read_text() for name in names)
        HeldBackend.goes_on.set()
        asking.join()
        assert answers == [(first, "first")]
        assert service.answer() == (second, "second")
        eventually(lambda: old() is None, within_s=20)
        assert not any(name in Path("/proc/self/maps").read_text() for name in names)


def damage(tmp_path: Path, snapshot_id: str) -> Path:
    manifest = read_manifest(tmp_path / "docs", snapshot_id)
    return tmp_path / "docs" / "objects" / manifest.shards[0].objects["chunks"].sha256


def test_a_corrupt_snapshot_is_refused_and_the_old_one_serves_until_the_file_is_whole_again(service, tmp_path, first):
    second = make(tmp_path, "second", live=False)
    path = damage(tmp_path, second)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    publish(tmp_path / "docs", second)
    eventually(lambda: service.status()["refused_snapshot_id"] == second, within_s=20)
    status = service.status()
    assert (status["ready"], status["snapshot_id"], status["stale"]) == (True, first, False)
    assert "expected" in status["reason"]
    assert str(tmp_path) not in status["reason"]
    assert service.answer() == (first, "first")
    assert service.client.get("/readyz").status_code == 200
    assert service.swaps("refused") == 1
    path.write_bytes(whole)
    eventually(lambda: service.serves(second), within_s=20)
    assert (service.status()["reason"], service.status()["refused_snapshot_id"]) == ("", "")


def test_what_is_refused_is_not_tried_again_while_nothing_changes(service, tmp_path, first, monkeypatch):
    tries: list[str] = []
    prepare = service.engine.prepare

    def counted(name: str, snapshot_id: str) -> Any:
        tries.append(snapshot_id)
        return prepare(name, snapshot_id)

    monkeypatch.setattr(service.engine, "prepare", counted)
    second = make(tmp_path, "second", live=False)
    damage(tmp_path, second).write_bytes(b"")
    publish(tmp_path / "docs", second)
    eventually(lambda: service.status()["refused_snapshot_id"] == second, within_s=20)
    looks = count()
    looked = service.backend.swaps._watch.look

    def counting(*arguments: Any) -> Any:
        next(looks)
        return looked(*arguments)

    monkeypatch.setattr(service.backend.swaps._watch, "look", counting)
    eventually(lambda: next(looks) > 5, within_s=20, poll_s=0.1)
    assert tries == [second]
    third = make(tmp_path, "third")
    eventually(lambda: service.serves(third), within_s=20)
    assert tries == [second, third]
    assert service.status()["refused_snapshot_id"] == ""


def test_a_snapshot_of_a_newer_format_is_refused(service, tmp_path, first):
    second = make(tmp_path, "second", live=False)
    path = tmp_path / "docs" / "snapshots" / second / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    publish(tmp_path / "docs", second)
    eventually(lambda: "format_version" in service.status()["reason"], within_s=20)
    assert service.answer() == (first, "first")


class NarrowHashEmbedder(HashEmbedder):
    def __init__(self) -> None:
        super().__init__(dim=32)
        self.info = replace(self.info, name="narrow-hash")


def test_a_snapshot_of_a_model_that_cannot_be_had_is_refused_and_one_that_can_is_served(
    service, tmp_path, first, monkeypatch
):
    make(tmp_path, "second", embedder=NarrowHashEmbedder())
    eventually(lambda: "narrow-hash" in service.status()["reason"], within_s=20)
    assert service.answer() == (first, "first")
    models: dict[str, HashEmbedder] = {"hash": HashEmbedder(), "narrow-hash": NarrowHashEmbedder()}
    monkeypatch.setattr(engine_module, "describe", lambda model: models[model].info)
    monkeypatch.setattr(engine_module, "load_embedder", lambda model, **_: models[model])
    third = make(tmp_path, "third", embedder=NarrowHashEmbedder())
    eventually(lambda: service.serves(third), within_s=20)
    assert service.answer() == (third, "third")


def test_new_indexes_appear_and_removed_ones_leave_when_all_are_served(service, tmp_path, first):
    other = make(tmp_path, "other", "other")
    eventually(lambda: service.serves(other, "other"), within_s=20)
    assert service.client.get("/search", params={"query": QUERY}).json()["snapshot"] == {"docs": first, "other": other}
    (tmp_path / "other" / "CURRENT").unlink()
    eventually(lambda: service.status("other") == {}, within_s=20)
    assert service.client.get("/search", params={"query": QUERY, "index": "other"}).status_code == 404
    assert service.swaps("removed", "other") == 1


def test_an_index_that_is_named_is_opened_when_it_is_built_and_stays_when_it_is_gone(tmp_path, first):
    with Service(tmp_path, index=("docs", "later")) as service:
        assert service.client.get("/search", params={"query": QUERY, "index": "later"}).status_code == 503
        later = make(tmp_path, "later", "later")
        eventually(lambda: service.serves(later, "later"), within_s=20)
        assert service.client.get("/readyz").status_code == 200
        (tmp_path / "later" / "CURRENT").unlink()
        third = make(tmp_path, "third")
        eventually(lambda: service.serves(third), within_s=20)
        assert service.serves(later, "later")


def test_without_looking_a_reload_swaps_and_answers_when_it_is_done(tmp_path, first):
    with Service(tmp_path, swap_check_s=0) as service:
        second = make(tmp_path, "second")
        assert service.status()["stale"]
        assert service.answer() == (first, "first")
        done = service.client.post("/admin/reload")
        assert done.json() == {"snapshot": {"docs": second}, "refused": {}, "pending": []}
        assert service.answer() == (second, "second")
        third = make(tmp_path, "third", live=False)
        path = damage(tmp_path, third)
        whole = path.read_bytes()
        path.write_bytes(b"")
        publish(tmp_path / "docs", third)
        refused = service.client.post("/admin/reload").json()
        assert refused["snapshot"] == {"docs": second}
        assert "0 bytes" in refused["refused"]["docs"]
        path.write_bytes(whole)
        assert service.client.post("/admin/reload").json()["snapshot"] == {"docs": third}


def test_a_roll_back_over_http_moves_current_and_is_served_when_it_answers(tmp_path, first):
    second = make(tmp_path, "second")
    with Service(tmp_path, swap_check_s=0) as service:
        done = service.client.post("/admin/rollback", json={"index": "docs"})
        assert done.status_code == 200, done.text
        assert (done.json()["before"], done.json()["snapshot_id"]) == (second, first)
        assert done.json()["snapshot"] == {"docs": first}
        assert current_id(tmp_path / "docs") == first
        assert service.answer() == (first, "first")
        refused = service.client.post("/admin/rollback", json={"index": "docs"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (409, "rollback_refused")
        assert service.client.post("/admin/rollback", json={"index": "none"}).status_code == 404
        named = service.client.post("/admin/rollback", json={"index": "docs", "snapshot_id": second})
        assert named.json()["snapshot"] == {"docs": second}
        assert service.client.post("/admin/rollback", json={"index": "docs", "snapshot_id": "../x"}).status_code == 409


@pytest.mark.parametrize(("host", "found"), [("127.0.0.1", 200), ("localhost", 200), ("0.0.0.0", 401)])
def test_without_keys_admin_routes_are_open_on_loopback_only(tmp_path, first, host, found):
    with Service(tmp_path, host=host) as service:
        assert service.client.post("/admin/reload").status_code == found


def test_a_snapshot_published_under_a_uri_is_fetched_and_served(tmp_path, capsys):
    uri = f"file://{tmp_path}/remote"
    publisher = Machine(uri, tmp_path / "publisher", capsys)
    published(publisher, TEXTS)
    with Service(uri, work_dir=tmp_path / "server") as service:  # type: ignore[arg-type]
        second = published(publisher, {url: f"{text} second" for url, text in TEXTS.items()}).snapshot_id
        eventually(lambda: service.serves(second), within_s=20)
        assert service.answer() == (second, "second")
        assert len(list((tmp_path / "remote" / "docs" / FOLDER).glob("*.json"))) == 1
        back = service.client.post("/admin/rollback", json={"index": "docs"}).json()
        assert publisher.storage().current_id("docs") == back["snapshot_id"] != second
        assert service.serves(back["snapshot_id"])
    assert list((tmp_path / "remote" / "docs" / FOLDER).glob("*.json")) == []


def test_a_collection_leaves_what_a_service_has_open_although_something_newer_is_live(service, tmp_path, first):
    refused = make(tmp_path, "refused", live=False)
    damage(tmp_path, refused).write_bytes(b"")
    publish(tmp_path / "docs", refused)
    eventually(lambda: service.status()["refused_snapshot_id"] == refused, within_s=20)
    for word in ("third", "fourth", "fifth"):
        last = make(tmp_path, word, live=False)
    assert first in leased(tmp_path / "docs")
    with service.engine._changing:  # no swap meanwhile
        publish(tmp_path / "docs", last)
        collect(tmp_path / "docs", 1, grace_s=0)
        assert Engine(service.config, agreed={"docs": first}).indexes["docs"].manifest.snapshot_id == first
    eventually(lambda: service.serves(last), within_s=20)
    eventually(lambda: leased(tmp_path / "docs") == {last}, within_s=60)
    assert first in choose(tmp_path / "docs", 1).going


def test_a_lease_ends_with_its_service_or_runs_out(tmp_path, first, monkeypatch):
    index_dir = tmp_path / "docs"
    leases = ReaderLeases(tmp_path, None)
    leases.hold("docs", [first])
    assert leased(index_dir) == {first}
    monkeypatch.setattr("raydex.storage.readers.time.time", lambda: datetime.now(UTC).timestamp() + LEASE_S + 1)
    assert leased(index_dir) == set()
    monkeypatch.undo()
    leases.release()
    assert leased(index_dir) == set()
    assert list((index_dir / FOLDER).iterdir()) == []


def test_a_lease_that_may_not_be_written_stops_no_service(tmp_path, first, monkeypatch, caplog):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("raydex.storage.readers.write_bytes", refused)
    with Service(tmp_path) as service:
        second = make(tmp_path, "second")
        eventually(lambda: service.serves(second), within_s=20)
    assert caplog.text.count("no lease can be written") == 1


def test_a_replica_that_starts_opens_what_is_agreed_even_when_it_is_not_live(tmp_path, first):
    make(tmp_path, "second")
    config = ServeConfig(data_dir=tmp_path)
    assert Engine(config, agreed={"docs": first}).indexes["docs"].manifest.snapshot_id == first
    live = current_id(tmp_path / "docs")
    assert Engine(config, agreed={"docs": "gone"}).indexes["docs"].manifest.snapshot_id == live


def test_a_model_lives_as_long_as_an_index_of_it_is_open(tmp_path, first, monkeypatch):
    class Model(HashEmbedder):
        pass

    monkeypatch.setattr(engine_module, "load_embedder", lambda model, **_: Model())
    engine = Engine(ServeConfig(data_dir=tmp_path))
    model = ref(engine.indexes["docs"].embedder)
    pinned = engine.select(["docs"])[0]
    engine.drop("docs")
    assert engine.embed(pinned.model_id, ["x"]).shape == (1, 64)
    del pinned
    assert model() is None


def test_a_storage_that_cannot_be_reached_changes_nothing(tmp_path, capsys):
    uri = f"file://{tmp_path}/remote"
    published(Machine(uri, tmp_path / "publisher", capsys), TEXTS)
    with Service(uri, work_dir=tmp_path / "server") as service:  # type: ignore[arg-type]
        before = service.answer()
        (tmp_path / "remote").rename(tmp_path / "away")  # of a mount that is gone, nothing is seen but this
        assert service.client.post("/admin/reload").json()["snapshot"] == {"docs": before[0]}
        assert service.answer() == before


def test_a_current_that_cannot_be_read_changes_nothing_until_it_can(service, tmp_path, first):
    path, unreadable = tmp_path / "docs" / "CURRENT", tmp_path / "docs" / "unreadable"
    readable = path.with_name("readable")
    readable.write_bytes(path.read_bytes())
    unreadable.symlink_to(tmp_path, target_is_directory=True)  # as readable as a file of a mount that hangs
    unreadable.replace(path)
    other = make(tmp_path, "other", "other")
    eventually(lambda: service.serves(other, "other"), within_s=20)
    assert service.answer() == (first, "first")
    readable.replace(path)
    second = make(tmp_path, "second")
    eventually(lambda: service.serves(second), within_s=20)


def test_an_embed_error_names_itself(tmp_path, first, monkeypatch):
    def broken(*_: object, **__: object) -> HashEmbedder:
        raise EmbedError("no room for the model")

    with Service(tmp_path) as service:
        monkeypatch.setattr(engine_module, "load_embedder", broken)
        monkeypatch.setattr(engine_module, "describe", lambda model: NarrowHashEmbedder().info)
        make(tmp_path, "second", embedder=NarrowHashEmbedder())
        eventually(lambda: "no room for the model" in service.status()["reason"], within_s=20)
        assert service.answer()[1] == "first"
