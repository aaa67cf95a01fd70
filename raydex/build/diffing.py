"""What two snapshots differ in: pages and sections, added, removed or changed. Nothing is loaded whole.

    Manifest, Manifest → (Change, …) pages first

Tables are ordered by id, so both sides are merged as they are read, one shard of each after the other (or the few that
hold the same pages, when the numbers of shards differ). A file that both snapshots share is not read at all.
"""

import hashlib
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pyarrow.parquet as pq

from raydex.build.rows import shard_number
from raydex.records import Manifest, Shard
from raydex.shard import check_object, pages_of
from raydex.snapshot import stored_objects
from raydex.tables import stream_rows

SAID_BY_A_SECTION = ("title", "headings", "text", "kind", "symbol", "aliases")
"""What makes a section another one. Not its position: a new section moves all that follow."""
_UNSAID = {"kind": "prose", "symbol": "", "aliases": []}
"""What sections of earlier snapshots say where they lack a column."""

_Row = tuple[str, str, str]  # id, digest of what it says ("": nobody knows), URL


@dataclass(frozen=True, slots=True)
class Change:
    """kind: page or section; change: added, removed or changed."""

    kind: str
    change: str
    url: str


def differences(index_dir: Path, before: Manifest, after: Manifest) -> Iterator[Change]:
    """Yield what differs: pages, then sections, each shard by shard and there by id. Raises SnapshotCorrupt."""
    for name, file in stored_objects([before, after]).items():
        check_object(index_dir / "objects" / name, file, verify=False)
    groups = _groups(index_dir / "objects", before, after)
    for kind, role, read in (("page", "pages", _page_rows), ("section", "sections", _section_rows)):
        shared = _files(before, role) & _files(after, role)
        for group in range(groups):
            shards = [[s for s in m.shards[group::groups] if _file(s, role) not in shared] for m in (before, after)]
            sides = (heapq.merge(*(read(shard, index_dir / "objects") for shard in side)) for side in shards)
            yield from (Change(kind, change, url) for change, url in _compare(*sides))


def _groups(objects_dir: Path, before: Manifest, after: Manifest) -> int:
    """Return into how many parts, compared one after the other, the shards of both snapshots fall.

    With n and m shards, chosen by the page's id, the shards of both whose number leaves the same rest on division by
    gcd(n, m) hold the same pages. A snapshot whose pages are spread in another way is compared as a whole.
    """
    shared = _files(before, "sections") & _files(after, "sections")
    for manifest in (before, after):
        for number, shard in enumerate(manifest.shards):
            name = _file(shard, "sections")
            first = next(stream_rows(objects_dir / name, ("page_id",)), None) if name not in shared else None
            if first and shard_number(first[0], len(manifest.shards)) != number:
                return 1
    return math.gcd(len(before.shards), len(after.shards))


def _files(manifest: Manifest, role: str) -> set[str]:
    return {_file(shard, role) for shard in manifest.shards}


def _file(shard: Shard, role: str) -> str:
    """Return the name of the file that holds these rows; a shard of format 1 knows its pages by their sections."""
    return shard.objects.get(role, shard.objects["sections"]).sha256


def _compare(before: Iterable[_Row], after: Iterable[_Row]) -> Iterator[tuple[str, str]]:
    """Yield (change, URL) over two ordered streams; an id that comes twice on one side counts once."""
    tagged = heapq.merge(((*row, 0) for row in before), ((*row, 1) for row in after), key=itemgetter(0))
    for _, group in groupby(tagged, key=itemgetter(0)):
        sides: dict[int, tuple[str, str]] = {}
        for _, digest, url, side in group:
            sides.setdefault(side, (digest, url))
        if len(sides) == 1:
            ((side, (_, url)),) = sides.items()
            yield ("removed", "added")[side], url
        elif all(digest for digest, _ in sides.values()) and sides[0][0] != sides[1][0]:
            yield "changed", sides[1][1]


def _page_rows(shard: Shard, objects_dir: Path) -> Iterator[_Row]:
    """Yield the pages in order; a page says another thing when its body is another one (format 1 knows no bodies)."""
    columns = ("page_id", "body_sha256", "url")
    if "pages" in shard.objects:
        yield from stream_rows(objects_dir / shard.objects["pages"].sha256, columns)
    else:
        table = pages_of(shard, objects_dir, columns)
        yield from sorted(zip(*(table[name].to_pylist() for name in columns), strict=True))


def _section_rows(shard: Shard, objects_dir: Path) -> Iterator[_Row]:
    path = objects_dir / shard.objects["sections"].sha256
    told = [name for name in SAID_BY_A_SECTION if name in pq.read_schema(path).names]
    for section_id, url, *said in stream_rows(path, ("section_id", "url", *told)):
        whole = {**_UNSAID, **dict(zip(told, said, strict=True))}
        digest = hashlib.sha256(repr([whole[name] for name in SAID_BY_A_SECTION]).encode()).hexdigest()[:32]
        yield section_id, digest, url
