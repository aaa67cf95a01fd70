"""An index on S3 in several hands at once: leases, conditional writes, deaths half way."""

import json
import os
import socket
import time

import pytest

from raydex.embed import HashEmbedder
from raydex.errors import BuildLocked
from raydex.journal import moves
from raydex.snapshot import stored_objects
from raydex.storage.lease import FILE as LEASE
from raydex.storage.remote import NEW, Remote
from tests.machines import TEXTS, first_hit, published
from tests.snapshots import make_snapshot

pytest_plugins = ["tests.s3_fixtures"]
pytestmark = pytest.mark.timeout(300)


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


def test_lease_that_its_holder_renews_twice_at_once_is_not_lost(machine, s3, monkeypatch):
    storage = machine("one").storage()
    with storage.alone("docs") as lease:
        read = storage.remote.read

        def overtaken(name):
            patched.undo()
            found = read(name)
            lease.confirm()  # the thread that renews it, at this very moment
            return found

        with monkeypatch.context() as patched:
            patched.setattr(storage.remote, "read", overtaken)
            lease.confirm()


def test_lease_of_which_the_store_took_the_write_and_lost_the_answer_is_held(machine, s3, monkeypatch):
    storage = machine("one").storage()
    write = storage.remote.write

    def unanswered(*arguments, **named):
        patched.undo()
        write(*arguments, **named)
        return False

    with monkeypatch.context() as patched:
        patched.setattr(storage.remote, "write", unanswered)
        with storage.alone("docs") as lease:
            lease.confirm()


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
    needed = set(stored_objects(manifest for manifest in manifests if manifest.snapshot_id in kept))
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
