"""Write the lexical index of a snapshot.

    passages in the order of rows → a folder of tantivy's → objects/<sha256>

Passages come as a stream; what grows with them is on disk, but for the names to suggest (some 300 bytes each).
"""

import errno
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import tantivy

from raydex.filters import FIELDS, keys_of
from raydex.lexical.analysis import ANALYZER, MAX_TERM_CHARS, analyzer, plain_words
from raydex.lexical.schema import names_schema, passages_schema, symbol_keys
from raydex.records import Lexical, NameKind, StoredObject
from utils.files import write_by_checksum

TITLE_WEIGHT, HEADING_WEIGHT, SYMBOL_WEIGHT = 2, 2, 1
"""How often the terms of a passage's title, last heading and symbol are counted, so that they outweigh its text. A
symbol is mostly its heading as well."""

PADDING, PAD = 128, "."
"""Each passage is counted as so many terms longer, so that its length matters less: tantivy fixes BM25's b at 0.75,
which with n more terms acts as 0.75 × average / (average + n). The analysis never gives this term, so no text and no
query has it. It stands first, where its places take a bit each; at the end they would take a byte.
"""

HEAP_BYTES = 256 * 2**20
"""What tantivy may hold before it begins another segment; 100,000 passages take less."""

PASSAGES, NAMES = "passages", "names"

MAX_NAME_CHARS = 80
RANK = 1 << 32
"""Suggestions are ordered by what they are, then by how often they are there: weight = rank × RANK + how often."""

KIND_OF_RANK: Mapping[int, NameKind] = {3: "symbol", 2: "title", 1: "heading"}
_RANKS = {kind: rank for rank, kind in KIND_OF_RANK.items()}

Names: TypeAlias = Mapping[str, tuple[int, int]]
"""Name → (weight, row of the first passage that is called so in its highest rank)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One row as the lexical index sees it. url: of the page. is_first: of its section; there its symbol is defined,
    and what else that is called.
    """

    text: str
    title: str
    headings: tuple[str, ...]
    url: str
    source: str = ""
    version: str = ""
    language: str = ""
    kind: str = "prose"
    symbol: str = ""
    aliases: tuple[str, ...] = ()
    is_first: bool = True


def write_lexical(passages: Iterable[Passage], objects_dir: Path, scratch: Path | None = None) -> Lexical:
    """Write the index of all passages of a snapshot. scratch: where tantivy works; by default with temporary files."""
    with tempfile.TemporaryDirectory(prefix="raydex-lexical-", dir=scratch) as work:
        folder = Path(work)
        gathered = _Gathered()
        _write(folder / PASSAGES, passages_schema(), _documents(passages, gathered))
        spellings = _spellings(folder / PASSAGES)
        _write(folder / NAMES, names_schema(), _name_documents(gathered.names, spellings))
        objects = {
            f"{part}/{path.name}": _store(path, objects_dir)
            for part in (PASSAGES, NAMES)
            for path in _live_files(folder / part)
        }
    return Lexical(
        documents=gathered.documents,
        analyzer=ANALYZER,
        languages=tuple(language for language, _ in gathered.languages.most_common()),
        objects=objects,
    )


class _Gathered:
    """What is learnt of the passages while they pass."""

    def __init__(self) -> None:
        self.documents = 0
        self.languages: Counter[str] = Counter()
        self.names: dict[str, tuple[int, int]] = {}

    def add(self, passage: Passage) -> None:
        row, self.documents = self.documents, self.documents + 1
        self.languages[passage.language] += 1
        if passage.is_first:
            heading = passage.headings[-1] if passage.headings else ""
            self._name(heading, "heading", row)
            self._name(passage.title, "title", row)
            for name in dict.fromkeys((passage.symbol, *passage.aliases)):
                self._name(name, "symbol", row)

    def _name(self, name: str, kind: NameKind, row: int) -> None:
        if 1 < len(name) <= MAX_NAME_CHARS:
            least, (weight, known) = _RANKS[kind] * RANK, self.names.get(name, (0, row))
            self.names[name] = (weight + 1, known) if weight > least else (least + 1, row)


def _write(folder: Path, schema: tantivy.Schema, documents: Iterable[tantivy.Document]) -> None:
    """One thread: several would each write documents of their own segments, in no order."""
    folder.mkdir()
    with _system_errors():
        writer = tantivy.Index(schema, str(folder)).writer(HEAP_BYTES, num_threads=1)
        for document in documents:
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()


@contextmanager
def _system_errors() -> Iterator[None]:
    """Raise as OSError what tantivy says of a full disk, in words."""
    try:
        yield
    except ValueError as error:
        for code in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from error
        raise


def _documents(passages: Iterable[Passage], gathered: _Gathered) -> Iterator[tantivy.Document]:
    for row, passage in enumerate(passages):
        gathered.add(passage)
        document = tantivy.Document()
        document.add_text("text", " ".join([PAD] * PADDING))
        for line in _lines(passage):
            document.add_text("text", line)
        if passage.is_first:
            names = filter(None, (passage.symbol, *passage.aliases))
            for key in dict.fromkeys(key for name in names for key in symbol_keys(name)):
                document.add_text("symbol", key)
        values = (passage.source, passage.version, passage.language, passage.kind, passage.url)
        for field, value in zip(FIELDS, values, strict=True):
            for key in keys_of(field, value):
                document.add_text(field, key)
        document.add_unsigned("row", row)
        yield document


def _lines(passage: Passage) -> Iterator[str]:
    """Yield what is indexed as text, a line for each run of words that phrases are found in."""
    of = analyzer(passage.language)
    headings = [heading for heading in passage.headings if heading != passage.title]
    texts = [passage.title, *headings, passage.symbol, passage.text]
    weights = [TITLE_WEIGHT, *[1] * len(headings[:-1]), *[HEADING_WEIGHT] * len(headings[-1:]), SYMBOL_WEIGHT, 1]
    for text, weight in zip(texts, weights, strict=True):
        for line in filter(None, of.lines(text)):
            yield from [line] * weight


def _spellings(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield (term, number of passages) of all terms that are words."""
    searcher = tantivy.Index.open(str(folder)).searcher()
    for term, passages in searcher.terms_with_prefix("text", ""):
        if 3 <= len(term) <= MAX_TERM_CHARS // 2 and term.isalpha():
            yield term, passages


def _name_documents(names: Names, spellings: Iterator[tuple[str, int]]) -> Iterator[tantivy.Document]:
    for name, (weight, row) in names.items():
        document = tantivy.Document()
        document.add_text("name", name)
        document.add_text("start", name.lower())
        document.add_text("words", " ".join(plain_words(name)))
        document.add_unsigned("weight", weight)
        document.add_unsigned("row", row)
        yield document
    for term, passages in spellings:
        document = tantivy.Document()
        document.add_text("spelling", term)
        document.add_unsigned("weight", passages)
        yield document


def _live_files(folder: Path) -> Iterator[Path]:
    """Yield the files of the segments that tantivy's meta.json names, and itself."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    segments = {segment["segment_id"].replace("-", "") for segment in meta["segments"]}
    yield from (path for path in sorted(folder.iterdir()) if path.name == "meta.json" or path.stem in segments)


def _store(path: Path, objects_dir: Path) -> StoredObject:
    with path.open("rb") as stream, write_by_checksum(objects_dir) as out:
        shutil.copyfileobj(stream, out, 2**20)
    return StoredObject(sha256=out.sha256, bytes=out.size)
