"""How sure a mean is, and a difference: by drawing the queries again, with a fixed seed.

    values of one run → Interval        values of two runs on the same queries → Difference

The queries are the sample; what is estimated is how the system would fare on other queries of their kind. Intervals are
percentile bootstrap (Efron and Tibshirani 1993, ch. 13). The paired test is Fisher's randomisation test: were the two
runs alike, either value of a query might as well have come from the other run. It assumes no distribution and tests
the mean itself, and agrees with the bootstrap and the t-test in practice, unlike the sign and Wilcoxon tests
(Smucker, Allan and Carterette, CIKM 2007). The interval of the difference says how large, the test whether at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
FLIPS = 10_000
BLOCK = 2**18
"""Numbers drawn at a time: 2 MB."""
SEED = 0
OUTSIDE_PERCENT = 2.5
"""On either side of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over `count` queries and its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of (ours − theirs) over `count` queries, its 95 % interval, and p of "they are alike" (two-sided)."""

    mean: float
    low: float
    high: float
    p: float
    count: int


def interval(values: Sequence[float]) -> Interval:
    """Return the mean and its bootstrap interval; values: at least one."""
    sample = np.asarray(values, np.float64)
    rng = np.random.default_rng(SEED)
    means = np.concatenate(
        [
            sample[rng.integers(len(sample), size=(rows, len(sample)))].mean(axis=1)
            for rows in _blocks(RESAMPLES, len(sample))
        ]
    )
    low, high = np.percentile(means, [OUTSIDE_PERCENT, 100 - OUTSIDE_PERCENT])
    return Interval(mean=float(sample.mean()), low=float(low), high=float(high), count=len(sample))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Compare two runs query by query; both hold one value for each of the same queries, in the same order."""
    differences = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    found = interval(list(differences))
    return Difference(
        mean=found.mean, low=found.low, high=found.high, p=_randomisation_p(differences), count=found.count
    )


def _randomisation_p(differences: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Return the share of sign flips whose mean is as far from 0 as the one seen, which counts as one of them.

    Queries that do not differ change nothing under any flip, so they are left out.
    """
    changed = differences[differences != 0]
    if not len(changed):
        return 1.0
    rng = np.random.default_rng(SEED)
    seen = abs(changed.sum()) * (1 - 1e-12)  # sums of the same numbers in another order differ in their last bit
    as_far = sum(
        int(np.count_nonzero(np.abs((2.0 * rng.integers(2, size=(rows, len(changed))) - 1) @ changed) >= seen))
        for rows in _blocks(FLIPS, len(changed))
    )
    return (as_far + 1) / (FLIPS + 1)


def _blocks(draws: int, size: int) -> Iterator[int]:
    """Yield how many draws of this size to make at a time, so that memory stays bounded."""
    rows = max(1, BLOCK // size)
    for start in range(0, draws, rows):
        yield min(rows, draws - start)
