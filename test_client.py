"""Ask a running service from the command line: a question, a smoke test, or a load check. Not a pytest file.

python test_client.py "how do I open a file" -k 3        hits for a person
python test_client.py                                    three sample questions, exit 0 when all pass
python test_client.py --load 400 --concurrency 8         requests/s and latency
"""

import argparse
import itertools
import json
import math
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from raydex.client import RaydexClient, Result, SearchAnswer
from raydex.errors import ServiceError

SAMPLE_QUESTIONS = (
    "how do I get started",
    "how do I read a file line by line",
    "what happens when a function raises an exception",
)
SUBJECTS = ("a file", "a list", "a date", "a thread", "a socket", "a module", "a class", "a string", "a test", "a loop")
VERBS = ("open", "create", "copy", "compare", "sort", "close", "print", "parse", "convert", "delete")
EXCERPT_CHARS = 240

EXAMPLES = """examples:
  python test_client.py "how do I open a file" -k 3 --index docs
  python test_client.py --wait 60 --load 400 --concurrency 8

exit codes:
  0  answered, and every check passed
  1  a check failed, a request failed, or the service cannot be reached
  2  wrong flags
"""
PASSED, FAILED = 0, 1


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


def main(arguments: list[str] | None = None) -> int:
    options = argument_parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=False)
    with RaydexClient(options.url, timeout_s=options.timeout, attempts=1 if options.load else 4) as client:
        try:
            if options.wait:
                client.wait_ready(options.wait)
            return _run(client, options, console)
        except ServiceError as error:
            print(f"test_client.py: {_plain(str(error))}", file=sys.stderr)
            return FAILED


def _run(client: RaydexClient, options: argparse.Namespace, console: Console) -> int:
    if options.load:
        return _check_load(client, options, console)
    if not options.question:
        return _smoke_test(client, options, console)
    if options.json:
        print(client.search_raw(options.question, k=options.k, index=options.index).decode())
        return PASSED
    _show(client.search(options.question, k=options.k, index=options.index), console)
    return PASSED


def _smoke_test(client: RaydexClient, options: argparse.Namespace, console: Console) -> int:
    """Ask the sample questions, show the best hit of each and say what is wrong with the answers."""
    failed = 0
    for question in SAMPLE_QUESTIONS:
        answer = client.search(question, k=options.k, index=options.index)
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
    console.print(Padding(Text(f"{_excerpt(result.content)}\n"), (0, 0, 0, 5), expand=False))


def _excerpt(content: str) -> str:
    text = " ".join(_plain(content).split())
    return text if len(text) <= EXCERPT_CHARS else text[:EXCERPT_CHARS].rsplit(" ", 1)[0] + " …"


def _plain(text: str) -> str:
    """Replace control characters, so that a page cannot move the cursor or colour the terminal."""
    return "".join(" " if unicodedata.category(character).startswith("C") else character for character in text)


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
    parser.add_argument("-k", type=_at_least_one, default=5, help="hits to show [default: %(default)s]")
    parser.add_argument("--index", action="append", default=[], help="index to search; repeat it for several")
    parser.add_argument("--json", action="store_true", help="print the response as it came, or the figures of --load")
    parser.add_argument("--load", type=_at_least_one, metavar="N", help="measure N requests instead")
    parser.add_argument("--concurrency", type=_at_least_one, default=8, metavar="C", help="at a time [default: 8]")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for a starting service"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="of one request [default: 30]")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
