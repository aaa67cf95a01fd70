"""Runs as TREC run files: `qid Q0 docid rank score tag`, one result a line, docid = URL#anchor.

    {query id: [(URL#anchor, score), …]} → file → {query id: [URL#anchor, …]}

A docid stands once for a query, as TREC tools want it. A section whose chunks came several times is written where it
came first; its other places are missing ranks, so that hits as returned can still be judged. (trec_eval orders by score
and not by rank: where scores tie, it may order otherwise.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from raydex.errors import ConfigError

DEEPEST_RANK = 10_000
_SAFE = "%/:?#[]@!$&'()*+,;=~"


def write_run(path: str, run: Mapping[str, Sequence[tuple[str, float]]], tag: str) -> None:
    """Write a run; query ids and tag hold no spaces. Raises ConfigError when the file cannot be written."""
    lines = []
    for query, results in run.items():
        first: dict[str, tuple[int, float]] = {}
        for rank, (url, score) in enumerate(results, start=1):
            first.setdefault(quote(url, safe=_SAFE), (rank, score))
        lines += [f"{query} Q0 {url} {rank} {score:.9g} {tag}\n" for url, (rank, score) in first.items()]
    try:
        Path(path).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it is named as the run file to write") from error


def read_run(path: str) -> dict[str, list[str]]:
    """Read a run: query id → docids by rank. Raises ConfigError naming the line that is none of a run.

    Ranks begin at 1, or at 0 as some tools write them. A missing rank is read as the docid before it once more.
    """
    places: dict[str, dict[int, str]] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        query, url, rank = _fields(line, f"{path}, line {number}")
        if places.setdefault(query, {}).setdefault(rank, url) != url:
            raise ConfigError(f"{path}, line {number}: query {query!r} has rank {rank} twice")
    return {query: _filled(of) for query, of in places.items()}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; it is named as a run file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason}); it is named as a run file") from error


def _fields(line: str, where: str) -> tuple[str, str, int]:
    fields = line.split()
    if len(fields) != 6 or not fields[3].isdecimal() or int(fields[3]) > DEEPEST_RANK:
        expected = f"`qid Q0 docid rank score tag` with a rank up to {DEEPEST_RANK}"
        raise ConfigError(f"{where}: found {line!r}, expected {expected}")
    return fields[0], fields[2], int(fields[3])


def _filled(places: Mapping[int, str]) -> list[str]:
    ranking: list[str] = []
    first = 0 if 0 in places else 1
    for rank in sorted(places):
        before = ranking[-1] if ranking else places[rank]
        ranking += [before] * (rank - first - len(ranking)) + [places[rank]]
    return ranking
