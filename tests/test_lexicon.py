"""The lexical index as a part of a snapshot: written, shared, opened, checked, moved, collected, forgotten."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raydex.build.exchange import export_snapshot, import_snapshot
from raydex.build.garbage import collect
from raydex.build.lexicon import index_words
from raydex.chunk import cut
from raydex.config import ChunkConfig
from raydex.embed import HashEmbedder
from raydex.errors import SnapshotCorrupt
from raydex.lexical import open_lexical
from raydex.query import parse_query
from raydex.records import Filters, PageInfo, Section, stable_id
from raydex.shard import open_shard, write_shard
from raydex.snapshot import open_snapshot, read_manifest, snapshot_bytes, stored_objects, verify, write_manifest
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table
from tests.builder import Builder
from tests.docsite import DocSite, handbook
from tests.snapshots import make_snapshot

WORDS = ("alpaca", "badger", "cheetah", "dolphin", "elephant", "falcon", "giraffe", "hamster", "iguana")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def index_dir(tmp_path):
    return tmp_path / "docs"


def made(index_dir, words=WORDS, *, hour=0):
    texts = {f"https://docs.example/{word}.html#about": f"All about the {word} and its food." for word in words}
    return make_snapshot(
        index_dir, texts, HashEmbedder(), shards=4, words=True, now=NOON + timedelta(hours=hour), published=True
    )


def lexical_of(snapshot):
    assert snapshot.lexical is not None
    return snapshot.lexical


def found(snapshot, text, **filters):
    """Return the texts of the rows that the lexical index finds."""
    chunks = [shard.chunk(row) for shard in snapshot.shards for row in range(len(shard))]
    _, rows = lexical_of(snapshot).search(parse_query(text), 10, Filters(**filters))
    return [chunks[row].text for row in rows]


def test_rows_are_those_of_the_shards_one_after_the_other(index_dir):
    made(index_dir)
    snapshot = open_snapshot(index_dir)
    assert len(lexical_of(snapshot)) == len(WORDS)
    for word in WORDS:
        assert found(snapshot, word) == [f"All about the {word} and its food."]
        assert found(snapshot, "food", paths=(f"/{word}.html",)) == [f"All about the {word} and its food."]


def test_symbol_is_defined_where_its_section_begins(tmp_path):
    url = "https://docs.example/make.html"
    section = Section(
        section_id=f"{url}#thing.make",
        page_id=stable_id(url),
        url=f"{url}#thing.make",
        title="Things",
        headings=("Things", "thing.make"),
        text=" ".join(f"Sentence number {number} about making things." for number in range(40)),
        position=0,
        kind="api",
        symbol="thing.make",
    )
    embedder = HashEmbedder()
    chunks = cut(section, embedder.tokenizer, ChunkConfig(max_tokens=32, overlap_tokens=0))
    vectors = embedder.embed_passages([chunk.embedder_input for chunk in chunks])
    info = PageInfo(page_id=section.page_id, url=url, source="things", title="Things")
    tables = chunks_to_table(chunks), vectors, sections_to_table([section]), pages_to_table([info])
    shard = write_shard("00000", *tables, tmp_path / "objects")
    lexical = index_words([shard], tmp_path / "objects", tmp_path)
    (row,) = open_lexical(lexical, tmp_path / "objects").definitions("thing.make")[0]
    assert len(chunks) > 5
    assert open_shard(shard, tmp_path / "objects").chunk(int(row)).char_start == 0


def test_index_of_the_same_texts_is_taken_over_from_the_parent_and_any_other_is_made_anew(index_dir, tmp_path):
    first, other = made(index_dir), made(index_dir, WORDS[1:], hour=1)

    def again(shards, parent):
        return index_words(shards, index_dir / "objects", tmp_path, parent)

    assert again(first.shards, first) == first.lexical
    assert again(other.shards, first).documents == len(WORDS) - 1
    assert again(first.shards, replace(first, lexical=None)) != first.lexical
    assert again(first.shards, replace(first, lexical=replace(first.lexical, analyzer="0"))).analyzer != "0"
    (index_dir / "objects" / next(iter(first.lexical.objects.values())).sha256).unlink()
    made_anew = again(first.shards, first)
    assert all((index_dir / "objects" / file.sha256).exists() for file in made_anew.objects.values())


@pytest.mark.parametrize("changes", [{"lexical": None}, {"analyzer": "another"}])
def test_snapshot_without_a_lexical_index_that_we_can_read_opens_all_the_same(index_dir, changes, caplog):
    manifest = made(index_dir)
    lexical = replace(manifest.lexical, **changes) if "analyzer" in changes else None
    write_manifest(index_dir, replace(manifest, lexical=lexical))
    assert open_snapshot(index_dir).lexical is None
    assert "no lexical index" in caplog.text
    assert verify(index_dir, manifest.snapshot_id) == []


def test_index_folder_may_be_read_only(index_dir):
    made(index_dir)
    for folder in (index_dir / "objects", index_dir):
        folder.chmod(0o555)
    assert found(open_snapshot(index_dir), "badger")


def test_open_index_answers_after_its_files_are_deleted(index_dir):
    manifest = made(index_dir)
    snapshot = open_snapshot(index_dir)
    for file in manifest.lexical.objects.values():
        (index_dir / "objects" / file.sha256).unlink()
    assert found(snapshot, '"about the badger"')
    assert lexical_of(snapshot).suggest("gir", 5)


@pytest.mark.parametrize("suffix", [".idx", ".term", "meta.json"])
def test_damaged_file_is_found_by_open_and_verify(index_dir, suffix):
    manifest = made(index_dir)
    name = next(name for name in manifest.lexical.objects if name.startswith("passages/") and name.endswith(suffix))
    path = index_dir / "objects" / manifest.lexical.objects[name].sha256
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    with pytest.raises(SnapshotCorrupt, match=path.name):
        open_snapshot(index_dir)
    assert [path.name in problem for problem in verify(index_dir, manifest.snapshot_id)] == [True]


def test_index_of_other_texts_is_found_by_verify(index_dir):
    live, other = made(index_dir), made(index_dir, WORDS[1:], hour=1)
    write_manifest(index_dir, replace(live, lexical=other.lexical))
    assert "9 documents" in verify(index_dir, live.snapshot_id)[0]
    write_manifest(index_dir, replace(live, lexical=replace(other.lexical, documents=9)))
    assert "lexical index" in verify(index_dir, live.snapshot_id)[0]


def test_it_is_counted_collected_exported_and_imported_with_its_snapshot(index_dir, tmp_path):
    manifests = [made(index_dir, WORDS[number:], hour=number) for number in range(3)]
    lexical_bytes = sum(file.bytes for file in manifests[2].lexical.objects.values())
    assert snapshot_bytes(manifests[2]) > lexical_bytes + snapshot_bytes(replace(manifests[2], lexical=None)) - 1
    collect(index_dir, keep=1, grace_s=0)
    left = {path.name for path in (index_dir / "objects").iterdir()}
    kept = [m for m in manifests if (index_dir / "snapshots" / m.snapshot_id).exists()]
    assert left == set(stored_objects(kept))
    assert len(kept) < 3
    export_snapshot(index_dir, manifests[2].snapshot_id, tmp_path / "file.raydex")
    import_snapshot(tmp_path / "other", tmp_path / "file.raydex")
    assert found(open_snapshot(tmp_path / "other"), "dolphin")


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("cluster")
def test_build_indexes_words_shares_them_when_nothing_changed_and_forgets_them(tmp_path, capsys):
    build = Builder(tmp_path, capsys)
    with DocSite(handbook(pages=6)) as site:
        site.put("secret.html", "<main><h1 id=a>Xylophone</h1><p>The xylophone is a k8s secret of nobody.</p></main>")
        sources = tmp_path / "sources.toml"
        sources.write_text(
            f'[[source]]\nname = "book"\nseeds = ["{site.url}", "{site.url}secret.html"]\n'
            'synonyms = [["k8s", "kubernetes"]]\n'
        )
        assert build("--sources", str(sources))[0] == 0
        first = open_snapshot(build.index_dir)
        assert len(lexical_of(first)) == first.manifest.counts["chunks"]
        assert "xylophone" in found(first, "xylophone", sources=("book",))[0]
        assert "xylophone" in found(first, "kubernetes")[0]
        assert build("--sources", str(sources))[0] == 0
        second = read_manifest(build.index_dir, open_snapshot(build.index_dir).manifest.snapshot_id)
        assert second.parent == first.manifest.snapshot_id
        assert second.lexical == first.manifest.lexical
        assert build("--forget", site.url + "secret.html")[0] == 0
    assert found(open_snapshot(build.index_dir), "xylophone") == []
    assert not any(b"xyloph" in path.read_bytes().lower() for path in _lexical_files(build.index_dir))


def _lexical_files(index_dir: Path):
    """Yield every file of tantivy that is left: its term dictionaries hold words in clear."""
    return [path for path in (index_dir / "objects").iterdir() if not path.read_bytes().startswith(b"PAR1")]
