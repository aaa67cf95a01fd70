"""Indexes on S3: real builds, services and commands against a real S3 server on loopback."""

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard

import serve_index
from raydex.build import mirroring
from raydex.checkpoint import VectorStore
from raydex.client import RaydexClient
from raydex.config import BuildConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import ConfigError, SnapshotCorrupt, SnapshotNotFound, StorageError
from raydex.serve.engine import Engine
from raydex.snapshot import list_snapshots
from raydex.storage.lease import FILE as LEASE
from raydex.storage.remote import NEW, Remote
from tests.docsite import DocSite, handbook, question
from tests.machines import TEXTS, Machine, first_hit, published, sent
from tests.processes import free_port
from tests.snapshots import make_snapshot
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
PAGES = 8
pytest_plugins = ["tests.s3_fixtures"]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def site():
    with DocSite(handbook(pages=PAGES)) as site:
        yield site


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
