"""The service as a Ray Serve application: one deployment that embeds, scans and answers in one process.

    ServeConfig → build_application(config) → serve.run(…)        or  with running(config) as addresses: …

Embedding, scan and HTTP face share a replica because one hop between deployments costs 3 to 11 ms, more than a search.
"""

import asyncio
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve import metrics
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from raydex.cluster import TOKEN_FILE, ray_running
from raydex.config import ServeConfig
from raydex.errors import ConfigError, RaydexError
from raydex.evaluate import Golden
from raydex.metrics import METRICS, Metric
from raydex.records import Vectors
from raydex.search import SnapshotKey
from raydex.serve import accesslog
from raydex.serve.app import create_app
from raydex.serve.canary import golden_of, keep_asking
from raydex.serve.engine import Engine
from raydex.serve.groups import ShardGroup, group_count
from raydex.serve.lane import EmbedItem, Lane, Result
from raydex.serve.reaching import RemoteGroups
from raydex.serve.recent import Recent, Window
from raydex.serve.recorder import Recorder
from raydex.serve.swapping import PATIENCE_S, Council, Follower, Plan, Report, SwapCouncil
from utils.logs import EventFormatter, LogFormat

logger = logging.getLogger(__name__)

APPLICATION_NAME = "raydex"

ONGOING_REQUESTS = 10_000
"""Per replica, so that it is always we who refuse, with a body. Ray's default of 5 starves the batches."""

MOST_REPLICAS = 8
"""Of those that are started unasked: each takes some 400 MB."""

SWITCH_INTERVAL_S = 0.0005
"""How long a search may keep the event loop from Python's lock. The default, 5 ms, is more than a search takes."""

LOOK_BACK_S = 15.0
"""Over which the number of requests is averaged: longer than the 10 s after which replicas tell theirs."""

THREADS_THAT_WAIT = 8
"""Of a replica whose shards are in groups: most of a search there is waiting for them."""

COUNCIL_REQUESTS = 1024
"""Each replica has one waiting at any time."""

COUNCIL_TIMEOUT_S = 30.0
LEAVE_TIMEOUT_S = 2.0
CANARY_TIMEOUT_S = 2.0


class RayRecorder:
    """Gives figures to Ray, which exports them for Prometheus with application, deployment and replica as labels."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {m.name: _ray_metric(m) for m in METRICS.values() if m.program == "serve"}

    def count(self, name: str, /, **labels: str) -> None:
        self._metrics[name].inc(tags=labels)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        self._metrics[name].observe(value, tags=labels)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        self._metrics[name].set(value, tags=labels)


class SearchService:
    """A replica: the whole snapshot of every index, the model, and the HTTP face.

    Replicas share the processors: on two, two replicas of one thread each, since most of a search is Python, which uses
    one processor of a process at a time.
    """

    async def __init__(  # type: ignore[misc]
        self,
        config: ServeConfig,
        council: DeploymentHandle[Any] | None = None,
        canary: DeploymentHandle[Any] | None = None,
        groups: Sequence[DeploymentHandle[Any]] = (),
    ) -> None:
        """council: of all replicas; without it, this one is the only one. groups: who has the shards; without them,
        this one has all. Ray Serve awaits this.
        """
        _log_with_serve(config.telemetry.log_format)
        self._config, self._canary = config, canary
        self.swaps: SwapCouncil = RemoteCouncil(council) if council else Council(config)
        agreed = await RemoteCouncil(council).serving() if council else {}
        threads = max(1, _processors() // replicas_of(config))
        self.engine = Engine(
            config,
            threads=threads,
            agreed=agreed,
            groups=RemoteGroups(groups, tries=min(2, config.scaling.group_replicas)) if groups else None,
            group_count=len(groups),
        )
        self.recorder: Recorder = Recent(RayRecorder())
        self._lane = Lane(
            self._embed,
            threads=THREADS_THAT_WAIT if groups else threads,
            batch=config.embed_batch,
            most_waiting=config.max_waiting,
            begun=partial(self.recorder.observe, "raydex_queue_seconds"),
        )
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        _spare_collector()
        self.name: str = serve.get_replica_context().replica_id.unique_id

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve calls this after __init__, so that the app stands on an engine that is already open."""
        return create_app(self, self._config, adds_request_id=False)

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        """Embed together with the queries of other requests that are waiting."""
        return np.stack(await asyncio.gather(*(self.run((model_id, text), _needed) for text in texts)))

    async def run(self, item: EmbedItem | None, work: Callable[[Vectors | None], Result]) -> Result:
        try:
            return await self._lane.run(item, work)
        finally:
            self.recorder.set("raydex_waiting", self._lane.waiting)

    def _embed(self, items: Sequence[EmbedItem]) -> list[Vectors]:
        self.recorder.observe("raydex_embed_batch", len(items))
        return embed_mixed(self.engine, items)

    async def canary_window(self) -> Window | None:
        found = self._canary and await _tried("canary", self._canary.window.remote(), CANARY_TIMEOUT_S)
        return cast(Window | None, found)


def _spare_collector() -> None:
    """Leave out of every later collection what is there by now: 250,000 objects, through which one takes 0.1 s.

    Python's lock is held so long, and each request of the replica waits. What goes without a cycle is freed as before.
    """
    gc.collect()
    gc.freeze()


def _needed(vector: Vectors | None) -> Vectors:
    assert vector is not None  # noqa: S101 - for mypy
    return vector


class RemoteCouncil:
    """The council as a deployment of its own. While it is away (its node is lost), replicas serve what they have."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def follow(self, member: str, report: Report, seen: int) -> Plan | None:
        return cast(
            Plan | None, await _tried("council", self._handle.follow.remote(member, report, seen), COUNCIL_TIMEOUT_S)
        )

    async def reload(self) -> Plan | None:
        return cast(Plan | None, await _tried("council", self._handle.reload.remote(), PATIENCE_S + COUNCIL_TIMEOUT_S))

    async def leave(self, member: str) -> None:
        await _tried("council", self._handle.leave.remote(member), LEAVE_TIMEOUT_S)

    async def serving(self) -> dict[str, str]:
        """Return what the other replicas serve."""
        return cast(dict[str, str], await _tried("council", self._handle.serving.remote(), COUNCIL_TIMEOUT_S) or {})


class LoggedCouncil(Council):
    """The council as a deployment."""

    def __init__(self, config: ServeConfig) -> None:
        _log_with_serve(config.telemetry.log_format)
        super().__init__(config)


class GroupService:
    """A process of a shard group. It follows the council as a replica does, and has no HTTP face."""

    async def __init__(  # type: ignore[misc]
        self, config: ServeConfig, number: int, count: int, council: DeploymentHandle[Any]
    ) -> None:
        _log_with_serve(config.telemetry.log_format)
        swaps = RemoteCouncil(council)
        agreed = await swaps.serving()
        self._group = await asyncio.to_thread(ShardGroup, config, number, count, agreed=agreed)
        self._following = asyncio.create_task(Follower(self._group, swaps, RayRecorder()).run())

    async def answer(self, key: SnapshotKey, method: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(self._group.answer, key, method, arguments)

    async def held(self) -> list[SnapshotKey]:
        return self._group.keys

    def check_health(self) -> None:
        """Ray Serve starts it anew when this raises."""
        if self._following.done():
            self._following.result()


class Canary:
    """The canary as a deployment of its own: when no replica answers, it is what tells so."""

    async def __init__(self, config: ServeConfig, golden: Golden) -> None:  # type: ignore[misc]
        _log_with_serve(config.telemetry.log_format)
        self._recent = Recent(RayRecorder())
        self._asking = asyncio.create_task(keep_asking(config, golden, self._recent))

    async def window(self) -> Window:
        return self._recent.window()

    def check_health(self) -> None:
        """Ray Serve starts it anew when this raises."""
        if self._asking.done():
            self._asking.result()


async def _tried(who: str, response: Any, timeout_s: float) -> Any:
    """Return what another deployment answers; None while it cannot be reached."""
    try:
        return await asyncio.wait_for(response, timeout_s)
    except (RayError, RayServeException, TimeoutError) as error:
        logger.warning("not reached deployment=%s reason=%s", who, error)
        return None


def _log_with_serve(kind: LogFormat) -> None:
    """Write our log lines, in our format, into the replica's log file beside Serve's own; else most would be lost.

    Past Serve's buffer of up to 1,000 lines, which a replica that ends takes with it.
    """
    ours = logging.getLogger("raydex")
    for handler in logging.getLogger("ray.serve").handlers:
        file = getattr(handler, "target", handler)
        if isinstance(file, logging.FileHandler):  # not the one that repeats everything in the worker's stderr
            file.setFormatter(EventFormatter(kind, others=file.formatter))
            ours.addHandler(file)
    ours.propagate = False
    accesslog.logger.setLevel(logging.INFO)


def embed_mixed(engine: Engine, items: Sequence[EmbedItem]) -> list[Vectors]:
    """Return one row (dim,) for each item, in order; one call of each model that is asked for."""
    rows: dict[EmbedItem, Vectors] = {}
    for model_id in dict.fromkeys(model for model, _ in items):
        texts = list(dict.fromkeys(text for model, text in items if model == model_id))
        for text, row in zip(texts, engine.embed(model_id, texts), strict=True):
            rows[model_id, text] = row
    return [rows[item] for item in items]


def replicas_of(config: ServeConfig) -> int:
    """Return how many there are; at most, when the load decides."""
    return config.scaling.max_replicas or config.replicas or min(_processors(), MOST_REPLICAS)


def how_many(config: ServeConfig) -> dict[str, Any]:
    """Return the options of the deployment that say how many replicas it has. Raises ConfigError."""
    fewest, most = config.replicas or 1, replicas_of(config)
    if fewest > most:
        raise ConfigError(f"max_replicas is {most}, less than replicas, {fewest}: raise it, or set it to 0.")
    if not config.scaling.max_replicas:
        return {"num_replicas": most}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=fewest,
            max_replicas=most,
            target_ongoing_requests=config.scaling.queue_length,
            look_back_period_s=LOOK_BACK_S,
            upscale_delay_s=config.scaling.busy_s,
            downscale_delay_s=config.scaling.calm_s,
        )
    }


def build_application(config: ServeConfig) -> serve.Application:
    """Return the application for serve.run; nothing is opened before a replica starts."""
    here = for_any_folder(config)
    logs = LoggingConfig(  # requests have a line of ours
        enable_access_log=False, encoding="JSON" if config.telemetry.log_format == "json" else "TEXT"
    )
    deploy = serve.deployment(
        **how_many(config),
        max_ongoing_requests=ONGOING_REQUESTS,
        ray_actor_options={"num_cpus": 1},
        logging_config=logs,
    )
    service = deploy(serve.ingress()(SearchService))
    beside: dict[str, Any] = {}
    groups = group_count(here)
    if replicas_of(here) > 1 or groups > 1:
        council = serve.deployment(
            name="SwapCouncil",
            max_ongoing_requests=COUNCIL_REQUESTS,
            ray_actor_options={"num_cpus": 0},
            logging_config=logs,
        )(LoggedCouncil)
        beside["council"] = council.bind(here)
    if groups > 1:
        deploy_group = serve.deployment(
            num_replicas=here.scaling.group_replicas,
            max_ongoing_requests=ONGOING_REQUESTS,
            ray_actor_options={"num_cpus": 1},
            logging_config=logs,
        )(GroupService)
        beside["groups"] = [
            deploy_group.options(name=f"ShardGroup{number}").bind(here, number, groups, beside["council"])
            for number in range(groups)
        ]
    if golden := golden_of(config):
        canary = serve.deployment(name="Canary", ray_actor_options={"num_cpus": 0}, logging_config=logs)(Canary)
        beside["canary"] = canary.bind(here, golden)
    return service.bind(here, **beside)


def for_any_folder(config: ServeConfig) -> ServeConfig:
    """Return the same settings for replicas, which may start in another folder."""
    logged = config.analytics.model_copy(update={"query_log_dir": config.analytics_dir.absolute()})
    folders: dict[str, Any] = {"data_dir": config.uri or config.folder.absolute(), "analytics": logged}
    if config.uri:
        folders["work_dir"] = config.folder.absolute()
    if config.keys_path:
        folders["access"] = config.access.model_copy(update={"keys_file": config.keys_path.absolute()})
    return config.model_copy(update=folders)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where to find what runs. token_hint: where the token is that the dashboard asks for; empty when it asks none."""

    url: str
    dashboard_url: str
    token_hint: str
    service_discovery: Path
    log_dir: Path


@contextmanager
def running(config: ServeConfig) -> Iterator[Addresses]:
    """Run the service, on a local Ray unless the config names a cluster, until the block is left.

    Raises ConfigError when the address to listen on cannot be had, RaydexError when no replica starts. A cluster that
    was there before stays.
    """
    if not config.ray_address:
        _check_free(config.host, config.port)
    groups = group_count(config)
    processes = replicas_of(config) + (groups * config.scaling.group_replicas if groups > 1 else 0)
    with ray_running(config.ray_address, processors=max(_processors(), processes)) as context:
        try:
            addresses = _addresses(config, context)
            _deploy(config, addresses.log_dir)
            yield addresses
        finally:
            serve.delete(APPLICATION_NAME)  # lets requests finish; the rest of Serve ends with a Ray of our own


def _deploy(config: ServeConfig, log_dir: Path) -> None:
    """Return when every replica has opened its indexes."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": config.host, "port": config.port})
    try:
        serve.run(build_application(config), name=APPLICATION_NAME, route_prefix="/")
    except RuntimeError as error:  # what Ray Serve raises for any failure of a replica's start
        raise RaydexError(f"the service did not start: {error} The reason is in {log_dir}.") from error


def _addresses(config: ServeConfig, context: Any) -> Addresses:
    session_dir = Path(context.address_info["session_dir"])
    return Addresses(
        url=config.url,
        dashboard_url=f"http://{context.dashboard_url}",
        token_hint=_token_hint(),
        service_discovery=session_dir / "prom_metrics_service_discovery.json",
        log_dir=session_dir / "logs" / "serve",
    )


def _token_hint() -> str:
    """Say where Ray's token is, never what it is: who has it can run code in the cluster."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":  # ray.init sets it, unless the user did
        return ""
    if "RAY_AUTH_TOKEN" in os.environ:
        return "the one in RAY_AUTH_TOKEN"
    return f"`ray get-auth-token`, or see {os.environ.get('RAY_AUTH_TOKEN_PATH', TOKEN_FILE)}"


def _check_free(host: str, port: int) -> None:
    """Raise ConfigError when nobody could listen there; Serve itself would share the port with another Serve."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"port {port} of {host} cannot be used ({error.strerror}). Choose another --port or --host, or stop its "
            "owner."
        ) from error


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ray_metric(metric: Metric) -> Any:
    labels = cast(tuple[str], metric.labels)  # Ray's annotation says one label, its code takes any number
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, list(metric.buckets), tag_keys=labels)
    kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
    return kind(metric.name, metric.help, tag_keys=labels)
