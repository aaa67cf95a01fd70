"""Where the service's figures go: one face for Ray's metrics and for tests.

recorder.count("raydex_requests", route="/search", outcome="ok")     names and labels: raydex.metrics.METRICS
"""

from collections import defaultdict
from typing import Protocol

from raydex.metrics import METRICS

Series = tuple[str, frozenset[tuple[str, str]]]


class Recorder(Protocol):
    def count(self, name: str, /, **labels: str) -> None: ...
    def observe(self, name: str, value: float, /, **labels: str) -> None: ...
    def set(self, name: str, value: float, /, **labels: str) -> None: ...


class MemoryRecorder:
    """Keeps figures in this process, for tests and for serving without Ray; refuses what METRICS does not list."""

    def __init__(self) -> None:
        self._values: dict[Series, list[float]] = defaultdict(list)

    def count(self, name: str, /, **labels: str) -> None:
        self._values[self._series(name, "counter", labels)].append(1)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self._values[self._series(name, "histogram", labels)].append(value)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        self._values[self._series(name, "gauge", labels)] = [value]

    def values(self, name: str, /, **labels: str) -> list[float]:
        """Return what one series was given, oldest first; of a gauge the last value alone."""
        return list(self._values[name, frozenset(labels.items())])

    def _series(self, name: str, kind: str, labels: dict[str, str]) -> Series:
        metric = METRICS[name]
        if metric.kind != kind or set(metric.labels) != set(labels):
            raise ValueError(f"{name} is a {metric.kind} with labels {metric.labels}, not a {kind} with {set(labels)}")
        return name, frozenset(labels.items())
