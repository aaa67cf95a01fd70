"""Each check of the gate by itself, on small snapshots made for it; no Ray here."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from raydex import shard
from raydex.build.gate import parent
from raydex.build.gate.run import run_gate
from raydex.config import GateConfig
from raydex.embed import HashEmbedder
from raydex.evaluate import Golden
from raydex.records import Manifest, PublishedAnyway
from raydex.snapshot import list_snapshots, read_manifest, write_manifest
from tests import snapshots
from tests.docsite import own_words
from tests.snapshots import make_snapshot

EMBEDDER = HashEmbedder()
SITE = "https://docs.example.org/"


def url(number: int, folder: str = "guide") -> str:
    first, second, _ = own_words(number)
    return f"{SITE}{folder}/{first}.html#{second}"


def text(number: int, words: int = 60) -> str:
    """Return a text of words that stand nowhere else; the three of own_words stand there most often."""
    first, second, third = own_words(number)
    return " ".join(f"{first} {second} {third} {first}{i} {second}{i} {third}{i}" for i in range(words // 6))


def pages(numbers, folder="guide", words=60):
    return {url(number, folder): text(number, words) for number in numbers}


@pytest.fixture
def gate(index_dir):
    """Write a snapshot, run its gate against the one before, keep the results in its manifest."""
    state = {"parent": ""}

    def run(texts: Mapping[str, str], *, embedder=EMBEDDER, golden=None, change=None, **settings):
        manifest = _with_counts(make_snapshot(index_dir, texts, embedder, published=False), state["parent"])
        if change:
            manifest = change(manifest)
        write_manifest(index_dir, manifest)
        verdict = run_gate(index_dir, manifest.snapshot_id, embedder, GateConfig(**settings), golden)
        judged = replace(
            manifest, gate=verdict.results, gate_metrics=verdict.metrics, golden_digest=verdict.golden_digest
        )
        write_manifest(index_dir, judged)
        state["parent"] = manifest.snapshot_id
        return verdict

    return run


def _with_counts(manifest: Manifest, parent: str) -> Manifest:
    counts = {
        "pages": sum(s.page_count for s in manifest.shards),
        "sections": sum(s.section_count for s in manifest.shards),
        "chunks": sum(s.chunk_count for s in manifest.shards),
    }
    return replace(manifest, parent=parent, counts=counts)


def test_first_snapshot_passes_and_leaves_figures_for_the_next(gate):
    verdict = gate(pages(range(40)))
    assert set(verdict.results.values()) == {"passed"}
    assert verdict.metrics["heading_rate"] == 1.0
    for name in ("repeated_share", "near_duplicate_share", "collapsed_share"):
        assert verdict.metrics[name] == 0


def test_loss_of_sections_is_refused_though_the_pages_are_there(gate):
    gate({f"{page}-{part}": words for page, words in pages(range(40)).items() for part in "abc"})
    verdict = gate(pages(range(40)))
    assert "counts: 40 sections, the live snapshot has 120" in verdict.results["counts"]
    assert "pages" not in verdict.results["counts"]


def test_number_of_chunks_is_not_compared_when_they_are_cut_otherwise(gate, monkeypatch):
    gate({f"{page}-{part}": words for page, words in pages(range(40)).items() for part in "abc"})
    monkeypatch.setattr("tests.samples.CHUNKING", {"max_tokens": 512, "overlap_tokens": 0})
    counts = gate(pages(range(40))).results["counts"]
    assert "40 sections" in counts
    assert "chunks" not in counts


def test_directory_is_named_by_its_outermost_part_that_lost_too_much(gate):
    whole = pages(range(60)) | pages(range(60, 80), "api/v1") | pages(range(80, 90), "api/v2")
    gate(whole)
    verdict = gate(pages(range(60)) | pages(range(60, 70), "api/v1") | pages(range(80, 90), "api/v2"))
    (failure,) = verdict.failures
    assert failure.message == f"{SITE}api/ lost 10 of 30 pages"
    assert failure.page_count == 10
    assert set(failure.pages) == {page.partition("#")[0] for page in pages(range(70, 80), "api/v1")}


def test_directory_of_few_pages_may_be_gone(gate):
    gate(pages(range(60)) | pages(range(60, 64), "old"))
    assert gate(pages(range(60))).failures == []


def test_pages_that_are_almost_empty_now_are_refused_and_named(gate):
    gate(pages(range(40)))
    verdict = gate(pages(range(40)) | pages(range(4), words=6))
    (failure,) = verdict.failures
    assert (failure.check, failure.page_count) == ("texts", 4)
    assert set(failure.pages) == {page.partition("#")[0] for page in pages(range(4))}
    assert verdict.metrics["collapsed_share"] == 0.1


def test_two_pages_that_are_almost_empty_now_are_an_edit(gate):
    gate(pages(range(10)))
    assert gate(pages(range(10)) | pages(range(2), words=6)).failures == []


def test_three_pages_that_say_the_same_now_are_refused_and_named(gate):
    gate(pages(range(40)))
    verdict = gate(pages(range(40)) | dict.fromkeys(pages(range(3)), text(99)))
    assert verdict.failed_checks == ("texts", "near_duplicates")
    assert verdict.failures[0].page_count == verdict.failures[1].page_count == 3


def test_two_pages_that_say_the_same_now_pass(gate):
    gate(pages(range(20)))
    assert gate(pages(range(20)) | dict.fromkeys(pages(range(2)), text(99))).failures == []


def test_pages_that_were_split_or_moved_and_say_so_have_lost_nothing(gate):
    gate(pages(range(40), words=90))
    moved = {f"{SITE}new/{number}{part}.html#a": half for number in range(8) for part, half in _halves(number)}
    stubs = dict.fromkeys(pages(range(8)), "This page has moved, see the pages that it was split into.")
    assert gate(pages(range(8, 40), words=90) | stubs | moved).failures == []


def _halves(number: int):
    words = text(number, 90).split()
    return ("a", " ".join(words[:45])), ("b", " ".join(words[45:]))


def test_new_version_of_every_page_is_neither_a_loss_nor_a_crowd(gate):
    gate(pages(range(40), "v1"))
    versions = {
        page.replace("/v1/", f"/v{n}/"): f"{words} version {n}"
        for n in (2, 3)
        for page, words in pages(range(40), "v1").items()
    }
    assert gate(pages(range(40), "v1") | versions).failures == []


def test_passage_that_stands_on_many_new_pages_is_refused_even_when_no_page_lost_any(gate):
    gate(pages(range(40)))
    notice = "Please sign in with your company account to read on, or ask the administrator for an invitation."
    logins = {f"{SITE}login/{number}/enter.html#a": notice for number in range(12)}
    verdict = gate(pages(range(40)) | logins)
    assert verdict.failed_checks == ("near_duplicates",)
    assert set(verdict.failures[0].pages) == {page.partition("#")[0] for page in logins}


def test_pages_that_their_heading_finds_no_longer_are_refused_and_named(gate, monkeypatch):
    gate(pages(range(40)))
    made = snapshots._section_and_chunk
    unnamed = pages(range(25))

    def without_heading(page, words, embedder):
        section, chunk = made(page, words, embedder)
        return section, replace(chunk, context="Untitled") if page in unnamed else chunk

    monkeypatch.setattr(snapshots, "_section_and_chunk", without_heading)
    verdict = gate(pages(range(40)))
    (failure,) = verdict.failures
    assert (failure.check, failure.page_count) == ("headings", 15)
    assert set(failure.pages) < {page.partition("#")[0] for page in unnamed}
    assert "62.5% of 40 sampled pages are found by their own heading, 100.0% were" in failure.message
    assert verdict.metrics["heading_rate"] == 0.625


def test_parent_of_an_earlier_version_is_measured_when_its_manifest_has_no_figures(gate, index_dir):
    gate(pages(range(40)))
    (before,) = list_snapshots(index_dir)
    write_manifest(index_dir, replace(before, gate_metrics={}))
    assert gate(pages(range(40)) | dict.fromkeys(pages(range(8)), text(99))).failed_checks == (
        "texts",
        "near_duplicates",
    )


def test_growth_that_brings_pages_of_the_same_heading_is_no_loss(gate):
    gate({f"{SITE}a/{number}.html#setup": text(number) for number in range(9)})
    more = {f"{SITE}a/{number}.html#setup": text(number) for number in range(400)}
    assert "headings" not in gate(more).failed_checks


def test_rows_out_of_step_with_their_vectors_are_refused(gate, index_dir, monkeypatch):
    write = shard.write_shard

    def shifted(shard_id, chunks, vectors, *more, **options):
        return write(shard_id, chunks, np.roll(vectors, 1, axis=0), *more, **options)

    monkeypatch.setattr("tests.snapshots.write_shard", shifted)
    verdict = gate(pages(range(40)))
    assert "self_retrieval: 32 of 32 chunks" in verdict.results["self_retrieval"]


def test_vector_of_another_length_or_without_one_is_refused_and_its_page_named(gate, monkeypatch):
    monkeypatch.setattr(shard, "_check_vectors", lambda *_: None)
    monkeypatch.setattr(shard, "_check_lengths", lambda *_: None)

    class Damaged(HashEmbedder):
        def embed_passages(self, texts, token_ids=()):
            vectors = super().embed_passages(texts)
            vectors[0] *= 0.5
            vectors[1] = np.nan
            return vectors

    texts = pages(range(40))
    verdict = gate(texts, embedder=Damaged())
    (failure,) = (found for found in verdict.failures if found.check == "vectors")
    assert failure.page_count == 4  # two in each of two shards
    assert set(failure.pages) <= set(texts)


def test_damaged_file_ends_the_gate_at_once(gate, index_dir):
    def damage(manifest):
        path = index_dir / "objects" / manifest.shards[0].objects["sections"].sha256
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        return manifest

    verdict = gate(pages(range(10)), change=damage)
    assert verdict.is_damaged
    assert list(verdict.results) == ["checksums"]


GOLDEN = Golden(
    queries={f"q{number}": " ".join(own_words(number)) for number in range(20)},
    qrels={f"q{number}": {url(number): 1} for number in range(20)},
)


def test_golden_queries_are_compared_with_the_parent_itself_when_its_manifest_has_no_figures(gate):
    gate(pages(range(40)))
    verdict = gate(pages(range(2, 40)), golden=GOLDEN)
    assert verdict.failed_checks == ("golden",)
    assert "golden_recall@10 0.900 (live: 1.000)" in verdict.results["golden"]
    assert [(query.query_id, query.rank_before, query.rank) for query in verdict.failures[0].queries] == [
        ("q0", 1, 0),
        ("q1", 1, 0),
    ]


def test_golden_queries_are_compared_with_the_manifest_when_another_model_made_the_parent(gate):
    gate(pages(range(40)), golden=GOLDEN)
    verdict = gate(pages(range(2, 40)), golden=GOLDEN, embedder=HashEmbedder(dim=128))
    (failure,) = verdict.failures
    assert failure.check == "golden"
    assert [(query.query_id, query.rank_before) for query in failure.queries] == [("q0", None), ("q1", None)]
    assert "rank unknown → none" in str(failure)


def test_another_golden_set_is_not_compared_with_the_figures_of_the_former_one(gate):
    gate(pages(range(40)), golden=GOLDEN)
    harder = replace(GOLDEN, qrels={query: {f"{SITE}nowhere.html": 1} for query in GOLDEN.queries})
    assert gate(pages(range(40)), golden=harder, embedder=HashEmbedder(dim=128)).failures == []


def test_parent_is_not_opened_while_its_figures_suffice(gate, monkeypatch):
    gate(pages(range(40)), golden=GOLDEN)
    monkeypatch.setattr(parent, "open_snapshot", lambda *_, **__: pytest.fail("the parent was opened"))
    assert gate(pages(range(50)), golden=GOLDEN).failures == []


def test_loss_of_golden_figures_within_the_margin_passes(gate):
    gate(pages(range(40)), golden=GOLDEN)
    assert gate(pages(range(2, 40)), golden=GOLDEN, max_golden_loss=0.11).failures == []


def test_damaged_parent_does_not_stand_in_the_way_and_its_figures_still_count(gate, index_dir):
    gate(pages(range(40)), golden=GOLDEN)
    for name in {s.objects["sections"].sha256 for m in list_snapshots(index_dir) for s in m.shards}:
        (index_dir / "objects" / name).write_bytes(b"damaged")
    verdict = gate(pages(range(2, 25)), golden=GOLDEN)
    assert verdict.failed_checks == ("counts", "golden")


def test_manifest_of_an_earlier_version_is_read_and_a_decision_comes_back_as_written(gate, index_dir):
    gate(pages(range(4)))
    (manifest,) = list_snapshots(index_dir)
    decided = PublishedAnyway(reason="known", at="2026-01-01T12:00:00+00:00", checks=("texts",))
    write_manifest(index_dir, replace(manifest, published_anyway=decided))
    assert read_manifest(index_dir, manifest.snapshot_id).published_anyway == decided
    path = index_dir / "snapshots" / manifest.snapshot_id / "manifest.json"
    lines = path.read_text().partition(',\n  "gate_metrics"')
    path.write_text(lines[0] + "\n}\n")
    old = read_manifest(index_dir, manifest.snapshot_id)
    assert (old.gate_metrics, old.golden_digest, old.published_anyway) == ({}, "", None)
