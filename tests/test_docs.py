"""What the documents say is what the code does: generated pages, the file map, the numbers of the README."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

from bench import ablation, lifecycle, outages, serve_large, swap
from bench.serve import doc_rows, readme_row
from raydex.config import CODE_VERSION

ROOT = Path(__file__).parents[1]


def _generator():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page",
    [
        *("docs/cli.md", "docs/settings.md", "docs/metrics.md"),
        *("deploy/prometheus/raydex.rules.yml", "deploy/grafana/raydex.json"),
    ],
)
def test_generated_page_is_up_to_date(page):
    assert (ROOT / page).read_text() == _generator().PAGES[page](), "run `make docs`"


def test_every_module_is_in_the_file_map():
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "raydex").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        known = f"`{name}`" in contributing or f"`{path.parent.relative_to(ROOT)}/`" in contributing
        assert known or path.stem == "__init__", f"{name} is missing in CONTRIBUTING.md"


def test_relative_links_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_numbers_of_the_readme_are_those_that_the_bench_wrote():
    result = json.loads((ROOT / "bench" / "results" / "python_docs.json").read_text())
    readme = (ROOT / "README.md").read_text()
    build, rebuild, load = result["build"], result["rebuild"], result["load"]
    for words in (
        f"{build['pages']} pages, {build['chunks']:,} chunks",
        f"{build['timings_s']['total'] / 60:.1f} min",
        f"{rebuild['timings_s']['total']:.0f} s, {rebuild['embedded_chunks']} chunks embedded",
        *(
            f"{figures['requests_per_s']:.0f} / {figures['p50_ms']:.0f} / {figures['p99_ms']:.0f}"
            for figures in load.values()
        ),
    ):
        assert words in readme, f"README.md should say {words!r} (bench/results/python_docs.json)"


def test_crawl_and_parser_numbers_of_the_readme_are_those_that_the_benches_wrote():
    crawl, corpus = (
        json.loads((ROOT / "bench" / "results" / name).read_text()) for name in ("crawl.json", "parse_corpus.json")
    )
    readme, worst = (ROOT / "README.md").read_text(), corpus["worst"]
    for words in (
        f"{crawl['ours']['pages_per_s']:.0f} pages/s, {crawl['ratio']:.1f} × ",
        f"× {crawl['memory']['ratio']:.2f} from 1,000 to 10,000 pages",
        f"{len(corpus['generators'])} generators",
        f"{worst['recall']['share']:.1%} of the words kept",
        f"{worst['boilerplate']['share']:.1%} boilerplate",
        f"{worst['anchors']['share']:.1%} of the anchors right",
    ):
        assert words in readme, f"README.md should say {words!r} (bench/results/)"


def test_embedding_and_build_numbers_of_the_readme_are_those_that_the_benches_wrote():
    embed, build = (
        json.loads((ROOT / "bench" / "results" / name).read_text()) for name in ("embed.json", "build.json")
    )
    readme = (ROOT / "README.md").read_text()
    ours, theirs = (embed["systems"][name] for name in ("raydex", "sentence-transformers encode()"))
    ndcg = embed["ndcg_at_10"]
    for words in (
        f"{embed['ratio']:.1f} × sentence-transformers' encode() per core-second",
        f"({ours['chunks_per_core_s']:.0f} against {theirs['chunks_per_core_s']:.0f} chunks)",
        f"{embed['share_of_bf16_peak']:.0%} of the processor's bf16 peak",
        f"overlap@10 {embed['overlap_at_10']:.3f}",
        f"nDCG@10 {ndcg['raydex']:.3f} against {ndcg['sentence-transformers encode()']:.3f}",
        f"one query {ours['query_p50_ms']:.1f} ms",
        f"{build['ratio']:.1f} × the LangChain + FAISS + Ray recipe on the same {build['ours']['pages']} pages",
        f"with {build['memory_ratio']:.2f} × its memory",
    ):
        assert words in readme, f"README.md should say {words!r} (bench/results/)"


@pytest.mark.parametrize(
    ("bench", "page"),
    [(serve_large, "serving"), (outages, "outages"), (swap, "swap"), (lifecycle, "lifecycle")],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_numbers_of_the_page_are_those_that_the_bench_wrote(bench, page):
    name = bench.__name__.partition(".")[2]
    result = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())
    text = one_line(ROOT / "docs" / f"{page}.md")
    for words in bench.doc_rows(result):
        assert words in text, f"docs/{page}.md should say {words!r} (bench/results/{name}.json)"


def one_line(page: Path) -> str:
    """Return a page as one line: sentences go on in the next."""
    return " ".join(page.read_text().split("\n"))


SERVED = ROOT / "bench" / "results" / "serve.json"


@pytest.mark.skipif(not SERVED.exists(), reason="bench/serve.py has not been run yet")
def test_numbers_of_the_service_are_those_that_the_bench_wrote():
    result = json.loads(SERVED.read_text())
    assert readme_row(result) in (ROOT / "README.md").read_text(), f"README.md should say {readme_row(result)}"
    page = (ROOT / "docs" / "serving.md").read_text()
    for row in doc_rows(result):
        assert row in page, f"docs/serving.md should say {row!r} (bench/results/serve.json)"


def test_retrieval_numbers_of_the_readme_are_those_that_the_bench_wrote():
    sets = json.loads((ROOT / "bench" / "results" / "retrieval.json").read_text())["sets"]
    means = sets["python-docs"]["figures"]["all"]
    shown = ("page-hit@1", "pages-hit@5", "section-hit@5", "page-nDCG@10")
    words = ", ".join(f"{name} {means[name]['mean']:.2f}" for name in shown).replace("page-nDCG", "nDCG")
    assert words in (ROOT / "README.md").read_text(), f"README.md should say {words!r} (bench/results/retrieval.json)"


def test_numbers_of_the_retrieval_page_are_those_that_the_bench_wrote():
    sites = json.loads((ROOT / "bench" / "results" / "ablation.json").read_text())["sites"]
    page = (ROOT / "docs" / "retrieval.md").read_text()
    for row in ablation.doc_rows(sites):
        assert row in page, f"docs/retrieval.md should say {row!r} (bench/results/ablation.json)"


def test_numbers_of_a_search_in_process_are_those_that_the_bench_wrote():
    found = json.loads((ROOT / "bench" / "results" / "search.json").read_text())
    hybrid = found["hybrid"]
    readme, page = (ROOT / "README.md").read_text(), (ROOT / "docs" / "retrieval.md").read_text()
    size = f"{found['bytes_per_chunk']['all']:,.0f} bytes a chunk"
    words = f"p50 {hybrid['p50_ms']:.1f} ms, p99 {hybrid['p99_ms']:.1f} ms; {size}"
    assert words in readme, f"README.md should say {words!r} (bench/results/search.json)"
    for row, key in (("hybrid", "hybrid"), ("by meaning alone", "dense"), ("by words alone", "lexical")):
        words = f"| {row} | {found[key]['p50_ms']:.1f} / {found[key]['p99_ms']:.1f} |"
        assert words in page, f"docs/retrieval.md should say {words!r} (bench/results/search.json)"


def test_symbol_numbers_of_the_readme_are_those_that_the_bench_wrote():
    found = json.loads((ROOT / "bench" / "results" / "symbols.json").read_text())
    readme = (ROOT / "README.md").read_text()
    for site in ("inventory", "manual"):
        words = f"{100 * found[site]['rank1']:.1f} % of {found[site]['names']}"
        assert words in readme, f"README.md should say {words!r} (bench/results/symbols.json)"


def test_numbers_of_the_evaluation_page_are_those_that_the_bench_wrote():
    sets = json.loads((ROOT / "bench" / "results" / "retrieval.json").read_text())["sets"]
    pinned = tomllib.loads((ROOT / "bench" / "expected.toml").read_text())
    page = (ROOT / "docs" / "evaluate.md").read_text()
    for name, found in sets.items():
        means = [f"{found['figures']['all'][metric]['mean']:.3f}" for metric in pinned[name]["means"]]
        row = f"| {name} ({found['queries']} queries, {found['chunks']:,} chunks) | {' | '.join(means)} |"
        assert row in page, f"docs/evaluate.md should say {row!r} (bench/results/retrieval.json)"


def test_numbers_of_the_operations_page_are_those_that_the_bench_wrote():
    scale, lexical, served, crawl = (
        json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())
        for name in ("scale", "lexical", "serve_large", "crawl")
    )
    largest, smaller = scale["sizes"]["2000000"], scale["sizes"]["50000"]
    page = (ROOT / "docs" / "operations.md").read_text()
    for words in (
        f"× {scale['ratio']:.2f}** (wall), × {scale['cpu_ratio']:.2f} (processor time)",
        f"{largest['cpu_us_per_chunk']:.0f} µs of one core",
        f"{largest['snapshot_bytes_per_chunk']:,} B (",
        f"{largest['peak_disk_bytes_per_chunk']:,} B: unit files",
        f"{largest['largest_task_mb']:.0f} MB at 2 million chunks, {smaller['largest_task_mb']:.0f} MB at 50 thousand",
        f"{largest['driver_peak_mb']:.0f} MB at 2 million chunks, {largest['driver_growth_mb']:.0f} MB more than",
        f"words | {lexical['index_seconds'] * 1e6 / lexical['passages']:.0f} µs of one core and "
        f"{lexical['bytes_per_passage']:.0f} B on disk",
        f"{lexical['peak_mb_beside_the_passages'] / 1000:.2f} GB beside",
        f"{served['served']['replica_anon_mib'][0] * 2**20 / served['chunks'] / 1000:.1f} kB: texts, headings",
        f"× {crawl['memory']['ratio']:.2f} in memory from 1,000 to 10,000 pages",
        f"at {crawl['ours']['pages_per_s']:.0f} pages/s and two cores",
    ):
        assert words in page, f"docs/operations.md should say {words!r} (bench/results/)"


def test_one_version_everywhere():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == CODE_VERSION


def test_every_requirement_is_pinned_and_in_the_constraints():
    constraints = {line.lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                pinned = re.sub(r"\[.*?\]", "", line).lower()
                assert pinned in constraints, f"{name}: {line}"
