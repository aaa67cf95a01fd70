"""Measures the lexical index at 100,000 passages and writes bench/results/lexical.json.

    python bench/lexical.py [--passages 100000]     needs: apt-get install python3-doc; about 3 minutes on one core

The passages are those of python3-doc, repeated with every tenth word exchanged. Queries: 1 to 12 words of the passages,
questions, and prefixes of symbols and headings. One thread.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.local import PYTHON_DOC  # noqa: E402
from raydex.chunk import cut  # noqa: E402
from raydex.config import ChunkConfig  # noqa: E402
from raydex.embed import load_tokenizer  # noqa: E402
from raydex.errors import ParseError  # noqa: E402
from raydex.lexical import LexicalIndex, Passage, open_lexical, write_lexical  # noqa: E402
from raydex.parse.page import parse_page  # noqa: E402
from raydex.query import parse_query  # noqa: E402
from raydex.records import Filters, Lexical, Source, new_page  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "lexical.json"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEPTH = 200
QUERIES = 2000


def passages_of(folder: Path) -> list[Passage]:
    source = Source(name="python", seeds=("http://docs.example/",))
    tokenizer, config = load_tokenizer(MODEL), ChunkConfig()
    found = []
    for path in sorted(folder.rglob("*.html")):
        url = f"http://docs.example/{path.relative_to(folder)}"
        try:
            document = parse_page(new_page(source, url, path.read_bytes(), "text/html"))
        except (ParseError, FileNotFoundError):  # navigation; links to another package
            continue
        for section in document.sections:
            for number, chunk in enumerate(cut(section, tokenizer, config)):
                found.append(
                    Passage(
                        text=chunk.text,
                        title=chunk.title,
                        headings=chunk.headings,
                        url=url,
                        source="python",
                        version="3.11",
                        language="en",
                        kind=section.kind,
                        symbol=section.symbol,
                        is_first=number == 0,
                    )
                )
    return found


def repeated(passages: Sequence[Passage], count: int) -> Iterator[Passage]:
    """Yield so many passages: the originals first, then copies in which every tenth word is another one."""
    chance = random.Random(0)
    words = [word for passage in passages[:: len(passages) // 1000] for word in passage.text.split()]
    for number in range(count):
        passage = passages[number % len(passages)]
        if copy := number // len(passages):
            text = " ".join(chance.choice(words) if chance.random() < 0.1 else word for word in passage.text.split(" "))
            symbol = f"{passage.symbol}_{copy}" if passage.symbol else ""
            url = passage.url.replace("docs.example/", f"docs.example/{copy}/")
            passage = replace(passage, text=text, symbol=symbol, url=url)
        yield passage


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
    passages = passages_of(PYTHON_DOC)
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        copies = list(repeated(passages, count))
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
