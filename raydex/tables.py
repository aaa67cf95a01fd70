"""Chunks, sections and pages as tables: their columns, and merging ordered tables a block at a time.

[Chunk, …] → chunks_to_table → table ;  ordered tables → merged_once → blocks, each id once → write_rows (shard.py)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.errors import SnapshotCorrupt
from raydex.records import Chunk, PageInfo, Section, Vectors

BLOCK_ROWS = 16_384
"""Rows of a block, of which one is in memory at a time, and of a row group in a Parquet file."""
ROWS_AT_A_TIME = 256
"""Of a table that is read as a stream: those of a few pages."""

CHUNK_SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("section_id", pa.string()),
        ("page_id", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("headings", pa.list_(pa.string())),
        ("context", pa.string()),
        ("text", pa.string()),
        ("char_start", pa.int32()),
        ("char_end", pa.int32()),
        ("token_count", pa.int32()),
    ]
)
SECTION_SCHEMA = pa.schema(
    [
        ("section_id", pa.string()),
        ("page_id", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("headings", pa.list_(pa.string())),
        ("text", pa.string()),
        ("position", pa.int32()),
        ("kind", pa.string()),
        ("symbol", pa.string()),
        ("aliases", pa.list_(pa.string())),
    ]
)
PAGE_SCHEMA = pa.schema(
    [
        ("page_id", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("version", pa.string()),
        ("language", pa.string()),
        ("breadcrumbs", pa.list_(pa.string())),
        ("updated", pa.string()),
        ("body_sha256", pa.string()),
        ("copies", pa.list_(pa.string())),
        ("stale_builds", pa.int32()),
    ]
)
_ADDED: dict[str, str | list[str]] = {"kind": "prose", "symbol": "", "aliases": []}
"""Columns that a snapshot of format 1 lacks, and what they are then; early ones of format 2 have no `aliases`."""


def chunks_to_table(chunks: Sequence[Chunk]) -> pa.Table:
    return _to_table(chunks, CHUNK_SCHEMA)


def sections_to_table(sections: Sequence[Section]) -> pa.Table:
    return _to_table(sections, SECTION_SCHEMA)


def pages_to_table(pages: Sequence[PageInfo]) -> pa.Table:
    return _to_table(pages, PAGE_SCHEMA)


def _to_table(records: Sequence[Chunk] | Sequence[Section] | Sequence[PageInfo], schema: pa.Schema) -> pa.Table:
    columns = {name: [getattr(record, name) for record in records] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def read_table(path: Path, schema: pa.Schema, rows: int) -> pa.Table:
    """Return a table of so many rows. Raises SnapshotCorrupt when the file is damaged or has other columns or rows."""
    with _damage_named(path):
        table = pq.read_table(path)
    for name, value in _ADDED.items():
        if name in schema.names and name not in table.column_names:
            table = table.append_column(name, pa.array([value] * table.num_rows, schema.field(name).type))
    if not table.schema.equals(schema):
        raise SnapshotCorrupt(str(path), "columns " + ", ".join(schema.names), ", ".join(table.schema.names))
    if table.num_rows != rows:
        raise SnapshotCorrupt(str(path), f"{rows} rows", f"{table.num_rows} rows")
    return table


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Raises SnapshotCorrupt when the file is missing or damaged."""
    with _damage_named(path):
        return pq.read_table(path, columns=list(columns))


def stream_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table, a few in memory at a time; raises SnapshotCorrupt as read_columns does."""
    with _damage_named(path):
        for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_A_TIME, columns=list(columns)):
            yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SnapshotCorrupt(str(path), "a Parquet file", "no file") from error
    except (pa.ArrowException, OSError) as error:  # not Parquet; damaged pages
        raise SnapshotCorrupt(str(path), "a Parquet file", "something else") from error


def vectors_to_column(vectors: Vectors) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def vectors_of_column(column: pa.ChunkedArray, dim: int) -> Vectors:
    vectors: Vectors = column.combine_chunks().flatten().to_numpy().reshape(-1, dim)
    return vectors


def sorted_once(table: pa.Table, key: str) -> pa.Table:
    """Return the table ordered by key, each key once: its first row."""
    ids = table[key].combine_chunks()
    return table.take(_order(ids)[0]).combine_chunks()


def _order(ids: pa.Array) -> tuple[pa.Array, int]:
    """Return the rows of the sorted ids, each id once (its first row), and how many there are."""
    order = pc.array_sort_indices(ids)  # stable, by the bytes of UTF-8: by code point
    ordered = ids.take(order)
    if len(ordered) > 1:
        is_new = pa.concat_arrays([pa.array([True]), pc.not_equal(ordered[1:], ordered[:-1])])
        order = order.filter(is_new)
    return order, len(order)


def in_blocks(table: pa.Table) -> Iterator[pa.Table]:
    for first in range(0, table.num_rows, BLOCK_ROWS):
        yield table.slice(first, BLOCK_ROWS)


def merged_once(runs: Sequence[pa.Table], key: str) -> tuple[int, Iterator[pa.Table]]:
    """Merge tables that are ordered by key into blocks, each key once (its first row); return their rows and them.

    The keys of all are in memory (about 50 bytes a row), of the rest one block: the tables may be mapped files.
    """
    runs = [run for run in runs if run.num_rows]
    if not runs:
        return 0, iter(())
    keys = pa.chunked_array([chunk for run in runs for chunk in run[key].chunks]).combine_chunks()
    order, count = _order(keys)
    return count, _merge(runs, order.to_numpy())


def _merge(runs: Sequence[pa.Table], order: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
    starts = np.cumsum([0, *(run.num_rows for run in runs)])
    for first in range(0, len(order), BLOCK_ROWS):
        rows = order[first : first + BLOCK_ROWS].astype(np.int64)
        numbers = np.searchsorted(starts, rows, side="right") - 1
        places, parts, length = np.empty_like(rows), [], 0
        for number in np.unique(numbers):
            mine = numbers == number
            local = rows[mine] - starts[number]
            low, high = int(local.min()), int(local.max()) + 1  # a run is ordered: these rows lie side by side
            parts.append(runs[number].slice(low, high - low))
            places[mine] = local - low + length
            length += high - low
        yield pa.concat_tables(parts).combine_chunks().take(pa.array(places))
