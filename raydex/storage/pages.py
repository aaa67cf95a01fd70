"""The page store, as a remote index keeps it: its parts in a few immutable packs, and one index of them.

    pages/<2 hex>/<page_id>.page, .reading  ↔  <index>/pages.index, <index>/packs/<sha256>

A build rewrites the head of every page (who saw it last), and hardly any body: heads are in the index, which is
replaced, bodies and readings in packs, which are only added. A pack is packed anew when less than half of it is in use.
"""

import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard

from raydex.storage.remote import Content, Remote, at_once
from utils.files import make_folder, write_bytes

INDEX, PACKS = "pages.index", "packs"
MOST_PACK_BYTES = 64 * 2**20
LEAST_IN_USE = 0.5


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes in a pack. key: head of their sha256."""

    key: str
    pack: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class _Line:
    """A page in the index. head: the first line of its file."""

    page_id: str
    head: str
    body: _Part
    reading: _Part | None


def push_pages(remote: Remote, index: str, pages_dir: Path, *, least_in_use: float = LEAST_IN_USE) -> None:
    """Bring the remote page store up to this one; what this one lacks goes. The caller holds the lease.

    least_in_use: share of a pack below which it is packed anew; 1 leaves nothing of what is gone.
    """
    before = {line.page_id: line for line in _lines(remote.read(f"{index}/{INDEX}"))}
    sizes = {name.rpartition("/")[2]: stat.bytes for name, stat in remote.stats(f"{index}/{PACKS}").items()}
    known = _still_good(pages_dir, before, sizes, least_in_use)
    packer = _Packer(remote, index, known)
    lines = [packer.line(path) for path in _page_files(pages_dir)]
    packer.upload()
    placed = [line for made in lines if (line := made(packer.places))]
    if not placed and not before:
        return
    data = b"".join(_dumped(line) for line in placed)
    if data != b"".join(map(_dumped, before.values())):
        remote.write(f"{index}/{INDEX}", zstandard.compress(data))
    in_use = {part.pack for line in placed for part in _parts(line)}
    remote.delete(f"{index}/{PACKS}/{pack}" for pack in sorted(sizes.keys() - in_use))


def pull_pages(remote: Remote, index: str, pages_dir: Path, seen: str) -> str:
    """Bring this page store up to the remote one, and return the version of that.

    seen: the version this store was last equal to; if the remote one still has it, this store is as new or newer.
    """
    content = remote.read(f"{index}/{INDEX}")
    version = content.version if content else ""
    if version == seen:
        return seen
    lines = {line.page_id: line for line in _lines(content)}
    for path in _page_files(pages_dir):
        if path.stem not in lines:  # forgotten elsewhere: not to come back from here
            path.unlink()
            path.with_suffix(".reading").unlink(missing_ok=True)
    _unpack(remote, index, pages_dir, lines)
    return version


def _unpack(remote: Remote, index: str, pages_dir: Path, lines: Mapping[str, _Line]) -> None:
    """Write the files whose content differs, one pack after the other in its own thread."""
    wanted: dict[str, list[tuple[Path, bytes, _Part]]] = defaultdict(list)
    for line in lines.values():
        path = pages_dir / line.page_id[:2] / f"{line.page_id}.page"
        head = line.head.encode() + b"\n"
        if not path.exists() or path.read_bytes().partition(b"\n")[0] != head[:-1]:
            wanted[line.body.pack].append((path, head, line.body))
        reading = path.with_suffix(".reading")
        if line.reading and not (reading.exists() and _key(reading.read_bytes()) == line.reading.key):
            wanted[line.reading.pack].append((reading, b"", line.reading))

    def unpack(pack: str) -> None:
        with tempfile.NamedTemporaryFile(dir=pages_dir, prefix=".pack.") as file:
            if not remote.download(f"{index}/{PACKS}/{pack}", Path(file.name)):
                return  # these pages are fetched from the site again
            for path, head, part in wanted[pack]:
                file.seek(part.start)
                write_bytes(path, head + file.read(part.size), durable=False)

    make_folder(pages_dir)
    at_once(unpack, sorted(wanted))


class _Packer:
    """Collects the parts that are in no pack yet, and uploads a pack whenever one is full."""

    def __init__(self, remote: Remote, index: str, places: dict[str, _Part]) -> None:
        self._remote, self._index = remote, index
        self.places = places
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0

    def line(self, path: Path) -> "_Unplaced":
        head, _, body = path.read_bytes().partition(b"\n")
        reading = path.with_suffix(".reading")
        keys = self._add(body), self._add(reading.read_bytes()) if reading.exists() else ""
        return _Unplaced(path.stem, head.decode(), *keys)

    def _add(self, data: bytes) -> str:
        key = _key(data)
        if key not in self.places and key not in self._waiting:
            self._waiting[key] = data
            self._bytes += len(data)
            if self._bytes >= MOST_PACK_BYTES:
                self.upload()
        return key

    def upload(self) -> None:
        if not self._waiting:
            return
        data, start = b"".join(self._waiting.values()), 0
        pack = hashlib.sha256(data).hexdigest()
        self._remote.write(f"{self._index}/{PACKS}/{pack}", data)
        for key, part in self._waiting.items():
            self.places[key] = _Part(key, pack, start, len(part))
            start += len(part)
        self._waiting, self._bytes = {}, 0


@dataclass(frozen=True, slots=True)
class _Unplaced:
    page_id: str
    head: str
    body: str
    reading: str

    def __call__(self, places: Mapping[str, _Part]) -> _Line:
        return _Line(self.page_id, self.head, places[self.body], places[self.reading] if self.reading else None)


def _still_good(
    pages_dir: Path, before: Mapping[str, _Line], sizes: Mapping[str, int], least_in_use: float
) -> dict[str, _Part]:
    """Return the parts in packs that stay: those of which enough is still in use by the pages here."""
    here = {path.stem for path in _page_files(pages_dir)}
    parts = {part.key: part for line in before.values() if line.page_id in here for part in _parts(line)}
    used = Counter[str]()
    for part in parts.values():
        used[part.pack] += part.size
    good = {pack for pack, size in sizes.items() if used[pack] >= least_in_use * size}
    return {key: part for key, part in parts.items() if part.pack in good}


def _page_files(pages_dir: Path) -> Iterator[Path]:
    yield from sorted(pages_dir.glob("*/*.page"))


def _parts(line: _Line) -> Iterable[_Part]:
    return (line.body, line.reading) if line.reading else (line.body,)


def _key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _dumped(line: _Line) -> bytes:
    parts = [[part.key, part.pack, part.start, part.size] for part in _parts(line)]
    return json.dumps([line.page_id, line.head, *parts]).encode() + b"\n"


def _lines(content: Content | None) -> Iterator[_Line]:
    for row in zstandard.decompress(content.data).splitlines() if content else ():
        page_id, head, body, *reading = json.loads(row)
        yield _Line(page_id, head, _Part(*body), _Part(*reading[0]) if reading else None)
