"""A snapshot as one file: it comes back as it was, and what is not one comes back as an error."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace

import pytest

from raydex.build.exchange import HEAD, export_snapshot, import_snapshot
from raydex.embed import HashEmbedder
from raydex.errors import ArchiveRefused, SnapshotCorrupt, StorageFull
from raydex.search import DenseSearcher
from raydex.snapshot import (
    current_id,
    list_snapshots,
    manifest_digest,
    open_snapshot,
    publish,
    read_manifest,
    verify,
    write_manifest,
)
from tests.snapshots import make_snapshot

TEXTS = {f"https://docs.example.org/{name}.html#top": f"How to {name} a thing." for name in ("open", "close", "sort")}


@pytest.fixture
def index_dir(tmp_path):
    return tmp_path / "here" / "docs"


@pytest.fixture
def other(tmp_path):
    return tmp_path / "there" / "manual"


@pytest.fixture
def file(index_dir, tmp_path):
    """The archive of a small snapshot."""
    manifest = make_snapshot(index_dir, TEXTS, HashEmbedder())
    export_snapshot(index_dir, manifest.snapshot_id, tmp_path / "docs.raydex")
    return tmp_path / "docs.raydex"


def hits(index_dir, text):
    found = DenseSearcher("any", open_snapshot(index_dir)).search(HashEmbedder().embed_queries([text]), k=3)[0]
    return [(hit.rank, hit.score, hit.chunk) for hit in found]


def members(file):
    with tarfile.open(file) as tar:
        return [(member, (tar.extractfile(member) or io.BytesIO()).read()) for member in tar]


def rewritten(file, change):
    """Write an archive with other members: change(list of (TarInfo, bytes)) → the same."""
    with tarfile.open(file.with_suffix(".bad"), "w") as tar:
        for member, data in change(members(file) if file.exists() else []):
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.with_suffix(".bad")


def refused(index_dir, file, match):
    with pytest.raises(ArchiveRefused, match=match):
        import_snapshot(index_dir, file)
    assert [path for path in index_dir.parent.rglob("*") if path.is_file()] == []
    assert not list(index_dir.glob(".import-*"))


def test_imported_snapshot_answers_as_the_exported_one_did(index_dir, other, file):
    moved = import_snapshot(other, file)
    assert (moved.live, moved.snapshot_id) == (True, current_id(index_dir))
    assert hits(other, "sort a thing") == hits(index_dir, "sort a thing")
    assert manifest_digest(other, moved.snapshot_id) == manifest_digest(index_dir, moved.snapshot_id)
    assert verify(other, moved.snapshot_id) == []
    assert not list(other.glob(".import-*"))


def test_same_snapshot_gives_the_same_bytes(index_dir, file, tmp_path):
    export_snapshot(index_dir, current_id(index_dir), tmp_path / "again.raydex")
    assert (tmp_path / "again.raydex").read_bytes() == file.read_bytes()


def test_archive_holds_plain_files_under_fixed_names_and_no_pickle(file):
    found = members(file)
    assert [member.name for member, _ in found[:2]] == [HEAD, "manifest.json"]
    assert all(member.name.startswith("objects/") for member, _ in found[2:])
    assert not [member.name for member, data in found if data.startswith(b"\x80\x04")]


def test_damaged_snapshot_is_not_exported_and_no_file_is_left(index_dir, tmp_path):
    manifest = make_snapshot(index_dir, TEXTS, HashEmbedder())
    path = index_dir / "objects" / manifest.shards[0].objects["index"].sha256
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    with pytest.raises(SnapshotCorrupt):
        export_snapshot(index_dir, manifest.snapshot_id, tmp_path / "docs.raydex")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_import_beside_a_live_snapshot_goes_live_only_when_asked(other, file):
    live = make_snapshot(other, {"https://docs.example.org/own.html": "Our own."}, HashEmbedder()).snapshot_id
    assert not import_snapshot(other, file).live
    assert current_id(other) == live
    moved = import_snapshot(other, file, live=True)  # a second time: it is there already
    assert current_id(other) == moved.snapshot_id
    assert len(list_snapshots(other)) == 2


def test_snapshot_that_was_refused_is_imported_and_does_not_go_live_by_itself(index_dir, other, tmp_path):
    manifest = make_snapshot(index_dir, TEXTS, HashEmbedder())
    write_manifest(index_dir, replace(manifest, gate={"counts": "half of it is gone"}))
    export_snapshot(index_dir, manifest.snapshot_id, tmp_path / "docs.raydex")
    assert not import_snapshot(other, tmp_path / "docs.raydex").live
    assert current_id(other) == ""
    assert read_manifest(other, manifest.snapshot_id).gate == {"counts": "half of it is gone"}


def test_import_heals_a_damaged_file_of_the_same_snapshot(index_dir, file):
    path = index_dir / "objects" / read_manifest(index_dir, current_id(index_dir)).shards[0].objects["index"].sha256
    path.write_bytes(b"damaged")
    import_snapshot(index_dir, file)
    assert verify(index_dir, current_id(index_dir)) == []


def test_another_snapshot_of_the_same_name_is_not_overwritten(index_dir, other, file):
    name = current_id(index_dir)
    make_snapshot(other, TEXTS, HashEmbedder())
    write_manifest(other, replace(read_manifest(index_dir, name), code_version="another"))
    publish(other, name)
    with pytest.raises(ArchiveRefused, match=f"manual has another snapshot {name}"):
        import_snapshot(other, file)


@pytest.mark.parametrize("place", [0, 1, 2, -1])
def test_one_changed_byte_in_any_member_is_found(other, file, place):
    def change(found):
        member, data = found[place]
        spot = data.index(b"0") if place == 0 else len(data) // 2
        return [
            *found[:place],
            (member, data[:spot] + b"9" + data[spot + 1 :]),
            *(found[place + 1 :] if place != -1 else []),
        ]

    refused(other, rewritten(file, change), r"has checksum|expected the manifest of")


def test_archive_that_was_cut_off_is_refused(other, file):
    for size in (0, 100, 700, 3000, file.stat().st_size * 2 // 3):
        cut = file.with_suffix(".cut")
        cut.write_bytes(file.read_bytes()[:size])
        refused(other, cut, "Nothing was imported")


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "objects/../../outside", "objects/" + "0" * 64, "x"])
def test_member_that_does_not_belong_there_is_refused_wherever_it_stands(other, file, tmp_path, name):
    for place in (0, 1, 2, 5, 100):
        odd = [(tarfile.TarInfo(name), b"odd")]
        bad = rewritten(file, lambda found, place=place, odd=odd: [*found[:place], *odd, *found[place:]])
        refused(other, bad, "outside|absolute|expected member|not part of")
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_member_that_is_no_plain_file_is_refused(other, file, kind):
    def change(found):
        member = tarfile.TarInfo(found[2][0].name)
        member.type, member.linkname = kind, "manifest.json"
        return [*found[:2], (member, b""), *found[3:]]

    refused(other, rewritten(file, change), "not a plain file|special file|link")


def test_manifest_that_names_a_path_instead_of_a_checksum_is_refused(index_dir, other, file):
    def change(found):
        (head, _), (member, content), *rest = found
        manifest = json.loads(content)
        manifest["shards"][0]["objects"]["index"]["sha256"] = "../../outside"
        return with_manifest(head, member, manifest, rest)

    refused(other, rewritten(file, change), "which is no checksum")


def with_manifest(head, member, manifest, rest):
    content = json.dumps(manifest).encode()
    told = {
        "archive_version": 1,
        "index": "docs",
        "snapshot_id": manifest["snapshot_id"],
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
    }
    return [(head, json.dumps(told).encode()), (member, content), *rest]


@pytest.mark.parametrize("name", ["../up", "", ".", "20260101T000000Z-zzzzzz"])
def test_id_that_is_none_is_refused(other, file, name):
    def change(found):
        (head, _), (member, content), *rest = found
        return with_manifest(head, member, {**json.loads(content), "snapshot_id": name}, rest)

    refused(other, rewritten(file, change), "no id of a snapshot")


def test_name_of_an_index_that_is_a_path_is_refused(other, file):
    def change(found):
        return [(found[0][0], found[0][1].replace(b'"docs"', b'"../up"')), *found[1:]]

    refused(other, rewritten(file, change), "'../up' is no name")


def test_manifest_that_contradicts_its_files_is_refused(other, file):
    """Every checksum is right, and yet the rows are not those that the manifest promises."""

    def change(found):
        (head, _), (member, content), *rest = found
        return with_manifest(head, member, {**json.loads(content), "content_digest": "0" * 64}, rest)

    refused(other, rewritten(file, change), "content digest")


@pytest.mark.parametrize("size", [2**27, 2**40])
def test_header_that_asks_for_memory_is_refused_before_it_gets_any(other, tmp_path, size):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, size
    (tmp_path / "bomb.raydex").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    refused(other, tmp_path / "bomb.raydex", "header of")


def test_head_and_manifest_have_a_largest_size(other, file):
    def change(found):
        return [(found[0][0], b" " * (2**16 + 1)), *found[1:]]

    refused(other, rewritten(file, change), "expected at most 65536")


def test_archive_of_a_later_version_is_refused(other, file):
    def change(found):
        return [(found[0][0], found[0][1].replace(b'"archive_version": 1', b'"archive_version": 2')), *found[1:]]

    refused(other, rewritten(file, change), "archive_version is 2, this Raydex reads 1")


def test_import_without_room_on_the_disk_says_so_and_takes_nothing(other, file, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("raydex.checkpoint.shutil.disk_usage", lambda _folder: usage)
    with pytest.raises(StorageFull):
        import_snapshot(other, file)
    assert list(other.iterdir()) == []
