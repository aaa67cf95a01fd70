"""The last half hour of this process's figures, for /ops where no Prometheus is: counts, buckets and gauges in bins.

recent = Recent(RayRecorder())      a Recorder that passes on what it is told, and remembers it

What it costs a request is a few additions; what it keeps is bounded by bins and by label values, which are few.
"""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from raydex.metrics import METRICS
from raydex.serve.recorder import Recorder

BIN_S = 10
BINS = 180
SPREAD = 6
"""Bins that a rate or a percentile looks back over: a minute."""

Labels = tuple[tuple[str, str], ...]
Points = tuple[tuple[float, float], ...]


@dataclass(slots=True)
class Bin:
    """Ten seconds: what was counted, observed (a count for each bucket) and set, by (metric, labels)."""

    number: int
    counts: dict[tuple[str, Labels], int] = field(default_factory=dict)
    buckets: dict[tuple[str, Labels], list[int]] = field(default_factory=dict)
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)


class Recent:
    """A Recorder before another one."""

    def __init__(self, inner: Recorder, clock: Callable[[], float] = time.time) -> None:
        self._inner, self._clock = inner, clock
        self._bins: deque[Bin] = deque(maxlen=BINS)
        self._lock = threading.Lock()

    def count(self, name: str, /, **labels: str) -> None:
        self._inner.count(name, **labels)
        key = (name, tuple(labels.items()))
        with self._lock:
            counts = self._bin().counts
            counts[key] = counts.get(key, 0) + 1

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self._inner.observe(name, value, **labels)
        key, bounds = (name, tuple(labels.items())), METRICS[name].buckets
        with self._lock:
            buckets = self._bin().buckets
            if key not in buckets:
                buckets[key] = [0] * (len(bounds) + 1)
            buckets[key][bisect_left(bounds, value)] += 1

    def set(self, name: str, value: float, /, **labels: str) -> None:
        self._inner.set(name, value, **labels)
        with self._lock:
            self._bin().values[name, tuple(labels.items())] = value

    def window(self) -> "Window":
        with self._lock:
            newest = self._bin().number
            kept = {one.number: one for one in self._bins}
            first = self._bins[0].number
        return Window([kept.get(number) or Bin(number) for number in range(max(first, newest - BINS + 1), newest + 1)])

    def _bin(self) -> Bin:
        number = int(self._clock() // BIN_S)
        if not self._bins or self._bins[-1].number < number:
            self._bins.append(Bin(number))
        return self._bins[-1]


class Window:
    """What was remembered at one moment, a bin after the other. by: the label that tells lines apart."""

    def __init__(self, bins: list[Bin]) -> None:
        self._bins = bins

    @property
    def start(self) -> float:
        return min(self._bins[0].number, self._bins[-1].number - 1) * float(BIN_S)

    @property
    def end(self) -> float:
        return self._bins[-1].number * float(BIN_S)

    def counted(self, name: str, by: str = "", *, without: frozenset[str] = frozenset()) -> dict[str, Points]:
        """Return events of the last minute at each bin; those with a label value in `without` are left out."""
        found: dict[str, dict[int, int]] = {}
        for number, key, count in self._counts(name):
            if without.isdisjoint(value for _, value in key):
                line = found.setdefault(dict(key).get(by, ""), {})
                line[number] = line.get(number, 0) + count
        return {told: self._spread(line) for told, line in found.items()}

    def quantiles(
        self, name: str, share: float, by: str = "", *, only: tuple[str, str] | None = None
    ) -> dict[str, Points]:
        """Return the value below which a share of the last minute's observations lies, interpolated in its bucket."""
        found: dict[str, dict[int, list[int]]] = {}
        for one in self._bins:
            for (metric, key), buckets in one.buckets.items():
                if metric == name and (only is None or only in key):
                    line = found.setdefault(dict(key).get(by, ""), {})
                    before = line.get(one.number)
                    line[one.number] = [a + b for a, b in zip(before, buckets, strict=True)] if before else buckets
        bounds = METRICS[name].buckets
        return {told: self._quantile_line(line, bounds, share) for told, line in found.items()}

    def latest(self, name: str) -> dict[Labels, Points]:
        """Return what a gauge was set to, at each bin in which it was."""
        found: dict[Labels, list[tuple[float, float]]] = {}
        for one in self._bins:
            for (metric, key), value in one.values.items():
                if metric == name:
                    found.setdefault(key, []).append((one.number * float(BIN_S), value))
        return {key: tuple(points) for key, points in found.items()}

    def _counts(self, name: str) -> Iterator[tuple[int, Labels, int]]:
        for one in self._bins:
            yield from ((one.number, key, count) for (metric, key), count in one.counts.items() if metric == name)
            for (metric, key), buckets in one.buckets.items():
                if metric == name:
                    yield one.number, key, sum(buckets)

    def _spread(self, line: dict[int, int]) -> Points:
        return tuple(
            (one.number * float(BIN_S), float(sum(line.get(one.number - back, 0) for back in range(SPREAD))))
            for one in self._bins
        )

    def _quantile_line(self, line: dict[int, list[int]], bounds: tuple[float, ...], share: float) -> Points:
        points = []
        for one in self._bins:
            recent = [line[number] for back in range(SPREAD) if (number := one.number - back) in line]
            if recent:
                summed = [sum(column) for column in zip(*recent, strict=True)]
                points.append((one.number * float(BIN_S), quantile(summed, bounds, share)))
        return tuple(points)


def quantile(buckets: list[int], bounds: tuple[float, ...], share: float) -> float:
    """Return what Prometheus's histogram_quantile does: linear in the bucket; above the last bound, that bound."""
    rank, below = share * sum(buckets), 0
    for position, count in enumerate(buckets[:-1]):
        if count and below + count >= rank:
            lower = bounds[position - 1] if position else 0.0
            return lower + (bounds[position] - lower) * (rank - below) / count
        below += count
    return bounds[-1]
