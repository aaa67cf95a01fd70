"""Find near-duplicate pages and sections, and choose the one to keep of each group.

    text → Sketch      bottom-k MinHash of its 5-word shingles, 512 bytes
    [Item, …] → [Group, …]      one kept and its duplicates; pure, the same for any order of the items

    group([Item(key="a", url=url, words=900, text_sha=sha, sketch=sketch(text)), …], least=0.9)

Every dropped item is similar to the kept one itself, never only to another dropped one: unlike texts do not chain up.
Each looks for its kept one among those that share one of its rarest hashes. When two sketches are similar enough, so
few of their hashes differ that the rarest ones cannot all be among those: candidates miss nothing, and what a template
puts on every page brings up no candidates.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sketch = npt.NDArray[np.uint64]
"""Shape (SKETCH_SIZE,), or fewer for a text with fewer shingles: the smallest distinct hashes, ascending."""

SKETCH_SIZE = 64
"""Hashes of a sketch: a similarity of 0.9 is estimated with a standard error of 0.04."""

LEAST_WORDS_OF_PAGE = 40
"""Words from which a page may be a near-duplicate; a shorter one only when it is identical."""

LEAST_WORDS_OF_SECTION = 40
"""Words from which a section may be a duplicate at all: shorter ones are API phrases that stand on many pages."""

MAX_CANDIDATES = 32
"""Most kept items looked at for one hash: bounds the work where a hash is everywhere."""

WORDS_OF_SHINGLE = 5
MAX_KNOWN_WORDS = 200_000
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # kana and Chinese characters: written without spaces
WORD = re.compile(rf"[^\W{IDEOGRAPHS}]+|[{IDEOGRAPHS}]")

PRINT_VIEW = re.compile(r"(?:^|[^a-z0-9])print(?:able|er|er-?friendly|-?view|-?version)?(?:$|[^a-z0-9])", re.IGNORECASE)
RELEASED = frozenset({"stable", "latest", "current", "release"})
UNRELEASED = re.compile(
    r"(?<![a-z])(?:dev|devel|development|main|master|trunk|head|next|nightly|edge|unstable|alpha|beta|preview)(?![a-z])"
    r"|\d(?:a|b|rc)\d"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A page or a section. key: unique. text_sha: equal means the same text.

    version and canonical (a URL): as the page states them, else empty. name: the symbol of a section, else its heading;
    the first heading of a page. page: of a section only, the key of the page it stands on.
    """

    key: str
    url: str
    words: int
    text_sha: str
    sketch: Sketch
    version: str = ""
    canonical: str = ""
    page: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Keys of one kept item and of those dropped for it, in order of preference.

    similarity: of the dropped one least like the kept one. kind: `canonical` when one of the dropped names the kept
    one as canonical, else `identical` when all texts are the same, else `near`.
    """

    kept: str
    dropped: tuple[str, ...]
    similarity: float
    kind: str


class _WordHashes(dict[str, int]):
    """Word → CRC-32, which unlike hash() is the same on every machine."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_KNOWN_WORDS:
            self.clear()
        value = self[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        return value


_word_hashes = _WordHashes()


def sketch(text: str, size: int = SKETCH_SIZE) -> Sketch:
    """Return the sketch of a text: words in lower case, white space and punctuation ignored.

    A Chinese or Japanese character is a word. A text of fewer words than a shingle is one shingle.
    """
    words = np.fromiter(map(_word_hashes.__getitem__, WORD.findall(text.lower())), np.uint64)
    if not len(words):
        return words
    width = min(WORDS_OF_SHINGLE, len(words))
    shingles = np.zeros(len(words) - width + 1, np.uint64)
    for offset in range(width):
        shingles = shingles * np.uint64(0x9E3779B97F4A7C15) + words[offset : offset + len(shingles)]
    return _smallest(_mixed(shingles), size)


def _mixed(values: Sketch) -> Sketch:
    """Return splitmix64 of each value: every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _smallest(values: Sketch, size: int) -> Sketch:
    """Return the smallest distinct values, ascending; sorts few of them unless most are repeated."""
    if len(values) > 2 * size:
        few = np.unique(np.partition(values, 2 * size)[: 2 * size])
        if len(few) >= size:
            return few[:size].copy()
    return np.unique(values)[:size].copy()


def similarity(a: Sketch, b: Sketch, size: int = SKETCH_SIZE) -> float:
    """Return the Jaccard similarity of two texts' shingles, estimated from sketches of this size; 0 without any.

    It is exact for texts with fewer shingles than the size.
    """
    if not len(a) or not len(b):
        return 0.0
    full = [one[-1] for one in (a, b) if len(one) >= size]
    if full:  # beyond the last hash of a full sketch, that text is not known
        limit = min(full)
        a, b = a[: np.searchsorted(a, limit, "right")], b[: np.searchsorted(b, limit, "right")]
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def group(items: Iterable[Item], *, least: float) -> list[Group]:
    """Return the groups of duplicates among pages, or among sections, ordered by the key of the kept one.

    least: similarity from which two texts are duplicates; 1: identical texts only, 0: no groups. Of a group is kept
    what others name as canonical, else no print view, else the newest version (stable or latest, then without a
    version, which is where sites keep the current one, then the highest number, then development versions), else the
    shortest URL, else the first in the alphabet. An item is dropped only for one of the same name, unless its page says
    that the other one is canonical: math.isclose and cmath.isclose are described in the same words, and so are the
    pages of many iterators, and who looks for one does not want the other. A section: only for one on another page.
    """
    ranked = _by_preference(list(items)) if least else []
    kept = _Kept(ranked, least)
    dropped: dict[int, list[tuple[int, float]]] = {}
    for rank in range(len(ranked)):
        if (best := kept.most_similar(rank)) is None:
            kept.add(rank)
        else:
            dropped.setdefault(best[0], []).append((rank, best[1]))
    return sorted((_group_of(ranked, *found) for found in dropped.items()), key=lambda found: found.kept)


def _group_of(ranked: Sequence[Item], kept: int, dropped: list[tuple[int, float]]) -> Group:
    items = [ranked[rank] for rank, _ in dropped]
    kind = "identical" if all(item.text_sha == ranked[kept].text_sha for item in items) else "near"
    return Group(
        kept=ranked[kept].key,
        dropped=tuple(item.key for item in items),
        similarity=min(similar for _, similar in dropped),
        kind="canonical" if any(item.canonical == ranked[kept].url != item.url for item in items) else kind,
    )


def _by_preference(items: list[Item]) -> list[Item]:
    named = {item.canonical for item in items if item.canonical != item.url}

    def preference(item: Item) -> tuple[object, ...]:
        is_print_view = PRINT_VIEW.search(item.url) is not None
        return (item.url not in named, is_print_view, _age(item.version), len(item.url), item.url, item.key)

    return sorted(items, key=preference)


def _age(version: str) -> tuple[int, tuple[int, ...]]:
    """Return what is smaller for a newer version."""
    version = version.lower()
    numbers = tuple(-int(digits) for digits in re.findall(r"[0-9]{1,9}", version))
    if version in RELEASED:
        return 0, ()
    if UNRELEASED.search(version):
        return 3, numbers
    return (2 if numbers else 1), numbers


class _Kept:
    """The kept items, found by their rarest hashes and the hash of their text.

    An item has few entries (hashes it is looked up by); the items with the same hash are a run of entries, and each
    run has room for the ranks of its kept items. All of it takes about 0.6 kB an item at least=0.9.
    """

    def __init__(self, ranked: Sequence[Item], least: float) -> None:
        self._ranked, self._least = ranked, least
        lengths = [self._entries(item) for item in ranked]
        self._first = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        hashes = np.empty(self._first[-1], np.uint64)
        counts = _Counts(ranked)
        for rank, item in enumerate(ranked):
            if lengths[rank]:
                text = hashlib.blake2b(item.text_sha.encode(), digest_size=8).digest()
                hashes[self._first[rank]] = int.from_bytes(text)
                hashes[self._first[rank] + 1 : self._first[rank + 1]] = counts.rarest(item.sketch, lengths[rank] - 1)
        _, self._runs, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
        self._start = np.concatenate([[0], np.cumsum(sizes)])
        self._filled = np.zeros(len(sizes), np.int32)
        self._kept = np.zeros(len(hashes), np.int32)

    def add(self, rank: int) -> None:
        for run in self._runs_of(rank):
            if self._filled[run] < MAX_CANDIDATES:
                self._kept[self._start[run] + self._filled[run]] = rank
                self._filled[run] += 1

    def most_similar(self, rank: int) -> tuple[int, float] | None:
        """Return the kept item to drop this one for and their similarity: the one it names, else the most similar."""
        item = self._ranked[rank]
        found = []
        for other in self._candidates(rank):
            similar = self._similarity(item, self._ranked[other])
            if similar >= self._least:
                found.append((self._ranked[other].url == item.canonical, similar, -other))
        if not found:
            return None
        _, similar, negative = max(found)
        return -negative, similar

    def _candidates(self, rank: int) -> set[int]:
        return {
            int(other)
            for run in self._runs_of(rank)
            for other in self._kept[self._start[run] : self._start[run] + self._filled[run]]
        }

    def _runs_of(self, rank: int) -> npt.NDArray[np.int64]:
        return self._runs[self._first[rank] : self._first[rank + 1]]

    def _similarity(self, a: Item, b: Item) -> float:
        """Return the similarity as far as it counts: not for texts too short, on the same page, or of other names."""
        if a.page and a.page == b.page:
            return 0.0
        if a.name.casefold() != b.name.casefold() and b.url != a.canonical:
            return 0.0
        if a.text_sha == b.text_sha:
            return 1.0
        return similarity(a.sketch, b.sketch) if self._entries(a) > 1 < self._entries(b) else 0.0

    def _entries(self, item: Item) -> int:
        """Return by how many hashes to look the item up.

        Of n hashes at most (1 - least) · n are not shared with a text that is similar enough; one more, and one is.
        """
        if item.words < (LEAST_WORDS_OF_SECTION if item.page else LEAST_WORDS_OF_PAGE):
            return 0 if item.page else 1
        if self._least >= 1 or not len(item.sketch):
            return 1
        return 2 + int((1 - self._least) * len(item.sketch) + 1e-9)


class _Counts:
    """About how many items have a hash: counted by its last bits, in 64 bytes an item."""

    def __init__(self, items: Sequence[Item]) -> None:
        cells = 1 << max(10, (8 * len(items)).bit_length())
        self._mask = np.uint64(cells - 1)
        self._counts = np.zeros(cells, np.uint32)
        for item in items:
            self._counts[item.sketch & self._mask] += 1

    def rarest(self, hashes: Sketch, most: int) -> Sketch:
        return hashes[np.lexsort((hashes, self._counts[hashes & self._mask]))[:most]]
