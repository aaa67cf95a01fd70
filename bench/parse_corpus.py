"""The parser on a small corpus of known truth, as the documentation generators render it.

    python bench/parse_corpus.py [--work DIR] [--only sphinx-furo,…] [--render | --score] [--faults]

Renders what is missing, then scores each site and writes bench/results/parse_corpus.json. Needs the programs that
bench/corpus/README.md lists; a generator that cannot run is named and left out. Targets: content recall ≥ 0.98,
boilerplate ≤ 0.02, anchors right ≥ 0.99, every code block whole. Exit 1 when a target is missed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.corpus.code_generators import CODE_GENERATORS
from bench.corpus.generator import Generator
from bench.corpus.other_generators import OTHER_GENERATORS
from bench.corpus.pages import SourcePage, read_corpus
from bench.corpus.prose_generators import PROSE_GENERATORS
from bench.corpus.score import Score, score_site
from bench.corpus.workshop import CannotRender, Workshop

GENERATORS = (*PROSE_GENERATORS, *CODE_GENERATORS, *OTHER_GENERATORS)
RESULTS = Path(__file__).parent / "results" / "parse_corpus.json"
TARGETS = {"recall": 0.98, "boilerplate": 0.02, "anchors": 0.99, "code": 1.0}
FAULTS_SHOWN = 12


def main() -> None:
    arguments = _arguments()
    wanted = arguments.only.split(",") if arguments.only else [generator.name for generator in GENERATORS]
    generators = [generator for generator in GENERATORS if generator.name in wanted]
    if len(generators) != len(wanted):
        sys.exit(f"--only: unknown generator; known are {', '.join(generator.name for generator in GENERATORS)}")
    pages = read_corpus()
    skipped = {} if arguments.score else _render(generators, pages, arguments.work)
    if arguments.render:
        sys.exit(1 if skipped else 0)
    sites = {one: Workshop(arguments.work, one.name).site for one in generators}
    skipped |= {
        one.name: "not rendered" for one, site in sites.items() if not site.exists() and one.name not in skipped
    }
    scores = {one.name: score_site(one, pages, site) for one, site in sites.items() if one.name not in skipped}
    for name, score in scores.items():
        _show(name, score, faults=arguments.faults)
    result = _summary(scores, skipped)
    if not arguments.only:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    sys.exit(0 if result["targets_met"] else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Score the parser on one corpus through many generators.")
    work = Path(tempfile.gettempdir()) / "raydex-corpus"
    parser.add_argument(
        "--work", type=Path, default=work, help="folder for tools, inputs and sites [default: %(default)s]"
    )
    parser.add_argument("--only", default="", help="names of generators, parted by commas [default: all]")
    parser.add_argument("--faults", action="store_true", help="show what is missing, foreign or wrong")
    only_one = parser.add_mutually_exclusive_group()
    only_one.add_argument("--render", action="store_true", help="render, and do not score")
    only_one.add_argument("--score", action="store_true", help="score what has been rendered")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    return arguments


def _render(generators: list[Generator], pages: list[SourcePage], work: Path) -> dict[str, str]:
    """Render the sites that are missing; return the generators that could not run, with the reason."""
    skipped: dict[str, str] = {}
    for generator in generators:
        shop = Workshop(work, generator.name)
        if shop.is_rendered:
            continue
        shutil.rmtree(shop.site, ignore_errors=True)
        print(f"rendering {generator.name}", file=sys.stderr)
        shop.input.mkdir(parents=True, exist_ok=True)
        try:
            generator.render(pages, shop)
        except CannotRender as reason:
            shutil.rmtree(shop.site, ignore_errors=True)
            skipped[generator.name] = str(reason)
            print(f"{generator.name} left out: {reason}", file=sys.stderr)
    return skipped


def _show(name: str, score: Score, *, faults: bool) -> None:
    print(
        f"{name:<20} {score.pages:3} pages  recall {score.recall:.4f}  boilerplate {score.boilerplate:.4f}"
        f" (all text {score.boilerplate_of_pages:.4f})"
        f"  anchors {score.anchors:.4f} ({score.right_anchors} of {score.anchored}, {score.headings} in source)"
        f"  code {score.whole_blocks}/{score.code_blocks}, language {score.right_languages}"
        f"  rows {score.whole_rows}/{score.table_rows}  symbols {score.named_symbols}/{score.symbols}"
    )
    if faults:
        for kind, samples in score.faults.items():
            print(f"    {kind} ({len(samples)})")
            for sample in samples[:FAULTS_SHOWN]:
                print(f"        {sample}")


def _shares(score: Score) -> dict[str, Any]:
    return {
        "pages": score.pages,
        "recall": round(score.recall, 4),
        "boilerplate": round(score.boilerplate, 4),
        "boilerplate_of_all_text": round(score.boilerplate_of_pages, 4),
        "anchors": round(score.anchors, 4),
        "headings": score.anchored,
        "table_rows": f"{score.whole_rows}/{score.table_rows}",
        "symbols": f"{score.named_symbols}/{score.symbols}",
        "code_whole": f"{score.whole_blocks}/{score.code_blocks}",
        "code_language": f"{score.right_languages}/{score.code_blocks}",
    }


def _summary(scores: dict[str, Score], skipped: dict[str, str]) -> dict[str, Any]:
    if not scores:
        return {"generators": {}, "skipped": skipped, "worst": {}, "targets_met": False}
    code = [(score.right_languages / score.code_blocks, name) for name, score in scores.items() if score.code_blocks]
    shares = {
        "recall": min((score.recall, name) for name, score in scores.items()),
        "boilerplate": max((score.boilerplate, name) for name, score in scores.items()),
        "anchors": min((score.anchors, name) for name, score in scores.items()),
        "code": min(code, default=(1.0, "")),
    }
    met = all(
        share <= TARGETS[what] if what == "boilerplate" else share >= TARGETS[what]
        for what, (share, _) in shares.items()
    )
    return {
        "generators": {name: _shares(score) for name, score in scores.items()},
        "skipped": skipped,
        "worst": {what: {"generator": name, "share": round(share, 4)} for what, (share, name) in shares.items()},
        "targets_met": met,
    }


if __name__ == "__main__":
    main()
