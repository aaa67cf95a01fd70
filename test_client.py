"""Ask a running service from the command line: a question, a smoke test, a load check, an evaluation, a report.

python test_client.py "how do I open a file" -k 3        hits for a person
python test_client.py                                    three sample questions, exit 0 when all pass
python test_client.py --load 400 --concurrency 8         requests/s and latency
python test_client.py --report                           what people look for and do not find (docs/analytics.md)
python test_client.py --evaluate queries.jsonl           how well judged queries are answered (docs/evaluate.md)
"""

import argparse
import itertools
import json
import math
import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raydex.client import RaydexClient, Result, SearchAnswer
from raydex.errors import ConfigError, ServiceError
from raydex.evaluate import Golden, compare, load_golden, metrics_of, read_run, report, write_run
from utils.logs import configure_logging

SAMPLE_QUESTIONS = (
    "how do I get started",
    "how do I read a file line by line",
    "what happens when a function raises an exception",
)
SUBJECTS = ("a file", "a list", "a date", "a thread", "a socket", "a module", "a class", "a string", "a test", "a loop")
VERBS = ("open", "create", "copy", "compare", "sort", "close", "print", "parse", "convert", "delete")
EXCERPT_CHARS = 240
SHOWN_K, EVALUATED_K, LEAST_EVALUATED_K = 5, 50, 10
"""Hits asked for: of a question, of each judged query, and the least that figures at 10 can be made of."""
LOADING, EVALUATING = 8, 4
"""Requests at a time: to load a service, and to evaluate it beside its other users."""
CHANGES_SHOWN, REPORT_DAYS = 10, 7

EXAMPLES = """examples:
  python test_client.py "how do I open a file" -k 3 --index docs
  python test_client.py --wait 60 --load 400 --concurrency 8
  python test_client.py --evaluate queries.jsonl --base https://docs.example.org/ --run new.run --compare old.run
  python test_client.py --evaluate queries.tsv --qrels golden.qrels --from new.run

exit codes:
  0  answered, and every check passed
  1  a check failed, a request failed, or the service cannot be reached
  2  wrong flags, or a file that cannot be used

With --evaluate the last line on stdout is one JSON object: queries, answered, failed, snapshot, figures, comparison.
"""
PASSED, FAILED, UNUSABLE = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """seconds: of each request that was answered, ascending."""

    elapsed_s: float
    seconds: list[float]
    errors: list[str]

    def figures(self) -> dict[str, float]:
        """Return what a load check is about, rounded to a tenth."""
        latency = {f"p{percent}_ms": round(self.percentile_ms(percent / 100), 1) for percent in (50, 95, 99)}
        rate = round(len(self.seconds) / self.elapsed_s, 1)
        return {"answered": len(self.seconds), "errors": len(self.errors), "requests_per_s": rate, **latency}

    def percentile_ms(self, share: float) -> float:
        """Return the smallest latency that at least this share of the answered requests did not exceed."""
        rank = max(0, math.ceil(share * len(self.seconds)) - 1)
        return 1000 * self.seconds[rank] if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of judged queries. run: query id → (URL#anchor, score), best first; failed: query id → what was wrong.

    snapshots: index → the snapshots that answered, more than one when another went live meanwhile.
    """

    run: dict[str, list[tuple[str, float]]]
    failed: dict[str, str]
    snapshots: dict[str, list[str]]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    configure_logging(level=options.log_level, kind=options.log_format)
    console = Console(highlight=False, soft_wrap=False)
    attempts = 1 if options.load else 4
    try:
        with RaydexClient(options.url, api_key=options.api_key, timeout_s=options.timeout, attempts=attempts) as client:
            if options.wait and not options.stored:
                client.wait_ready(options.wait)
            return _run(client, options, console)
    except ServiceError as error:
        print(f"test_client.py: {_plain(str(error))}", file=sys.stderr)
        return FAILED
    except ConfigError as error:
        print(f"test_client.py: {_plain(str(error))}", file=sys.stderr)
        return UNUSABLE


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argument_parser()
    options = parser.parse_args(arguments)
    options.api_key = options.api_key or os.environ.get("RAYDEX_API_KEY", "")
    options.k = options.k or (EVALUATED_K if options.evaluate else SHOWN_K)
    options.concurrency = options.concurrency or (EVALUATING if options.evaluate else LOADING)
    given = [flag for flag in ("qrels", "base", "run", "compare", "stored") if getattr(options, flag)]
    if given and not options.evaluate:
        parser.error("--qrels, --base, --run, --compare and --from belong to --evaluate")
    if options.evaluate and (options.question or options.load):
        parser.error("--evaluate asks the queries of its file: leave out the question and --load")
    if options.report and (options.question or options.load or options.evaluate):
        parser.error("--report asks no question: leave out the question, --load and --evaluate")
    if options.days and not options.report:
        parser.error("--days belongs to --report")
    if options.stored and options.run:
        parser.error("--from reads a run file, --run writes one: choose")
    if options.evaluate and options.k < LEAST_EVALUATED_K:
        parser.error(f"-k is {options.k}, figures at {LEAST_EVALUATED_K} need at least {LEAST_EVALUATED_K} hits")
    return options


def _run(client: RaydexClient, options: argparse.Namespace, console: Console) -> int:
    if options.evaluate:
        return _evaluate(client, options)
    if options.report:
        return _report(client, options, console)
    if options.load:
        return _check_load(client, options, console)
    if not options.question:
        return _smoke_test(client, options, console)
    if options.json:
        print(client.search_raw(options.question, **_wanted(options)).decode())
        return PASSED
    _show(client.search(options.question, **_wanted(options)), console)
    return PASSED


def _wanted(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is asked of the service beside the query; what the user left out is the service's to decide."""
    chosen = {"mode": options.mode, "group_by": options.group_by, "rerank": options.rerank}
    given = {name: value for name, value in chosen.items() if value is not None}
    return {"k": options.k, "index": options.index, **given}


def _smoke_test(client: RaydexClient, options: argparse.Namespace, console: Console) -> int:
    """Ask the sample questions, show the best hit of each and say what is wrong with the answers."""
    failed = 0
    for question in SAMPLE_QUESTIONS:
        answer = client.search(question, **_wanted(options))
        problems = problems_of(answer)
        failed += bool(problems)
        console.print(Text(f"{'FAIL' if problems else 'ok  '} {question}", style="red" if problems else "green"))
        for problem in problems:
            console.print(Text(f"     {problem}"))
        for result in answer.results[:1]:
            _show_result(result, console)
    console.print(Text(f"{len(SAMPLE_QUESTIONS) - failed} of {len(SAMPLE_QUESTIONS)} sample questions passed"))
    return FAILED if failed else PASSED


def problems_of(answer: SearchAnswer) -> list[str]:
    """Return what no right answer shows: no results, scores that rise, sources that are not URLs."""
    scores = [result.score for result in answer.results]
    problems = [] if answer.results else ["no results"]
    if scores != sorted(scores, reverse=True):
        problems.append(f"scores are not descending: {scores}")
    return problems + [
        f"the source of rank {result.rank} is not a URL: {_plain(result.source)}"
        for result in answer.results
        if not result.source.startswith(("http://", "https://"))
    ]


def _show(answer: SearchAnswer, console: Console) -> None:
    for result in answer.results:
        _show_result(result, console)
    if not answer.results:
        console.print(Text("no results"))
    if answer.message:
        console.print(Text(f"note: {_plain(answer.message)}", style="yellow"))
    spent = " · ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in answer.timings_s.items())
    console.print(Text(spent, style="dim"))


def _show_result(result: Result, console: Console) -> None:
    """Print one hit as plain text: what pages say is neither markup nor terminal control here."""
    path = " › ".join(dict.fromkeys((result.title, *result.headings)))
    console.print(Text(f"{result.rank:>3}  {result.score:.3f}  {_plain(path)}", style="bold"), soft_wrap=True)
    console.print(Text(f"     {_plain(result.source)}", style="cyan"), soft_wrap=True)
    console.print(Padding(Text(f"{_excerpt(result)}\n"), (0, 0, 0, 5), expand=False))


def _excerpt(result: Result) -> str:
    """Return what the service shows of the passage; of an older service's, its beginning."""
    start, end = result.excerpt if result.excerpt[1] else (0, EXCERPT_CHARS)
    text = " ".join(_plain(result.content[start:end]).split())
    return f"{'… ' if start else ''}{text}{' …' if end < len(result.content) else ''}"


def _plain(text: str) -> str:
    """Replace control characters, so that a page cannot move the cursor or colour the terminal."""
    return "".join(" " if unicodedata.category(character).startswith("C") else character for character in text)


def _report(client: RaydexClient, options: argparse.Namespace, console: Console) -> int:
    """Print what people look for and do not find; with --json as one line."""
    told = client.report(days=options.days or REPORT_DAYS)
    if options.json:
        print(told.model_dump_json())
        return PASSED
    if told.query_log == "off":
        console.print(Text("The service keeps no query log now (query_log, docs/analytics.md)."))
    console.print(
        Text(
            f"{told.days} days: {told.searches} searches in {told.sessions} sessions, {told.queries} different; "
            f"{told.without_results} found nothing; {told.kept_back} queries of fewer than {told.least_sessions} "
            "sessions are not named"
        )
    )
    tables: dict[str, Sequence[BaseModel]] = {
        "what people look for": told.top,
        "what finds nothing": told.nothing_found,
        "tried otherwise within minutes": told.reformulations,
        "pages that were best, those that satisfied least first": told.pages,
    }
    for title, rows in tables.items():
        if rows:
            console.print(_table(title, [row.model_dump() for row in rows]))
    return PASSED


def _table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(value, int) else "left")
    for row in rows:
        table.add_row(*(Text(_plain(str(value))) for value in row.values()))
    return table


def _check_load(client: RaydexClient, options: argparse.Namespace, console: Console) -> int:
    report = measure(client, options.load, options.concurrency, k=options.k, index=options.index)
    figures = report.figures()
    if options.json:
        print(json.dumps({"concurrency": options.concurrency, **figures}))
    else:
        summary = "{answered} answered, {errors} errors with {c} at a time: {requests_per_s} requests/s, "
        latency = "p50 {p50_ms} ms, p95 {p95_ms} ms, p99 {p99_ms} ms"
        console.print(Text((summary + latency).format(c=options.concurrency, **figures)), soft_wrap=True)
    for error in dict.fromkeys(report.errors[:3]):
        print(_plain(error), file=sys.stderr)
    return FAILED if report.errors else PASSED


def measure(client: RaydexClient, requests: int, concurrency: int, *, k: int, index: Sequence[str]) -> LoadReport:
    """Ask so many distinct questions from so many threads; each thread asks the next when it has its answer."""
    questions, taking = itertools.islice(distinct_questions(), requests), threading.Lock()
    seconds: list[float] = []
    errors: list[str] = []

    def ask_until_done() -> None:
        while True:
            with taking:
                question = next(questions, None)
            if question is None:
                return
            started = time.perf_counter()
            try:
                client.search_raw(question, k=k, index=index)
            except ServiceError as error:
                errors.append(str(error))
            else:
                seconds.append(time.perf_counter() - started)

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        for future in [pool.submit(ask_until_done) for _ in range(concurrency)]:
            future.result()
    return LoadReport(elapsed_s=time.perf_counter() - started, seconds=sorted(seconds), errors=errors)


def _evaluate(client: RaydexClient, options: argparse.Namespace) -> int:
    """Print the figures of the service (or of a stored run), and what differs from another run; JSON comes last."""
    golden = load_golden(options.evaluate, options.qrels, base=options.base)
    if golden is None:
        raise ConfigError("--evaluate names no file")
    other = read_run(options.compare) if options.compare else None
    if options.stored:
        asked = Asked(
            run={query: [(url, 0.0) for url in of] for query, of in read_run(options.stored).items()},
            failed={},
            snapshots={},
        )
    else:
        client.wait_ready(options.wait)
        asked = ask_all(client, golden.queries, options.concurrency, **_wanted(options))
    if options.run:
        write_run(options.run, asked.run, "raydex")
    for note in _notes(golden, asked, other):
        print(_plain(note), file=sys.stderr)
    if len(asked.failed) == len(golden.queries):
        return FAILED
    document = {
        "queries": len(golden.queries),
        "answered": len(golden.queries) - len(asked.failed),
        "failed": asked.failed,
        **({} if options.stored else {"k": options.k}),
        "snapshot": asked.snapshots,
    }
    print(json.dumps({**document, **_judged(golden, asked, other)}))
    return FAILED if asked.failed else PASSED


def _judged(golden: Golden, asked: Asked, other: Mapping[str, Sequence[str]] | None) -> dict[str, object]:
    """Print the tables; return the documents. Queries that failed are in no figure, on neither side."""
    values = _answered(golden, {query: [url for url, _ in of] for query, of in asked.run.items()}, asked.failed)
    found = report(golden, values)
    print("\n".join(_plain(line) for line in found.lines()))
    if other is None:
        return {"figures": found.document()}
    comparison = compare(golden, values, _answered(golden, other, asked.failed))
    print("\n".join(["", "against the other run:", *map(_plain, comparison.lines())]))
    for word, changes in (("won", comparison.won), ("lost", comparison.lost)):
        for query in list(changes)[:CHANGES_SHOWN]:
            print(_plain(f"{word:<5}{changes[query]:+.3f}  {query}  {golden.queries[query]}"))
    return {"figures": found.document(), "comparison": comparison.document()}


def _answered(
    golden: Golden, run: Mapping[str, Sequence[str]], failed: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    return {query: values for query, values in metrics_of(golden, run).items() if query not in failed}


def _notes(golden: Golden, asked: Asked, other: Mapping[str, Sequence[str]] | None) -> Iterator[str]:
    """Yield what the figures do not show, a line each."""
    for query, problem in asked.failed.items():
        yield f"query {query} failed, it is in no figure: {problem}"
    if empty := sum(not asked.run.get(query) for query in golden.queries) - len(asked.failed):
        yield f"{empty} queries without a result count as wrong"
    if other is not None and (lacking := sum(query not in other for query in golden.queries)):
        yield f"{lacking} queries that the other run lacks count as wrong there"
    for index, snapshots in asked.snapshots.items():
        if len(snapshots) > 1:
            yield f"index {index}: {' and '.join(snapshots)} answered; the figures are of a mixture"


def ask_all(client: RaydexClient, queries: Mapping[str, str], concurrency: int, **wanted: Any) -> Asked:
    """Ask each query once, so many at a time; 429 and 503 are asked again as the client does.

    wanted: what client.search takes beside the query.
    """

    def ask(text: str) -> SearchAnswer | ServiceError:
        try:
            return client.search(text, **wanted)
        except ServiceError as error:
            return error

    with ThreadPoolExecutor(concurrency) as pool:
        answers = dict(zip(queries, pool.map(ask, queries.values()), strict=True))
    run, failed, snapshots = {}, {}, dict[str, dict[str, None]]()
    for query, answer in answers.items():
        if isinstance(answer, ServiceError):
            failed[query] = str(answer)
            continue
        run[query] = [(result.source, result.score) for result in answer.results]
        for name, snapshot in answer.snapshot.items():
            snapshots.setdefault(name, {})[snapshot] = None
    return Asked(run=run, failed=failed, snapshots={name: list(of) for name, of in snapshots.items()})


def distinct_questions() -> Iterator[str]:
    """Yield questions that never repeat, so that no cache can answer them."""
    for number in itertools.count(1):
        for verb, subject in itertools.product(VERBS, SUBJECTS):
            yield f"how do I {verb} {subject} number {number}"


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="test_client.py",
        description="Ask a running service; without a question, test it with three samples.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="?", default="", help="what to search for")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service [default: %(default)s]")
    parser.add_argument(
        "--api-key", default="", metavar="KEY", help="what the service knows you by [default: RAYDEX_API_KEY, safer]"
    )
    parser.add_argument("-k", type=_at_least_one, help="hits to ask for [default: 5, with --evaluate 50]")
    parser.add_argument("--index", action="append", default=[], help="index to search; repeat it for several")
    parser.add_argument("--mode", choices=("hybrid", "dense", "lexical"), help="what ranks [default: the service's]")
    parser.add_argument(
        "--group-by", choices=("none", "section", "page"), help="what one hit stands for [default: the service's]"
    )
    parser.add_argument(
        "--rerank",
        action=argparse.BooleanOptionalAction,
        help="whether a cross-encoder orders the best results [default: the service's]",
    )
    parser.add_argument("--json", action="store_true", help="print the response as it came, or the figures of --load")
    parser.add_argument("--load", type=_at_least_one, metavar="N", help="measure N requests instead")
    parser.add_argument("--concurrency", type=_at_least_one, metavar="C", help="at a time [default: 8, to evaluate 4]")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for a starting service"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="of one request [default: 30]")
    parser.add_argument("--report", action="store_true", help="show what people look for and do not find")
    parser.add_argument("--days", type=_at_least_one, help="with --report: of so many days, today included [7]")
    parser.add_argument("--log-level", default="WARNING", choices=("DEBUG", "INFO", "WARNING"), help="lines on stderr")
    parser.add_argument("--log-format", default="text", choices=("text", "json"), help="of these [default: text]")
    judged = parser.add_argument_group("evaluation", "docs/evaluate.md has the formats and what the figures mean")
    judged.add_argument("--evaluate", default="", metavar="QUERIES", help="judge the answers to these queries instead")
    judged.add_argument("--qrels", default="", metavar="FILE", help="their answers, unless QUERIES is .jsonl")
    judged.add_argument("--base", default="", metavar="URL", help="what relative addresses in these are relative to")
    judged.add_argument("--run", default="", metavar="FILE", help="write the results as a TREC run")
    judged.add_argument("--compare", default="", metavar="FILE", help="compare with an earlier run")
    judged.add_argument("--from", dest="stored", default="", metavar="FILE", help="judge this run, ask no service")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
