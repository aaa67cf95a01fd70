"""What happened within a request or a build, as OpenTelemetry spans for a collector (OTLP over HTTP). Off by default.

    sender = open_sender(config.telemetry, "raydex-serve")         None: no endpoint is set, nothing is traced
    tracing = RequestTracing(sender, share=0.01, follows_callers=True)

A request notes its stages as plain tuples, with the clock of its timings_s. When it has ended, spans are made of them
if it is kept: every failure, a share of the rest, and what a caller traces. One that is not kept costs one span.

A build is always kept: `with build_traced(…)`, `with span("shard")`. Its workers send nothing: they return what they
measured with their result (Measured), and the driver makes spans of it (`result_in`).
No provider of the process is set: what Ray, FastAPI or a host program traces stays theirs, and ours stays ours.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, TraceIdRatioBased
from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from raydex.config import CODE_VERSION, TelemetryConfig
from raydex.errors import ConfigError
from raydex.records import StageTimes

Result = TypeVar("Result")

Fact: TypeAlias = str | int | float | bool
"""What an attribute of a span may be."""

EXPORT_TIMEOUT_S = 5.0
"""How long a program that ends waits for a collector that does not answer."""

MOST_STRETCHES = 1000
"""Of one request; a batch of 64 queries in four indexes has some 1,500, of which the first are kept."""

_callers = TraceContextTextMapPropagator()


class Stretch(NamedTuple):
    """A stretch of time that becomes a span. Times are Unix nanoseconds."""

    name: str
    started_ns: int
    ended_ns: int
    facts: Mapping[str, Fact]


class Measured(NamedTuple, Generic[Result]):
    """What a worker returns: its result, and when it was at work."""

    result: Result
    stretches: tuple[Stretch, ...]


def open_sender(config: TelemetryConfig, program: str, exporter: SpanExporter | None = None) -> TracerProvider | None:
    """Return what gathers spans and sends them, in a thread of its own; None without an endpoint.

    A collector that is slow or away costs nobody time: what does not fit the queue is dropped. exporter: sends them
    elsewhere. Raises ConfigError when requirements-otlp.txt is not installed. shutdown() sends what is left.
    """
    if exporter is None and not config.trace_endpoint:
        return None
    provider = TracerProvider(
        sampler=ALWAYS_ON,  # which are kept is not known before their end
        resource=Resource.create({"service.name": program, "service.version": CODE_VERSION}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter or _otlp(config.trace_endpoint)))
    return provider


def check_exporter(config: TelemetryConfig) -> None:
    """Raise what open_sender would, before anything is started."""
    if config.trace_endpoint:
        _otlp(config.trace_endpoint).shutdown()


def _otlp(endpoint: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            f"trace_endpoint = {endpoint} needs OpenTelemetry's exporter: pip install -r requirements-otlp.txt"
        ) from error
    return OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S)


class RequestTracing:
    """Which requests are kept, as a policy."""

    def __init__(self, sender: TracerProvider, *, share: float, follows_callers: bool) -> None:
        self._sender, self._tracer = sender, sender.get_tracer("raydex")
        self._share, self._follows_callers = TraceIdRatioBased(share), follows_callers

    def begin(self, headers: Mapping[str, str]) -> "RequestTrace":
        """Begin the spans of a request. headers: W3C traceparent and tracestate are looked at."""
        context = _callers.extract(headers)
        caller = trace.get_current_span(context).get_span_context()
        root = self._tracer.start_span("request", context, SpanKind.SERVER)
        is_followed = caller.is_valid and caller.trace_flags.sampled and self._follows_callers
        return RequestTrace(self._tracer, root, is_kept=is_followed or self._is_sampled(root))

    def close(self) -> None:
        """Send what is left."""
        self._sender.shutdown()

    def _is_sampled(self, root: Span) -> bool:
        """The same for all spans of a trace, whichever service decides."""
        trace_id = root.get_span_context().trace_id
        return self._share.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE


class RequestTrace:
    """The spans of one request: what is noted, and at its end kept or forgotten. Any thread may note."""

    def __init__(self, tracer: Tracer, root: Span, *, is_kept: bool) -> None:
        self._tracer, self._root, self._is_kept = tracer, root, is_kept
        self._stretches: list[Stretch] = []
        self.facts: dict[str, Fact] = {}

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._root.get_span_context().trace_id)

    def note(self, stretch: Stretch) -> None:
        if len(self._stretches) < MOST_STRETCHES:
            self._stretches.append(stretch)

    def keep(self) -> None:
        """Have the spans sent whatever share is."""
        self._is_kept = True

    def end(self, name: str, *, failed: bool, facts: Mapping[str, Fact]) -> None:
        """Send the spans if they are kept. facts: of the whole, beside self.facts."""
        if not (self._is_kept or failed):
            return
        self._root.update_name(name)
        self._root.set_attributes({**self.facts, **facts})
        if failed:
            self._root.set_status(StatusCode.ERROR)
        _tell(self._tracer, self._root, self._stretches)
        self._root.end()


@dataclass(slots=True, kw_only=True)
class TracedTimes(StageTimes):
    """Stage times that also become spans of a request."""

    trace: RequestTrace
    facts: dict[str, Fact] = field(default_factory=dict)

    def add(self, stage: str, seconds: float) -> None:
        StageTimes.add(self, stage, seconds)  # a class with slots is made twice, which super() does not know
        if stage != "total":  # that is the request itself
            ended_ns = time.time_ns()
            self.trace.note(Stretch(stage, ended_ns - int(seconds * 1e9), ended_ns, self.facts))

    def of_index(self, name: str) -> StageTimes:
        return TracedTimes(seconds=self.seconds, trace=self.trace, facts={"raydex.index": name})


_request: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)
_tracer: ContextVar[Tracer] = ContextVar("build_tracer", default=NoOpTracer())  # noqa: B039 - it has no state


@contextmanager
def in_request(request: RequestTrace) -> Iterator[None]:
    """Let request_trace() and stage_times() find it, in this task and those it starts."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


def request_trace() -> RequestTrace | None:
    return _request.get()


def stage_times() -> StageTimes:
    """Return new stage times, which become spans if the request at hand is traced."""
    request = _request.get()
    return StageTimes() if request is None else TracedTimes(trace=request)


@contextmanager
def build_traced(sender: TracerProvider | None, **facts: Fact) -> Iterator[None]:
    """Trace a build: span() and result_in() have an effect within. Without a sender they have none."""
    if sender is None:
        yield
        return
    token = _tracer.set(sender.get_tracer("raydex"))
    try:
        with span("build", **facts):
            yield
    finally:
        _tracer.reset(token)
        sender.shutdown()


def span(name: str, **facts: Fact) -> AbstractContextManager[Span]:
    """Make a span of the block, within the span around it; an error that leaves the block is part of it."""
    return _tracer.get().start_as_current_span(name, attributes=_named(facts))


def add_facts(**facts: Fact) -> None:
    """Add attributes to the span at hand."""
    trace.get_current_span().set_attributes(_named(facts))


def measured(name: str, work: Callable[[], Result]) -> Measured[Result]:
    """Do the work, and say when. What its result says of itself in plain fields becomes attributes."""
    started_ns = time.time_ns()
    result = work()
    return Measured(result, (Stretch(name, started_ns, time.time_ns(), _facts_of(result)),))


def result_in(returned: object) -> Any:
    """Return the result without its wrapping; what was measured becomes spans below the one at hand."""
    if not isinstance(returned, Measured):
        return returned
    _tell(_tracer.get(), trace.get_current_span(), returned.stretches)
    return returned.result


def _facts_of(result: object) -> dict[str, Fact]:
    if not is_dataclass(result):
        return {}
    values = {one.name: getattr(result, one.name) for one in fields(result)}
    return _named({name: value for name, value in values.items() if isinstance(value, str | int | float)})


def _tell(tracer: Tracer, parent: Span, stretches: Iterable[Stretch]) -> None:
    context = trace.set_span_in_context(parent)
    for name, started_ns, ended_ns, facts in stretches:
        tracer.start_span(name, context, attributes=facts, start_time=started_ns).end(ended_ns)


def _named(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    return {f"raydex.{name}": value for name, value in facts.items()}
