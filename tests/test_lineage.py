"""The chain of manifests, the journal, and the ways back and forward."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from raydex.checkpoint import build_lock
from raydex.embed import HashEmbedder
from raydex.errors import GateRefused, SnapshotCorrupt, SnapshotNotFound
from raydex.journal import FILE, entries, moves, published_ids
from raydex.lineage import chain_of, roll_back, roll_forward
from raydex.snapshot import (
    current_id,
    manifest_digest,
    new_manifest,
    publish,
    read_manifest,
    write_manifest,
)
from tests.samples import NOON, sample_chunk, write_snapshot


def child(index_dir, hour, *, gate=None, live=True):
    """Write a snapshot as a build does, the child of the live one, and publish it; return its id."""
    parent = current_id(index_dir)
    texts = [f"text {number} of {hour}" for number in range(4)]
    chunks = [sample_chunk(number, text) for number, text in enumerate(texts)]
    made = write_snapshot(
        index_dir,
        chunks,
        HashEmbedder().embed_passages(texts),
        now=NOON + timedelta(hours=hour),
        parent=parent,
        gate={},
    )
    digest = manifest_digest(index_dir, parent) if parent else ""
    write_manifest(index_dir, replace(made, gate=gate or {"checksums": "passed"}, parent_manifest_sha256=digest))
    if live:
        publish(index_dir, made.snapshot_id)
    return made.snapshot_id


def generations(index_dir, length=3):
    return [child(index_dir, hour) for hour in range(length)]


def alter(index_dir, snapshot_id):
    path = index_dir / "snapshots" / snapshot_id / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code_version": "altered"}))


def test_new_manifest_holds_the_digest_of_its_parent_as_it_was_published(index_dir):
    (first,) = generations(index_dir, 1)
    before = read_manifest(index_dir, first)
    manifest = new_manifest(
        index_dir, before.shards, parent=first, embedder=before.embedder, chunking=before.chunking, sources=()
    )
    assert manifest.parent_manifest_sha256 == manifest_digest(index_dir, first) == entries(index_dir)[0].manifest_sha256


def test_chain_is_whole_up_to_the_first_snapshot(index_dir):
    first, second, third = generations(index_dir)
    chain = chain_of(index_dir, third)
    assert (chain.snapshots, chain.end, chain.problems) == ((third, second, first), "the first snapshot is", ())


def test_chain_ends_where_an_ancestor_is_no_longer_there(index_dir):
    first, second, third = generations(index_dir)
    (index_dir / "snapshots" / first / "manifest.json").unlink()
    chain = chain_of(index_dir, third)
    assert (chain.snapshots, chain.problems) == ((third, second), ())
    assert chain.end == f"{first} is no longer there"


def test_altered_ancestor_is_found_by_its_child(index_dir):
    first, second, third = generations(index_dir)
    (index_dir / FILE).unlink()
    alter(index_dir, first)
    (problem,) = chain_of(index_dir, third).problems
    assert f"{first}/manifest.json" in problem
    assert f"its child {second} says" in problem


def test_altered_manifest_without_a_child_is_found_by_the_journal(index_dir):
    *_, third = generations(index_dir)
    alter(index_dir, third)
    (problem,) = chain_of(index_dir, third).problems
    assert "the journal of 20" in problem


def test_snapshots_of_an_older_raydex_have_no_chain_and_nothing_against_them(index_dir):
    first, second = generations(index_dir, 2)
    (index_dir / FILE).unlink()
    write_manifest(index_dir, replace(read_manifest(index_dir, second), parent_manifest_sha256=""))
    path = index_dir / "snapshots" / second / "manifest.json"
    content = json.loads(path.read_text())
    del content["parent_manifest_sha256"]
    path.write_text(json.dumps(content))
    assert read_manifest(index_dir, second).parent_manifest_sha256 == ""
    assert chain_of(index_dir, second).snapshots == (second, first)
    assert chain_of(index_dir, second).problems == ()


def test_circle_of_parents_ends_the_chain(index_dir):
    first, second, third = generations(index_dir)
    write_manifest(index_dir, replace(read_manifest(index_dir, first), parent=third))
    assert chain_of(index_dir, third).snapshots == (third, second, first)


def test_roll_forward_takes_roll_backs_back_one_by_one(index_dir):
    first, second, third = generations(index_dir)
    assert [roll_back(index_dir), roll_back(index_dir)] == [second, first]
    assert [roll_forward(index_dir), roll_forward(index_dir)] == [second, third]
    with pytest.raises(SnapshotNotFound, match=f"no snapshot after {third}"):
        roll_forward(index_dir)
    assert [entry.event for entry in entries(index_dir)][3:] == ["rolled_back"] * 2 + ["rolled_forward"] * 2


def test_roll_forward_returns_to_where_a_jump_back_began(index_dir):
    first, second, third = generations(index_dir)
    roll_back(index_dir, first)
    assert roll_forward(index_dir) == third
    roll_back(index_dir, first)
    assert roll_forward(index_dir, second) == second


def test_roll_forward_without_a_journal_takes_the_newest_child_that_passed(index_dir):
    first, second, _ = generations(index_dir)
    publish(index_dir, first)
    child(index_dir, 8, gate={"counts": "half of it is gone"}, live=False)
    (index_dir / FILE).unlink()
    assert roll_forward(index_dir) == second


def test_snapshot_built_after_a_roll_back_is_the_child_of_the_live_one_and_the_way_forward_is_over(index_dir):
    first, second, third = generations(index_dir)
    assert roll_back(index_dir) == second
    fourth = child(index_dir, 9)
    assert read_manifest(index_dir, fourth).parent == second
    assert chain_of(index_dir, fourth).snapshots == (fourth, second, first)
    with pytest.raises(SnapshotNotFound):
        roll_forward(index_dir)
    assert roll_back(index_dir) == second
    assert roll_forward(index_dir) == fourth
    assert roll_back(index_dir, third) == third  # still there for who names it


def test_snapshot_that_its_gate_refused_does_not_go_live_by_a_roll_back(index_dir):
    (first,) = generations(index_dir, 1)
    refused = child(index_dir, 5, gate={"checksums": "passed", "texts": "8 pages lost their text"}, live=False)
    with pytest.raises(GateRefused, match="texts: 8 pages lost their text"):
        roll_back(index_dir, refused)
    assert current_id(index_dir) == first


def test_roll_back_reads_no_file_unless_asked_and_then_every_byte(index_dir):
    _, second, third = generations(index_dir)
    path = index_dir / "objects" / read_manifest(index_dir, second).shards[0].objects["chunks"].sha256
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(SnapshotCorrupt):
        roll_back(index_dir, full=True)
    assert current_id(index_dir) == third
    assert roll_back(index_dir) == second


def test_roll_back_to_an_altered_manifest_is_refused(index_dir):
    _, second, third = generations(index_dir)
    alter(index_dir, second)
    with pytest.raises(SnapshotCorrupt, match="which its child"):
        roll_back(index_dir)
    assert current_id(index_dir) == third


def test_roll_back_to_a_snapshot_with_a_missing_file_is_refused(index_dir):
    _, second, third = generations(index_dir)
    (index_dir / "objects" / read_manifest(index_dir, second).shards[1].objects["index"].sha256).unlink()
    with pytest.raises(SnapshotCorrupt):
        roll_back(index_dir)
    assert current_id(index_dir) == third


def test_roll_back_does_not_wait_for_a_build(index_dir):
    _, second, _ = generations(index_dir)
    with build_lock(index_dir):
        assert roll_back(index_dir) == second


def test_snapshot_that_was_published_in_spite_of_its_gate_is_a_way_back(index_dir):
    child(index_dir, 0)
    odd = child(index_dir, 1, gate={"counts": "half of it is gone"})
    child(index_dir, 2)
    last = child(index_dir, 3)
    (index_dir / "snapshots" / read_manifest(index_dir, last).parent / "manifest.json").unlink()
    assert roll_back(index_dir) == odd


def test_move_that_never_happened_is_not_told(index_dir):
    """A process may die between the line in the journal and the move of CURRENT."""
    first, second = generations(index_dir, 2)
    (index_dir / "CURRENT").write_text(f"{first}\n")
    assert [entry.snapshot_id for entry in moves(index_dir, first)] == [first]
    assert published_ids(index_dir, first) == {first}
    third = child(index_dir, 5)
    assert [entry.snapshot_id for entry in moves(index_dir, third)] == [first, third]
    assert second not in published_ids(index_dir, third)


def test_line_of_the_journal_that_cannot_be_read_is_passed_over(index_dir):
    first, second = generations(index_dir, 2)
    path = index_dir / FILE
    path.write_bytes(path.read_bytes() + b'{"at": "2026\n[]\n{"of": "another version"}\n')
    assert [entry.snapshot_id for entry in entries(index_dir)] == [first, second]
