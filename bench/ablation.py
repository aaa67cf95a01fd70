"""Measures what each choice of the ranking is worth: baselines, weights, fields and lengths, chunks, one at a time.

    python bench/query_sets.py --root / --sites SITES --sets SETS
    python bench/ablation.py --sites SITES --sets SETS [--queries ../eval/python/queries.jsonl] --data-dir FOLDER

Each site of SITES that has SETS/<site>.jsonl and, with --queries, Debian's python3-doc (bench/retrieval.py) is crawled
and built by build_index.py into FOLDER, unless it is there. Then each variant is asked all queries in process, with the
code that serves them: lexical indexes are written anew with other settings, weights are replaced, chunks embedded again
without their headings. Figures go to bench/results/ablation.json, and as tables of Markdown to stdout. With all of
docs/retrieval.md's sites it takes half an hour on 2 cores, most of it for embedding (group `chunks`).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.baselines import Run, Words, reciprocal_rank_fusion, windows
from bench.local import ROOT, served
from bench.retrieval import MODEL, Judged, last_line
from raydex.build.lexicon import passages_of
from raydex.embed import Embedder, load_embedder
from raydex.evaluate import compare, load_golden, metrics_of, report
from raydex.evaluate.report import DECIDING, Values
from raydex.lexical import open_lexical, write_lexical, writing
from raydex.query import QueryKind
from raydex.records import Query, SearchMode, Vectors
from raydex.search import Searcher, ranking, searcher
from raydex.shard import open_shard, read_rows, write_shard
from raydex.snapshot import Snapshot, open_snapshot

RESULTS = ROOT / "bench" / "results" / "ablation.json"
PYTHON = "python-docs"
SHOWN = ("page-hit@1", "pages-hit@5", "section-hit@5", "page-nDCG@10")
DEPTH = 50
CHUNKED = (PYTHON, "sphinx")  # whose chunks are embedded again
BY_WORDS = ", mode=lexical"
EVERY = 4  # of the queries of other sites, one is asked to judge confidence

LEXICAL: dict[str, dict[str, int]] = {
    "title, heading, symbol not counted": {"TITLE_WEIGHT": 0, "HEADING_WEIGHT": 0, "SYMBOL_WEIGHT": 0},
    "… once": {"TITLE_WEIGHT": 1, "HEADING_WEIGHT": 1, "SYMBOL_WEIGHT": 1},
    "… title once": {"TITLE_WEIGHT": 1},
    "… heading three times": {"HEADING_WEIGHT": 3},
    "… symbol twice": {"SYMBOL_WEIGHT": 2},
    "… symbol not": {"SYMBOL_WEIGHT": 0},
    "no padding": {"PADDING": 0},
    "padding 64": {"PADDING": 64},
    "padding 256": {"PADDING": 256},
}
WEIGHTS: tuple[tuple[QueryKind, str, float], ...] = (
    ("question", "lexical", 0.1),
    ("question", "lexical", 0.5),
    ("question", "api", 0.0),
    ("question", "page", 0.0),
    ("question", "page_words", 0.05),
    ("keywords", "lexical", 0.6),
    ("keywords", "lexical", 2.0),
    ("keywords", "api", 0.0),
    ("keywords", "api", -0.2),
    ("keywords", "page", 0.0),
    ("keywords", "page_words", 0.0),
    ("keywords", "page_words", 0.1),
)


@dataclass(frozen=True)
class Site:
    """A site in a folder, and the queries on it. base: the address that its hits cite. data_dir: of its indexes."""

    name: str
    folder: Path
    base: str
    queries: Path
    data_dir: Path
    embedder: Embedder

    @cached_property
    def golden(self) -> Any:
        return load_golden(str(self.queries), "", base=self.base)

    @cached_property
    def vectors(self) -> Vectors:
        return self.embedder.embed_queries(list(self.golden.queries.values()))

    def asked(self) -> Iterator[tuple[str, str, Vectors]]:
        """Yield id, text and vector of each query."""
        return zip(self.golden.queries, self.golden.queries.values(), self.vectors, strict=True)

    def index_dir(self, tokens: int) -> Path:
        return self.data_dir / (f"{self.name}-{tokens}" if tokens else self.name)

    def snapshot(self, tokens: int = 0) -> Snapshot:
        """Return the live snapshot of its index, built first if there is none. tokens: of a chunk, 0: the default."""
        index_dir = self.index_dir(tokens)
        if not (index_dir / "CURRENT").exists():
            with served(self.folder) as url, tempfile.NamedTemporaryFile("w", suffix=".toml") as sources:
                source = {"name": self.name, "seeds": [f"{url}index.html"], "public_url": self.base}
                sources.write("[[source]]\n" + "".join(f"{key} = {json.dumps(of)}\n" for key, of in source.items()))
                sources.flush()
                flags = ["--index", index_dir.name, "--data-dir", str(self.data_dir), "--model", MODEL]
                flags += ["--max-tokens", str(tokens)] if tokens else []
                last_line("build_index.py", "--sources", sources.name, *flags)
        return open_snapshot(index_dir)

    def reworded(self, snapshot: Snapshot, tokens: int = 0) -> Snapshot:
        """Return it with a lexical index that is written now."""
        shards = [shard.shard for shard in snapshot.shards]
        with tempfile.TemporaryDirectory() as folder:
            lexical = write_lexical(passages_of(shards, self.index_dir(tokens) / "objects"), Path(folder))
            return replace(snapshot, lexical=open_lexical(lexical, Path(folder)))

    def without_headings(self, snapshot: Snapshot, tokens: int) -> Snapshot:
        """Return it with vectors of the bare text of each chunk."""
        shards = []
        with tempfile.TemporaryDirectory() as folder:
            for shard in snapshot.shards:
                chunks, _, sections, pages = read_rows(shard.shard, self.index_dir(tokens) / "objects")
                vectors = self.embedder.embed_passages(chunks["text"].to_pylist())
                written = write_shard(shard.shard.shard_id, chunks, vectors, sections, pages, Path(folder))
                shards.append(open_shard(written, Path(folder)))
        return replace(snapshot, shards=shards)

    def run(self, snapshot: Snapshot, mode: SearchMode = "hybrid", depth: int = DEPTH) -> Run:
        """Ask every query of the code that serves them."""
        asked = Searcher(self.name, snapshot)
        found = {}
        for query, text, vector in self.asked():
            hits = asked.find(Query(text=text, k=depth, mode=mode), vector).hits
            found[query] = [hit.chunk.url for hit in hits]
        return found

    def judge(self, run: Run) -> Values:
        return metrics_of(self.golden, run)


def baselines(site: Site, snapshot: Snapshot) -> Iterator[tuple[str, Run]]:
    """Yield the rankings of simpler searches, the sections being ours."""
    queries = site.golden.queries
    pages = {url for shard in snapshot.shards for url in shard.pages["url"].to_pylist()}
    yield "500 characters, BM25", Words(windows(site.folder, site.base, pages)).run(queries, DEPTH)
    columns = [shard.chunks for shard in snapshot.shards]
    texts = [
        (url, " ".join((*headings, text)))
        for chunks in columns
        for url, headings, text in zip(*(chunks[name].to_pylist() for name in ("url", "headings", "text")), strict=True)
    ]
    words = Words(texts).run(queries, ranking.DEPTH)
    dense = site.run(snapshot, "dense", ranking.DEPTH)
    yield "sections, dense", dense
    yield "sections, BM25", words
    yield "sections, RRF of both", reciprocal_rank_fusion([dense, words])


@contextmanager
def weighing(kinds: Sequence[QueryKind], name: str, value: float) -> Iterator[None]:
    changed = {kind: replace(ranking.WEIGHTS[kind], **{name: value}) for kind in kinds}
    with patch.object(ranking, "WEIGHTS", {**ranking.WEIGHTS, **changed}):
        yield


def systems(site: Site, snapshot: Snapshot) -> Iterator[tuple[str, Run]]:
    yield from baselines(site, snapshot)
    yield "our words alone (mode=lexical)", site.run(snapshot, "lexical")


def fusions(site: Site, snapshot: Snapshot) -> Iterator[tuple[str, Run]]:
    for kind, name, value in WEIGHTS:
        with weighing([kind], name, value):
            yield f"{kind}: {name} {value:g}", site.run(snapshot)
    with weighing(["symbol", "flag", "error_code"], "lexical", 0.5):
        yield "names: lexical 0.5", site.run(snapshot)
    with patch.object(searcher, "SYMBOL_BONUS", (0.0, 0.0, 0.0)):
        yield "no symbol bonus", site.run(snapshot)
    with patch.object(ranking, "UNSEEN_SHARE", 0.0):
        yield "unseen by words: 0", site.run(snapshot)


def wordings(site: Site, snapshot: Snapshot) -> Iterator[tuple[str, Run]]:
    for name, settings in LEXICAL.items():
        with ExitStack() as stack:
            for setting, value in settings.items():
                stack.enter_context(patch.object(writing, setting, value))
            changed = site.reworded(snapshot)
        yield name, site.run(changed)
        yield f"{name}, mode=lexical", site.run(changed, "lexical")


def chunkings(site: Site, _: Snapshot) -> Iterator[tuple[str, Run]]:
    for tokens in (0, 128):
        snapshot = site.reworded(site.snapshot(tokens), tokens)
        yield f"{tokens or 256} tokens, with headings", site.run(snapshot)
        yield f"{tokens or 256} tokens, bare text", site.run(site.without_headings(snapshot, tokens))


def measure(site: Site, groups: Sequence[str], sites: Sequence[Site]) -> dict[str, Any]:
    """Return group → variant → kind → figures, the product as it is first, and how it compares to the baselines."""
    snapshot = site.reworded(site.snapshot())
    ours = site.judge(site.run(snapshot))
    found: dict[str, Any] = {"queries": len(site.golden.queries)}
    for group in groups:
        rows = {"as it is": _means(site, ours)}
        for name, run in GROUPS[group](site, snapshot):
            values = site.judge(run)
            rows[name] = _means(site, values)
            print(site.name, group, name, *(f"{rows[name]['all'][metric]:.3f}" for metric in SHOWN), flush=True)
            if group == "systems":
                compared = compare(site.golden, ours, values).differences
                found.setdefault("against", {})[name] = {kind: asdict(of[DECIDING]) for kind, of in compared.items()}
        found[group] = rows
    if "systems" in groups and len(sites) > 1:
        found["confidence_auc"] = separation(site, snapshot, [other for other in sites if other is not site])
    return found


GROUPS: dict[str, Callable[[Site, Snapshot], Iterator[tuple[str, Run]]]] = {
    "systems": systems,
    "fusion": fusions,
    "lexical": wordings,
    "chunks": chunkings,
}


def _means(site: Site, values: Values) -> dict[str, dict[str, float]]:
    figures = report(site.golden, values).document()
    return {
        kind: {metric: round(of[metric]["mean"], 4) for metric in SHOWN if metric in of} for kind, of in figures.items()
    }


def separation(site: Site, snapshot: Snapshot, others: Sequence[Site]) -> float:
    """Return the area under the curve by which its confidence tells its own queries from those of other sites."""
    asked = Searcher(site.name, snapshot)

    def sure(of: Site) -> Vectors:
        queries = [*of.asked()][:: 1 if of is site else EVERY]
        return np.array([asked.find(Query(text=text, k=1), vector).confidence or 0.0 for _, text, vector in queries])

    own, other = sure(site)[:, np.newaxis], np.concatenate([sure(one) for one in others])
    return round(float(np.mean((own > other) + (own == other) / 2)), 4)


def tables(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of Markdown for each group: page-nDCG@10, a column a site."""
    for group in GROUPS:
        sites = {name: of[group] for name, of in results.items() if group in of}
        yield from ("", f"| {group} | {' | '.join(sites)} | mean |", f"|{'---|' * (len(sites) + 2)}")
        for variant in dict.fromkeys(name for of in sites.values() for name in of):
            means = [of[variant]["all"][DECIDING] if variant in of else np.nan for of in sites.values()]
            yield f"| {variant} | {' | '.join(f'{mean:.3f}' for mean in means)} | {np.nanmean(means):.3f} |"
    for site, of in results.items():
        yield from ("", f"{site}: area under the curve of confidence {of.get('confidence_auc', 0)}")
        yield from ("", f"| {site}: ours − theirs | kind | page-nDCG@10 | 95 % interval |", "|---|---|---|---|")
        for name, kinds in of.get("against", {}).items():
            for kind, by in kinds.items():
                yield f"| {name} | {kind} | {by['mean']:+.3f} | {by['low']:+.3f} to {by['high']:+.3f} |"


NAMES = {
    PYTHON: "Python",
    "sphinx": "Sphinx",
    "django": "Django",
    "git": "Git",
    "sqlalchemy": "SQLAlchemy",
    "postgresql": "PostgreSQL",
}
FUSED_BY_RANK = "sections, RRF of both"


def doc_rows(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rows of the tables in docs/retrieval.md."""
    for site, name in NAMES.items():
        systems = results[site]["systems"]
        for ranking_name, shown in (("as it is", "ours"), (FUSED_BY_RANK, FUSED_BY_RANK)):
            means = " | ".join(f"{systems[ranking_name]['all'][metric]:.3f}" for metric in SHOWN)
            yield f"| {name} ({results[site]['queries']}) | {shown} | {means} |"
    python = results[PYTHON]
    for kind in python["systems"]["as it is"]:
        if kind != "all":
            theirs = {name: python["systems"][name][kind][DECIDING] for name in python["against"]}
            best = max(theirs, key=lambda name: theirs[name])
            by = python["against"][best][kind]
            interval = f"{by['mean']:+.3f} ({by['low']:+.3f} to {by['high']:+.3f})"
            yield f"| {kind} ({by['count']}) | {best} | {theirs[best]:.3f} | {interval} |"
    for group in GROUPS:
        sites = [results[site][group] for site in NAMES if group in results[site]]
        for variant in (name for name in sites[0] if not name.endswith(BY_WORDS)):
            cells = [_cell(of, variant) for of in sites]
            yield f"| {variant} | {' | '.join(cells)} |"


def _cell(rows: Mapping[str, Any], variant: str) -> str:
    alone = rows.get(variant + BY_WORDS)
    fused = f"{rows[variant]['all'][DECIDING]:.3f}"
    return f"{fused} / {alone['all'][DECIDING]:.3f}" if alone else fused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=Path, required=True, help="Folder of sites (bench/query_sets.py).")
    parser.add_argument("--sets", type=Path, required=True, help="Folder of the queries on them.")
    parser.add_argument("--queries", type=Path, help="Judged queries on the Python documentation (.jsonl).")
    parser.add_argument("--data-dir", type=Path, required=True, help="Folder of the indexes.")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=[*GROUPS], help="What to vary. [default: all]")
    options = parser.parse_args()
    embedder, data_dir = load_embedder(MODEL), options.data_dir.resolve()
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        sites = []
        if options.queries:
            judged = Judged(name=PYTHON, queries=options.queries.resolve(), base="https://docs.python.org/3.11/")
            judged.write_site(Path(work))
            sites.append(Site(PYTHON, Path(work), judged.base, judged.queries, data_dir, embedder))
        for queries in sorted(options.sets.glob("*.jsonl")):
            folder, base = options.sites / queries.stem, f"https://{queries.stem}.example.org/"
            sites.append(Site(queries.stem, folder, base, queries, data_dir, embedder))
        results = json.loads(RESULTS.read_text(encoding="utf-8"))["sites"] if RESULTS.exists() else {}
        for site in sites:
            groups = [group for group in options.groups if group != "chunks" or site.name in CHUNKED]
            if groups:
                results[site.name] = results.get(site.name, {}) | measure(site, groups, sites)
            RESULTS.write_text(json.dumps({"sites": results, "model": MODEL}, indent=1) + "\n", "utf-8")
    print(*tables(results), *doc_rows(results), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
