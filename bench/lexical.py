"""Measures the lexical index at 100,000 passages and writes bench/results/lexical.json.

    python bench/lexical.py [--passages 100000]     needs: apt-get install python3-doc; about 3 minutes on one core

The passages are those of python3-doc, repeated with every tenth word exchanged (bench/grown.py). Queries: 1 to 12 words
of the passages, questions, and prefixes of symbols and headings. One thread.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.grown import python_corpus, repeated  # noqa: E402
from raydex.embed import load_tokenizer  # noqa: E402
from raydex.lexical import LexicalIndex, Passage, open_lexical, write_lexical  # noqa: E402
from raydex.query import parse_query  # noqa: E402
from raydex.records import Chunk, Filters, Lexical, Section  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "lexical.json"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEPTH = 200
QUERIES = 2000


def passages_of(sections: Sequence[Section], chunks: Iterable[Chunk]) -> Iterator[Passage]:
    """Yield what the lexical index sees of chunks; those of a section follow each other."""
    of, last = {section.section_id: section for section in sections}, ""
    for chunk in chunks:
        section = of[chunk.section_id]
        yield Passage(
            text=chunk.text,
            title=chunk.title,
            headings=chunk.headings,
            url=chunk.url.partition("#")[0],
            source="python",
            version="3.11",
            language="en",
            kind=section.kind,
            symbol=section.symbol,
            is_first=chunk.section_id != last,
        )
        last = chunk.section_id


def queries_of(passages: Sequence[Passage]) -> dict[str, list[str]]:
    chance = random.Random(1)
    runs: list[str] = []
    while len(runs) < QUERIES:
        words = chance.choice(passages).text.split()
        length = chance.randint(1, 12)
        if len(words) > length:
            first = chance.randrange(len(words) - length)
            runs.append(" ".join(words[first : first + length]).replace('"', ""))
    asked = [f"How do I use {passage.headings[-1]} in the {passage.title}?" for passage in chance.sample(passages, 500)]
    symbols = [passage.symbol for passage in passages if passage.symbol]
    typos = [" ".join(_mistyped(word, chance) for word in query.split()[:3]) for query in runs[:500]]
    return {"words": runs, "questions": asked, "symbols": chance.sample(symbols, 500), "typos": typos}


def _mistyped(word: str, chance: random.Random) -> str:
    place = chance.randrange(len(word))
    return word[:place] + chance.choice("aeiou") + word[place + 1 :] if len(word) > 5 else word


def prefixes_of(passages: Sequence[Passage]) -> list[str]:
    chance = random.Random(2)
    names = [passage.symbol or passage.headings[-1] for passage in chance.sample(passages, 500)]
    return [name[: chance.randint(1, 12)] for name in names] + [_mistyped(name[:10], chance) for name in names]


def timed(act: Callable[[str], Any], texts: Sequence[str]) -> dict[str, float]:
    """Return p50 and p99 in ms, of the best of three times for each text: the machine has other things to do."""
    taken = []
    for text in texts:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            act(text)
            times.append((time.perf_counter() - started) * 1e3)
        taken.append(min(times))
    cuts = statistics.quantiles(taken, n=100)
    return {"p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3)}


def searches(index: LexicalIndex, filters: Filters | None = None) -> Callable[[str], Any]:
    return lambda text: index.search(parse_query(text, index.is_name), DEPTH, filters)


def parts_of(lexical: Lexical) -> dict[str, float]:
    """Return bytes a passage, by the part of the index."""
    parts: Counter[str] = Counter()
    for name, stored in lexical.objects.items():
        folder, _, file = name.partition("/")
        parts[f"{folder} {file.rpartition('.')[2]}"] += stored.bytes
    return {part: round(size / lexical.documents, 1) for part, size in sorted(parts.items())}


def measure(count: int) -> dict[str, Any]:
    sections, chunks = python_corpus(load_tokenizer(MODEL))
    passages = list(passages_of(sections, chunks))
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        copies = [passage for part in repeated(sections, chunks, count) for passage in passages_of(*part)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        lexical = write_lexical(copies, Path(work))
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        index = open_lexical(lexical, Path(work))
        opened = time.perf_counter() - started
        queries = queries_of(passages)
        return {
            "passages": count,
            "index_seconds": round(seconds, 1),
            "peak_mb_beside_the_passages": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
            "open_ms": round(opened * 1e3, 1),
            "bytes_per_passage": round(sum(stored.bytes for stored in lexical.objects.values()) / count, 1),
            "bytes_per_passage_by_part": parts_of(lexical),
            "search": {kind: timed(searches(index), texts) for kind, texts in queries.items()},
            "filtered": timed(searches(index, Filters(paths=("/library",), kinds=("api",))), queries["words"][:500]),
            "phrases": timed(searches(index), [f'"{query}"' for query in queries["words"][:500]]),
            "suggest": timed(lambda text: index.suggest(text, 10), prefixes_of(passages)),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000, help="How many. [default: 100000]")
    result = measure(parser.parse_args().passages)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
