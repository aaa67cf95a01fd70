"""Units → parts → shards, without Ray: the shards are those made in memory, and a task reads its own rows only."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from raydex.build import shuffle as shuffling
from raydex.build.items import DROPPED_SCHEMA
from raydex.build.rows import Dropped, shard_number
from raydex.build.shuffle import Shuffle, close_shards, shard_unit, shuffle_units
from raydex.build.sizing import index_kind, shard_count
from raydex.build.units import BuildContext
from raydex.checkpoint import write_parquet
from raydex.config import BuildConfig
from raydex.digest import digest_of_records, digest_of_shards, digest_records
from raydex.embed import HashEmbedder
from raydex.records import Source
from raydex.shard import open_shard, pages_of, write_shard
from raydex.tables import chunks_to_table, merged_once, pages_to_table, sections_to_table, sorted_once
from tests.samples import content_digest, page_of, sample_chunk, section_of

EMBEDDER = HashEmbedder()
SHARDS = 4


@pytest.fixture
def context(tmp_path):
    made = BuildContext(
        index_dir=tmp_path / "docs",
        build_id="b1",
        config=BuildConfig(index="docs"),
        sources=(Source(name="sample", seeds=("https://docs.example.org/",)),),
        embedder=EMBEDDER.info,
    )
    drop(made)
    return made


def drop(context, rows=()):
    write_parquet(context.build_dir / Dropped.FILE, pa.Table.from_pylist(list(rows), schema=DROPPED_SCHEMA))


def vectors_for(chunks):
    return EMBEDDER.embed_passages([chunk.embedder_input for chunk in chunks])


def write_unit(context, unit_id, chunks):
    base = context.units_dir / unit_id
    for role, table in (
        ("chunks", chunks_to_table(chunks).append_column("more", pa.nulls(len(chunks)))),  # of no use to a shard
        ("sections", sections_to_table([section_of(chunk) for chunk in chunks])),
        ("pages", pages_to_table([page_of(chunk) for chunk in {chunk.page_id: chunk for chunk in chunks}.values()])),
    ):
        write_parquet(base.with_name(f"{unit_id}.{role}.parquet"), table)
    np.save(base.with_name(f"{unit_id}.vectors.npy"), vectors_for(chunks))


def write_units(context, count=120, per_unit=15):
    """Units of whole pages; return their names and chunks."""
    chunks = [sample_chunk(number, f"passage {number} of page {number // 3}") for number in range(count)]
    names = []
    for first in range(0, count, per_unit):
        names.append(f"unit{first:04d}")
        write_unit(context, names[-1], chunks[first : first + per_unit])
    return names, chunks


def shuffled(context, names, *, kind="flat", shards=SHARDS, per_group=3, content="c"):
    shuffle = Shuffle(shards=shards, kind=kind, least_recall=0.99, content=content)
    for first in range(0, len(names), per_group):
        shuffle_units(context, shuffle, f"{first:06d}", names[first : first + per_group])
    return shuffle


def in_memory(context, chunks, number, shards=SHARDS):
    mine = [chunk for chunk in chunks if shard_number(chunk.page_id, shards) == number]
    return write_shard(
        f"{number:05d}",
        chunks_to_table(mine),
        vectors_for(mine) if mine else np.empty((0, EMBEDDER.info.dim), np.float32),
        sections_to_table([section_of(chunk) for chunk in mine]),
        pages_to_table([page_of(chunk) for chunk in mine]),
        context.index_dir / "memory",
    )


def test_streamed_shards_have_the_bytes_of_shards_written_from_memory(context):
    names, chunks = write_units(context)
    shuffle = shuffled(context, names)
    for number in range(SHARDS):
        assert shard_unit(context, shuffle, number) == in_memory(context, chunks, number)


def test_shards_do_not_depend_on_how_units_are_grouped_and_parts_are_cut(context, monkeypatch):
    names, _ = write_units(context)
    expected = [shard_unit(context, shuffled(context, names), number) for number in range(SHARDS)]
    monkeypatch.setattr(shuffling, "PART_BYTES", 1)
    many_parts = shuffled(context, names[::-1], per_group=2, content="other")
    assert len(list(many_parts.folder(context).glob("*.rows"))) == len(names)
    assert [shard_unit(context, many_parts, number) for number in range(SHARDS)] == expected


def test_a_shard_task_reads_no_unit_and_no_rows_of_other_shards(context):
    names, chunks = write_units(context)
    shuffle = shuffled(context, names)
    for path in context.units_dir.glob("unit*"):
        path.unlink()
    for path in shuffle.folder(context).glob("*.rows"):
        places = np.fromfile(path, np.int64, SHARDS * 3 * 2).reshape(SHARDS, 3, 2)
        data = bytearray(path.read_bytes())
        for first, size in places[1:].reshape(-1, 2):
            data[first : first + size] = b"\xff" * size
        path.write_bytes(data)
    assert shard_unit(context, shuffle, 0) == in_memory(context, chunks, 0)
    with pytest.raises(OSError, match="IPC"):
        shard_unit(context, shuffle, 1)


def test_a_group_that_a_killed_build_has_finished_is_not_read_again(context):
    names, _ = write_units(context)
    shuffle = shuffled(context, names)
    for path in context.units_dir.glob("unit*"):
        path.unlink()
    assert shuffled(context, names) == shuffle
    assert shard_unit(context, shuffle, 0).chunk_count


def test_a_part_that_a_power_cut_has_emptied_is_written_again(context):
    names, chunks = write_units(context)
    shuffle = shuffled(context, names)
    next(shuffle.folder(context).glob("*.rows")).write_bytes(b"")
    shuffled(context, names)
    assert shard_unit(context, shuffle, 0) == in_memory(context, chunks, 0)


def test_dropped_pages_and_sections_stay_out_and_a_kept_page_names_its_copies(context):
    names, chunks = write_units(context)
    page, section = chunks[0].page_id, chunks[5].section_id
    drop(
        context,
        [
            {"id": page, "url": "https://docs.example.org/print", "kept_page_id": chunks[30].page_id},
            {"id": section, "url": section, "kept_page_id": ""},
        ],
    )
    shards = [shard_unit(context, shuffled(context, names), number) for number in range(SHARDS)]
    objects = context.objects_dir
    found = {chunk_id for shard in shards for chunk_id in open_shard(shard, objects).chunk_ids}
    kept = [chunk for chunk in chunks if chunk.page_id != page and chunk.section_id != section]
    assert found == {chunk.chunk_id for chunk in kept}
    copies = {row["page_id"]: row["copies"] for shard in shards for row in pages_of(shard, objects).to_pylist()}
    assert copies.pop(chunks[30].page_id) == ["https://docs.example.org/print"]
    assert page not in copies
    assert not any(copies.values())


def test_digest_of_all_shards_is_the_content_digest_even_when_records_were_lost(context):
    names, chunks = write_units(context)
    shuffle = shuffled(context, names)
    shards = [shard_unit(context, shuffle, number) for number in range(SHARDS)]
    pairs = sorted((chunk.chunk_id, hashlib.sha256(chunk.text.encode()).hexdigest()) for chunk in chunks)
    chunking = context.config.chunk.model_dump()
    expected = content_digest(pairs, EMBEDDER.info.fingerprint, chunking)
    assert close_shards(context, shuffle, shards).digest == expected
    assert digest_of_shards(shards, context.objects_dir, EMBEDDER.info.fingerprint, chunking) == expected
    (shuffle.folder(context) / "shard-00001.records").write_bytes(b"")
    assert close_shards(context, shuffle, shards).digest == expected


def test_records_are_merged_over_files_of_any_length_and_each_counts_once(tmp_path, monkeypatch):
    monkeypatch.setattr("raydex.digest._MERGED_BYTES", 1)
    ids = sorted(hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(5000))
    pairs = [(chunk_id, hashlib.sha256(chunk_id.encode()).hexdigest()) for chunk_id in ids]
    files = []
    for number, part in enumerate((ids[::2], ids[1::2], [], ids[100:101], ids[2000:2300])):
        files.append(tmp_path / f"{number}.records")
        files[-1].write_bytes(digest_records(part, part))
    assert digest_of_records(files, "model", {"max_tokens": 1}) == content_digest(pairs, "model", {"max_tokens": 1})


def test_recall_over_all_shards_is_measured_with_queries_that_all_are_asked(context):
    names, _ = write_units(context)
    exact = shuffled(context, names)
    shards = [shard_unit(context, exact, number) for number in range(SHARDS)]
    assert close_shards(context, exact, shards).recall == 1.0
    coarse = shuffled(context, names, kind="rabitq", content="coarse")
    shards = [shard_unit(context, coarse, number) for number in range(SHARDS)]
    assert {shard.index_kind for shard in shards} == {"rabitq"}
    assert close_shards(context, coarse, shards).recall >= 0.99
    path = coarse.folder(context) / "shard-00002.recall.npy"
    scores = np.load(path)
    scores[1] = -np.inf  # as if shard 2 found nothing
    np.save(path, scores)
    assert 0 < close_shards(context, coarse, shards).recall < 0.99


def test_merged_runs_are_the_sorted_whole_with_the_first_of_equal_keys(monkeypatch):
    monkeypatch.setattr("raydex.tables.BLOCK_ROWS", 7)
    rng = np.random.default_rng(4)
    runs = []
    for number in range(5):
        keys = sorted(rng.choice([f"k{key:03d}" for key in range(90)], size=40, replace=False))
        runs.append(pa.table({"key": keys, "run": [number] * 40}))
    count, blocks = merged_once([runs[0].slice(0, 0), *runs], "key")
    merged = list(blocks)
    assert [block.num_rows for block in merged[:-1]] == [7] * (len(merged) - 1)
    assert pa.concat_tables(merged).equals(sorted_once(pa.concat_tables(runs), "key"))
    assert count == len({key for run in runs for key in run["key"].to_pylist()})


@pytest.mark.parametrize(
    ("chunks", "parent", "expected"),
    [
        (0, 0, 1),
        (4096, 0, 1),
        (4097, 0, 2),
        (200_000, 0, 64),
        (60_000_000, 0, 64),
        (70_000_000, 0, 128),
        (1_000_000_000, 0, 1024),
        (5000, 4, 4),  # the parent's, while it is not far off
        (5000, 16, 2),
    ],
)
def test_number_of_shards_follows_the_number_of_chunks(chunks, parent, expected):
    assert shard_count(chunks, 0, parent) == expected
    assert shard_count(chunks, 3, parent) == 3


@pytest.mark.parametrize(
    ("chunks", "parent", "expected"),
    [
        (10, "", "flat"),
        (8_001, "", "int8"),
        (8_001, "flat", "flat"),
        (45_000, "fp16", "int8"),
        (150_000, "rabitq", "rabitq"),
        (10**6, "flat", "rabitq"),
        (1000, "rabitq", "flat"),
    ],
)
def test_index_kind_follows_the_number_of_chunks_and_stays_the_parents_near_a_border(chunks, parent, expected):
    assert index_kind(chunks, "auto", parent) == expected
    assert index_kind(chunks, "rabitq", parent) == "rabitq"
