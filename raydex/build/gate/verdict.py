"""What the gate has to say: data only, so that it travels from the actor that runs the checks to the driver.

Failure, … → Verdict → manifest (results, metrics), report.json (all of it), GateRefused (the first names)
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from raydex.errors import GateRefused
from raydex.records import PublishedAnyway

NAMED_IN_MESSAGE = 5
NAMED_IN_REPORT = 200
"""Pages that report.json names of one check: enough to see which part of a site it is."""

PASSED = "passed"
CHECKSUMS = "checksums"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorseQuery:
    """A golden query that fares worse. ranks: of the first right section, 0 when none is there; None is unknown."""

    query_id: str
    text: str
    rank: int
    rank_before: int | None

    def __str__(self) -> str:
        before = "unknown" if self.rank_before is None else self.rank_before or "none"
        return f"{self.query_id} {self.text!r} (rank {before} → {self.rank or 'none'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed check. pages: URLs, the first NAMED_IN_REPORT of page_count."""

    check: str
    message: str
    pages: tuple[str, ...] = ()
    page_count: int = 0
    queries: tuple[WorseQuery, ...] = ()

    def __str__(self) -> str:
        named = [str(query) for query in self.queries] or list(self.pages)
        count = len(self.queries) or self.page_count
        more = f" and {count - NAMED_IN_MESSAGE} more" if count > NAMED_IN_MESSAGE else ""
        return f"{self.check}: {self.message}" + (f": {', '.join(named[:NAMED_IN_MESSAGE])}{more}" if named else "")


def failure(check: str, message: str, *, pages: Iterator[str] | list[str]) -> Failure:
    named = sorted(pages)
    return Failure(check=check, message=message, pages=tuple(named[:NAMED_IN_REPORT]), page_count=len(named))


@dataclass(slots=True, kw_only=True)
class Verdict:
    """The outcome of a whole gate. results: check → passed, or what is wrong. metrics: what was measured."""

    results: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    golden_digest: str = ""

    def add(self, check: str, failures: list[Failure], **metrics: float) -> None:
        """Take in what one check found and measured."""
        self.failures += failures
        self.results[check] = "; ".join(map(str, failures)) or PASSED
        self.metrics |= {name: round(value, 6) for name, value in metrics.items()}

    @property
    def failed_checks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(failure.check for failure in self.failures))

    @property
    def is_damaged(self) -> bool:
        return CHECKSUMS in self.failed_checks

    def refusal(self, snapshot_id: str, report: str) -> GateRefused:
        return GateRefused(snapshot_id, tuple(map(str, self.failures)), report, is_damaged=self.is_damaged)


@dataclass(frozen=True, slots=True)
class GateReport:
    """What report.json says of the gate."""

    snapshot_id: str
    verdict: Verdict
    published_anyway: PublishedAnyway | None

    def told(self) -> dict[str, Any]:
        return {
            "snapshot_id": self.snapshot_id,
            "checks": self.verdict.results,
            "metrics": self.verdict.metrics,
            "failures": [asdict(failure) for failure in self.verdict.failures],
            "published_anyway": asdict(self.published_anyway) if self.published_anyway else None,
        }
