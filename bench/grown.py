"""The corpus of the benches of search: the sections and chunks of python3-doc, and as many like them as are wanted.

python_corpus(tokenizer) → sections, chunks → repeated(sections, chunks, 100_000) → (sections, chunks) of each copy
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.local import PYTHON_DOC
from raydex.chunk import cut
from raydex.config import ChunkConfig
from raydex.embed import TextTokenizer
from raydex.errors import ParseError
from raydex.parse import parse_page
from raydex.records import Chunk, Section, Source, new_page, stable_id


def python_corpus(tokenizer: TextTokenizer) -> tuple[list[Section], list[Chunk]]:
    """Return the sections of python3-doc and its chunks, those of a section after each other."""
    source = Source(name="python", seeds=("http://docs.example/",))
    sections: list[Section] = []
    for path in sorted(PYTHON_DOC.rglob("*.html")):
        url = f"http://docs.example/{path.relative_to(PYTHON_DOC)}"
        try:
            sections += parse_page(new_page(source, url, path.read_bytes(), "text/html")).sections
        except (ParseError, FileNotFoundError):  # navigation; links to another package
            continue
    return sections, [chunk for section in sections for chunk in cut(section, tokenizer, ChunkConfig())]


def repeated(
    sections: Sequence[Section], chunks: Sequence[Chunk], count: int
) -> Iterator[tuple[list[Section], list[Chunk]]]:
    """Yield the corpus, then copies of it, until there are so many chunks.

    A copy has other URLs and symbols, and every tenth word of its texts is another one.
    """
    chance = random.Random(0)
    words = [word for chunk in chunks[:: len(chunks) // 1000] for word in chunk.text.split()]
    for copy in range(-(-count // len(chunks))):
        mine = chunks[: count - copy * len(chunks)]
        ids = {chunk.section_id for chunk in mine}
        of = [section for section in sections if section.section_id in ids]
        if copy:
            yield [_section(section, copy) for section in of], [_chunk(chunk, copy, words, chance) for chunk in mine]
        else:
            yield of, list(mine)


def _elsewhere(url: str, copy: int) -> str:
    return url.replace("docs.example/", f"docs.example/{copy}/")


def _section(section: Section, copy: int) -> Section:
    url = _elsewhere(section.url, copy)
    return replace(
        section,
        section_id=_elsewhere(section.section_id, copy),
        url=url,
        page_id=stable_id(url.partition("#")[0]),
        symbol=f"{section.symbol}_{copy}" if section.symbol else "",
    )


def _chunk(chunk: Chunk, copy: int, words: Sequence[str], chance: random.Random) -> Chunk:
    text = " ".join(chance.choice(words) if chance.random() < 0.1 else word for word in chunk.text.split(" "))
    url = _elsewhere(chunk.url, copy)
    return replace(
        chunk,
        chunk_id=stable_id(chunk.chunk_id, copy),
        section_id=_elsewhere(chunk.section_id, copy),
        page_id=stable_id(url.partition("#")[0]),
        url=url,
        text=text,
        char_end=chunk.char_start + len(text),
    )
