"""Indexes on S3: real builds, services and commands against a real S3 server on loopback."""

import contextlib
import importlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import zstandard

import build_index
import serve_index
from raydex.build import mirroring
from raydex.checkpoint import VectorStore
from raydex.client import RaydexClient
from raydex.config import BuildConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import BuildLocked, ConfigError, SnapshotCorrupt, SnapshotNotFound, StorageError
from raydex.journal import moves
from raydex.serve.engine import Engine
from raydex.snapshot import list_snapshots
from raydex.storage.lease import FILE as LEASE
from raydex.storage.mirror import Storage, open_storage
from raydex.storage.remote import NEW, Remote
from tests.builder import Builder
from tests.docsite import DocSite, handbook, handbook_paths, question
from tests.processes import free_port
from tests.s3 import S3Server
from tests.snapshots import make_snapshot
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
PAGES = 8
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(server, monkeypatch, request):
    """The server, with an empty bucket named after the test."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.name = re.sub(r"[^a-z0-9]+", "-", request.node.name[5:].lower())[:60].strip("-")
    server.client().create_bucket(Bucket=server.name)
    server.uri = f"s3://{server.name}/indexes"
    server.requests()
    return server


@pytest.fixture
def site():
    with DocSite(handbook(pages=PAGES)) as site:
        yield site


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


@pytest.fixture
def machine(s3, tmp_path, capsys):
    return lambda name: Machine(s3.uri, tmp_path / name, capsys)


def edit(site, number, words):
    path = handbook_paths(PAGES)[number]
    body = site.route(path).body.decode()
    site.put(path, body.replace("Install the", f"{words} Install the"))


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
    return engine.indexes["docs"].searcher.search(vectors, k=1)[0][0]


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_index_on_s3_is_built_served_rebuilt_and_moved_between_machines(machine, s3, site):
    one, two, server = machine("one"), machine("two"), machine("server")
    code, first = one(site.url)
    assert code == 0
    there = s3.objects(s3.name)
    assert f"indexes/docs/snapshots/{first['snapshot_id']}/manifest.json" in there
    assert not any(LEASE in name for name in there)

    # a service fetches the snapshot once
    s3.requests()
    assert first_hit(server.engine(), question(5)).chunk.url.startswith(site.url)
    fetched = sent(s3.requests(), "GET", "/objects/")
    assert len(fetched) == len(set(fetched)) > 0
    server.engine()
    assert not sent(s3.requests(), "GET", "/objects/")

    # the same machine again: nothing is embedded or sent that was there
    _, second = one(site.url)
    puts = sent(s3.requests(), "PUT")
    assert second["embedded_chunks"] == 0
    assert not [line for line in puts if "/objects/" in line or "/vectors/" in line or "/packs/" in line], puts

    # another machine, with an empty disk: the same, and the site is asked only for what has changed
    site.headers_seen.clear()
    _, third = two(site.url)
    assert sum("if-none-match" in headers for headers in site.headers_seen) == PAGES
    assert third["embedded_chunks"] == 0
    assert third["content_digest"] == first["content_digest"]
    requests = s3.requests()
    assert not sent(requests, "PUT", "/objects/")
    assert {m.snapshot_id for m in list_snapshots(two.index_dir)} == {
        build["snapshot_id"] for build in (first, second, third)
    }

    record = s3.client().get_object(Bucket=s3.name, Key="indexes/docs/last_build.json")["Body"].read()
    assert [run["exit_code"] for run in json.loads(record)["recent"]] == [0, 0, 0]

    # a roll back reads no object
    code, line = two("--rollback")
    assert (code, line["snapshot_id"]) == (0, second["snapshot_id"])
    assert not sent(s3.requests(), "GET", "/objects/")
    assert one.storage().current_id("docs") == second["snapshot_id"]
    assert server.engine().indexes["docs"].manifest.snapshot_id == second["snapshot_id"]


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_build_that_was_killed_goes_on_in_its_mirror_and_its_lease_is_no_hindrance(machine, s3, site):
    one = machine("one")
    site.block_after(5)
    settings = ["--index", "docs", "--data-dir", one.uri, "--work-dir", str(one.work_dir), "--model", "hash"]
    command = [sys.executable, "build_index.py", site.url, *settings]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    eventually(lambda: site.wait_blocked(0) or process.poll() is not None, within_s=120)
    process.kill()
    assert process.communicate()[1].count(b"Traceback") == 0
    site.unblock()
    assert f"indexes/docs/{LEASE}" in s3.objects(s3.name)
    code, line = one(site.url)
    assert (code, line["resumed"]) == (0, True)
    assert machine("server").engine().indexes["docs"].manifest.snapshot_id == line["snapshot_id"]


@pytest.mark.cluster
def test_service_on_s3_answers_over_http(machine, s3):
    published(machine("builder"), TEXTS)
    server, port = machine("server"), free_port()
    settings = ["--data-dir", server.uri, "--work-dir", str(server.work_dir), "--port", str(port)]
    command = [sys.executable, ROOT / "serve_index.py", *settings]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        assert any(line.startswith("try ") for line in process.stdout)
        with RaydexClient(f"http://127.0.0.1:{port}") as client:
            assert client.search("all about loop", k=1).results[0].content == "all about loop"
        process.terminate()


def test_service_starts_from_its_cache_while_s3_is_away_and_not_without_one(machine, s3, monkeypatch):
    published(machine("builder"), TEXTS)
    server = machine("server")
    server.engine()

    def away(self, name):
        raise StorageError(f"{self.uri}/{name}", "read", "nobody answers", "Wait.")

    for method in ("read", "stats"):
        monkeypatch.setattr(Remote, method, away)
    monkeypatch.setattr(Remote, "folders", lambda self: away(self, ""))
    for names in ((), ("docs",)):
        engine = Engine(ServeConfig(data_dir=server.uri, work_dir=server.work_dir, index=names))
        assert first_hit(engine, "all about loop").chunk.text == "all about loop"
        assert engine.published_id("docs") == engine.indexes["docs"].manifest.snapshot_id
    assert isinstance(machine("empty").engine().reasons["docs"], StorageError)


def test_damaged_file_in_the_cache_is_fetched_again(machine, s3):
    published(machine("builder"), TEXTS)
    server = machine("server")
    server.engine()
    damaged = sorted((server.index_dir / "objects").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    s3.requests()
    assert first_hit(server.engine(), "all about loop").chunk.text == "all about loop"
    assert [line.split("/")[-1].split()[0] for line in sent(s3.requests(), "GET", "/objects/")] == [damaged.name]


def test_object_that_is_damaged_on_s3_is_not_served(machine, s3):
    published(machine("builder"), TEXTS)
    name = next(name for name in s3.objects(s3.name) if "/objects/" in name)
    s3.client().put_object(Bucket=s3.name, Key=name, Body=b"?")
    engine = machine("server").engine()
    assert not engine.indexes
    assert name.rpartition("/")[2][:12] in str(engine.reasons["docs"])
    code, _ = machine("other")("--verify")
    assert code == 1


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_object_that_is_damaged_on_s3_is_sent_again_by_the_next_build(machine, s3, damage):
    published(machine("builder"), TEXTS)
    name, size = next(item for item in s3.objects(s3.name).items() if "/objects/" in item[0])
    if damage == "gone":
        s3.client().delete_object(Bucket=s3.name, Key=name)
    else:
        s3.client().put_object(Bucket=s3.name, Key=name, Body=b"?" * size)
    storage = machine("one").storage()
    with storage.alone("docs") as lease:
        folder = storage.pull("docs", alone=True)
        with pytest.raises(SnapshotCorrupt, match=name):
            storage.pull_objects("docs", [storage.current_id("docs")])
        manifest = make_snapshot(folder, TEXTS, HashEmbedder(), published=False)
        storage.push("docs", lease)
        storage.make_live("docs", manifest.snapshot_id, "published")
    assert first_hit(machine("server").engine(), "all about loop").chunk.text == "all about loop"


def test_vectors_are_sent_while_a_build_runs(machine, s3, monkeypatch):
    monkeypatch.setattr(mirroring, "SENT_EVERY_S", 0.01)
    one = machine("one")
    with mirroring.vectors_sent_meanwhile(one.storage(), "docs"):
        store = VectorStore(one.index_dir / "vectors" / "f", dim=4)
        store.add([bytes([1] * 32)], np.eye(1, 4, dtype=np.float32))
        eventually(lambda: len(s3.objects(s3.name)) == 1, within_s=60)
        store.add([bytes([2] * 32)], np.eye(1, 4, dtype=np.float32))
        eventually(lambda: len(s3.objects(s3.name)) == 2, within_s=60)
    two = machine("two")
    two.storage().pull_stores("docs")
    found = VectorStore(two.index_dir / "vectors" / "f", dim=4)
    found.refresh()
    assert len(found) == 2


def test_second_builder_is_refused_and_told_who_builds(machine, s3, capsys):
    published(machine("one"), TEXTS)
    with machine("one").storage().alone("docs"):
        with pytest.raises(BuildLocked, match=rf"pid {os.getpid()} on {socket.gethostname()} since 20"):
            published(machine("two"), TEXTS)
        for command in (("https://docs.example.org/",), ("--gc",), ("--forget", "https://docs.example.org/")):
            two = machine("two")
            assert two(*command)[0] == 6
            assert f"being built by pid {os.getpid()}" in two.stderr
    published(machine("two"), TEXTS)


def lease_of(storage, **changes):
    """Leave behind the lease of another process."""
    with storage.alone("docs"):
        found = storage.remote.read(f"docs/{LEASE}")
    storage.remote.write(f"docs/{LEASE}", json.dumps({**json.loads(found.data), **changes}).encode())


@pytest.mark.parametrize(
    "stale",
    [
        {"expires": time.time() - 1, "place": "another machine"},
        {"pid": 2**22 + 1},  # more than any process here can have
    ],
    ids=["run out", "process gone"],
)
def test_stale_lease_is_taken_over(machine, s3, stale):
    storage = machine("one").storage()
    lease_of(storage, **stale)
    assert published(machine("two"), TEXTS).snapshot_id == storage.current_id("docs")


def test_lease_of_a_living_process_elsewhere_is_respected(machine, s3):
    lease_of(machine("one").storage(), place="another machine", pid=2**22 + 1)
    with pytest.raises(BuildLocked):
        published(machine("two"), TEXTS)


def test_builder_that_lost_its_lease_publishes_nothing(machine, s3):
    storage = machine("one").storage()
    with storage.alone("docs") as lease:
        make_snapshot(storage.pull("docs", alone=True), TEXTS, HashEmbedder(), published=False)
        lease_of_two = json.loads(storage.remote.read(f"docs/{LEASE}").data) | {"token": "another", "holder": "pid 7"}
        storage.remote.write(f"docs/{LEASE}", json.dumps(lease_of_two).encode())
        with pytest.raises(BuildLocked, match="pid 7"):
            storage.push("docs", lease)
    names = s3.objects(s3.name)
    assert not any("manifest.json" in name or name.endswith("CURRENT") for name in names)
    assert f"indexes/docs/{LEASE}" in names  # it is another's


@pytest.mark.parametrize("dies_at", ["manifest.json", "journal.jsonl", "CURRENT"])
def test_publication_that_dies_half_way_leaves_the_old_snapshot_live(machine, s3, monkeypatch, dies_at):
    one, server = machine("one"), machine("server")
    first = published(one, TEXTS)

    def dying(self, *arguments, **named):
        if any(str(argument).endswith(dies_at) for argument in arguments):
            raise KeyboardInterrupt
        return original[self_name](self, *arguments, **named)

    self_name = "upload" if dies_at == "manifest.json" else "write"
    original = {self_name: getattr(Remote, self_name)}
    with monkeypatch.context() as patched:
        patched.setattr(Remote, self_name, dying)
        with pytest.raises(KeyboardInterrupt):
            published(one, {**TEXTS, "https://docs.example.org/new.html": "something new"})
    assert server.engine().indexes["docs"].manifest.snapshot_id == first.snapshot_id
    third = published(one, {**TEXTS, "https://docs.example.org/new.html": "something new"})
    assert first_hit(server.engine(), "something new").chunk.text == "something new"
    assert one("--verify")[0] == 0
    assert server.storage().current_id("docs") == third.snapshot_id


def test_two_writers_of_one_object_cannot_overwrite_each_other(s3):
    one, two = Remote(s3.uri), Remote(s3.uri)
    assert one.write("docs/CURRENT", b"a", expected=NEW)
    assert not two.write("docs/CURRENT", b"b", expected=NEW)
    seen = two.read("docs/CURRENT")
    assert seen
    assert one.write("docs/CURRENT", b"c", expected=seen.version)
    assert not two.write("docs/CURRENT", b"d", expected=seen.version)
    found = two.read("docs/CURRENT")
    assert found
    assert found.data == b"c"


def test_roll_back_during_a_publication_is_kept_in_the_journal(machine, s3, monkeypatch):
    one, two = machine("one"), machine("two")
    first = published(one, TEXTS)
    second = published(one, {**TEXTS, "https://docs.example.org/b.html": "b"})
    write, moved = Remote.write, list[str]()

    def overtaken(self, name, data, **condition):
        if name.endswith("CURRENT") and not moved:
            moved.append(name)
            assert two("--rollback", first.snapshot_id)[0] == 0
        return write(self, name, data, **condition)

    monkeypatch.setattr(Remote, "write", overtaken)
    third = published(one, {**TEXTS, "https://docs.example.org/c.html": "c"})
    assert one("--list", "--json")[0] == 0
    assert [entry.snapshot_id for entry in moves(one.index_dir, third.snapshot_id)] == [
        first.snapshot_id,
        second.snapshot_id,
        first.snapshot_id,
        third.snapshot_id,
    ]


def test_collection_removes_objects_of_snapshots_that_go_and_no_others(machine, s3):
    one, two = machine("one"), machine("two")
    manifests = [published(one, {**TEXTS, f"https://docs.example.org/{n}.html": f"number {n}"}) for n in range(4)]
    server = machine("server")
    server.storage().pull("docs")
    server.storage().pull_objects("docs", [m.snapshot_id for m in manifests])
    objects = {name for name in s3.objects(s3.name) if "/objects/" in name}
    _, told = two("--gc", "--keep-snapshots", "1", "--grace-s", "0", "--dry-run")
    assert {name for name in s3.objects(s3.name) if "/objects/" in name} == objects
    code, freed = two("--gc", "--keep-snapshots", "1", "--grace-s", "0")
    assert code == 0
    assert freed == {**told, "dry_run": False}
    left = s3.objects(s3.name)
    kept = {m.snapshot_id for m in manifests} - set(freed["snapshots"])
    assert {name.split("/")[-2] for name in left if name.endswith("manifest.json")} == kept == set(freed["kept"])
    needed = {f.sha256 for m in manifests if m.snapshot_id in kept for s in m.shards for f in s.objects.values()}
    assert {name.rpartition("/")[2] for name in left if "/objects/" in name} == needed
    assert freed["objects"] == len(objects) - len(needed) > 0
    assert one("--list", "--json")[0] == 0
    assert {json.loads(line)["snapshot_id"] for line in one.stdout.splitlines()} == kept
    assert not server.engine().reasons
    assert {path.name for path in (server.index_dir / "objects").iterdir()} == needed


def test_roll_back_to_a_snapshot_that_is_collected_at_that_moment_wins(machine, s3, monkeypatch):
    one, two = machine("one"), machine("two")
    first, *_ = [published(one, {f"https://docs.example.org/{n}.html": f"number {n}"}) for n in range(4)]
    delete, moved = Remote.delete, list[str]()

    def overtaken(self, names):
        names = list(names)
        if not moved and any(name.endswith("manifest.json") for name in names):
            moved.extend(names)
            assert two("--rollback", first.snapshot_id)[0] == 0
        delete(self, names)

    monkeypatch.setattr(Remote, "delete", overtaken)
    assert one("--gc", "--keep-snapshots", "1", "--grace-s", "0")[0] == 0
    assert any(first.snapshot_id in name for name in moved)
    assert first_hit(machine("server").engine(), "number 0").chunk.text == "number 0"
    assert one("--verify")[0] == 0


def test_roll_back_to_a_snapshot_that_has_just_been_collected_says_so(machine, s3, monkeypatch):
    one, two = machine("one"), machine("two")
    first, second = [published(one, {f"https://docs.example.org/{n}.html": f"number {n}"}) for n in range(2)]
    write = Remote.write

    def overtaken(self, name, data, **condition):
        if name.endswith("CURRENT"):
            self.delete([f"docs/snapshots/{first.snapshot_id}/manifest.json"])
        return write(self, name, data, **condition)

    monkeypatch.setattr(Remote, "write", overtaken)
    assert two("--rollback")[0] == 1
    assert first.snapshot_id in two.stderr
    assert one.storage().current_id("docs") == second.snapshot_id


def test_snapshot_is_diffed_exported_and_imported_from_s3(machine, s3, tmp_path):
    one, two = machine("one"), machine("two")
    published(one, TEXTS)
    published(one, {**TEXTS, "https://docs.example.org/new.html#a": "something new"})
    code, line = two("--diff")
    assert (code, line["sections"]["added"]) == (0, 1)
    file = tmp_path / "docs.raydex"
    assert two("--export", str(file))[0] == 0
    other = Machine(f"{s3.uri}/copy", tmp_path / "three", one._capsys)
    code, line = other("--import", str(file))
    assert (code, line["live"]) == (0, True)
    assert (
        first_hit(Machine(other.uri, tmp_path / "four", None).engine(), "something new").chunk.text == "something new"
    )


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_forgotten_page_leaves_no_byte_on_s3_and_comes_back_from_no_mirror(machine, s3, site):
    one, two = machine("one"), machine("two")
    site.put(
        "secret.html", "<main><h1 id=a>Xylophone</h1><p>The xylophone is a secret that nobody shall know.</p></main>"
    )
    assert one(site.url, site.url + "secret.html")[0] == 0
    assert two("--forget", site.url + "secret.html")[0] == 0
    assert first_hit(machine("server").engine(), "xylophone secret").chunk.title != "Xylophone"
    site.remove("secret.html")
    vectors = {name: size for name, size in s3.objects(s3.name).items() if "/vectors/" in name}
    assert one(site.url)[0] == 0
    assert {name: size for name, size in s3.objects(s3.name).items() if "/vectors/" in name} == vectors
    for name in s3.objects(s3.name):
        data = s3.client().get_object(Bucket=s3.name, Key=name)["Body"].read()
        assert b"nobody shall know" not in unpacked(data), name


def unpacked(data):
    """Return the bytes, and after them what zstd frames they hold."""
    found, start = data, 0
    while (start := data.find(b"\x28\xb5\x2f\xfd", start)) >= 0:
        with contextlib.suppress(zstandard.ZstdError):
            found += zstandard.ZstdDecompressor().decompressobj().decompress(data[start:])
        start += 1
    return found


def test_missing_bucket_is_named_with_what_to_do(machine, s3, tmp_path, capsys):
    nowhere = Machine("s3://no-such-bucket/indexes", tmp_path / "nowhere", capsys)
    for command in (("https://docs.example.org/",), ("--list",), ("--gc",)):
        code, _ = nowhere(*command)
        assert code == 1
        assert "s3://no-such-bucket/indexes" in nowhere.stderr
        assert "bucket" in nowhere.stderr
        assert "test-secret" not in nowhere.stderr
    engine = nowhere.engine()
    assert isinstance(engine.reasons["docs"], StorageError)
    assert serve_index.main(["--data-dir", nowhere.uri, "--work-dir", str(tmp_path / "n")]) == 1


def test_index_that_is_not_there_is_no_storage_error(machine, s3):
    assert isinstance(machine("server").engine().reasons["docs"], SnapshotNotFound)
    code, _ = machine("one")("--rollback")
    assert code == 1
    assert serve_index.main(["--data-dir", s3.uri, "--work-dir", str(machine("n").work_dir)]) == 2


def test_no_credential_is_logged_even_when_everything_is(machine, s3, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "test-session-token")
    one = machine("one")
    published(one, TEXTS)
    assert one("--list", "--log-level", "DEBUG")[0] == 0
    assert "Found credentials in environment variables" in one.stderr  # where from, not what
    assert not re.search("test-se(cret|ssion)|Signature", one.stderr)


def test_refused_credentials_are_told_and_not_shown(s3, monkeypatch):
    class Denied:
        def cat_file(self, _path):
            raise PermissionError("Access Denied")

        def info(self, _path):
            return {}

    remote = Remote(s3.uri)
    monkeypatch.setattr(remote, "_fs", Denied())
    with pytest.raises(StorageError, match=r"docs/CURRENT: cannot read: PermissionError: Access Denied\. Check"):
        remote.read("docs/CURRENT")


@pytest.mark.parametrize("uri", ["memory://indexes", "file://{folder}/remote"])
def test_other_stores_work_too(machine, tmp_path, capsys, uri):
    there = Machine(uri.format(folder=tmp_path), tmp_path / "one", capsys)
    manifest = published(there, TEXTS)
    server = Machine(there.uri, tmp_path / "server", capsys)
    assert first_hit(server.engine(), "all about loop").chunk.text == "all about loop"
    assert server.storage().names() == ["docs"]
    assert not server.storage().remote.write("docs/CURRENT", b"?", expected=NEW)
    assert not server.storage().remote.write("docs/CURRENT", b"?", expected="another version")
    assert server.storage().current_id("docs") == manifest.snapshot_id


def test_unknown_kind_of_uri_and_missing_library_are_wrong_settings(monkeypatch):
    with pytest.raises(ConfigError, match="nope"):
        Remote("nope://bucket/indexes")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-s3\.txt"):
        Remote("s3://bucket/indexes")


def test_uri_is_mirrored_in_the_cache_of_the_user_unless_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, two = (BuildConfig(data_dir=f"s3://bucket/{name}") for name in ("a", "b"))
    assert one.folder.parent == two.folder.parent == tmp_path / "raydex"
    assert one.folder != two.folder
    assert BuildConfig(data_dir="s3://bucket/a/").folder == one.folder
    assert BuildConfig(data_dir="s3://bucket/a", work_dir=tmp_path / "w").folder == tmp_path / "w"
    assert (BuildConfig(data_dir="some/folder").folder, BuildConfig().uri) == (Path("some/folder"), "")
