"""Serve the published indexes over HTTP with Ray Serve.

settings (flags, RAYDEX_* environment, [serve] of a sources file) → raydex.serve → URLs on stdout, then serve until told
to stop.

    python serve_index.py --index docs
    serve run serve_index:app index=docs
"""

import argparse
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydex.analytics import commands as log_commands
from raydex.config import ServeConfig, add_flags, resolve, settings_of
from raydex.errors import ConfigError, RaydexError, SnapshotNotFound
from raydex.serve import key_commands
from raydex.sources import load_document
from utils.logs import configure_logging

if TYPE_CHECKING:
    from ray.serve import Application

    from raydex.monitoring.running import Monitoring
    from raydex.serve.deployments import Addresses

EXAMPLES = """examples:
  python serve_index.py                              every published index, at http://127.0.0.1:8000
  python serve_index.py --index docs --port 8080     one index, at another port
  python serve_index.py --create-key ci              an API key, shown this once; from now on requests need one
  python serve_index.py --monitoring                 with Prometheus, alerts, and charts on Ray's dashboard

exit codes:
  0  stopped by SIGINT (Ctrl-C) or SIGTERM; or the command for keys or the query log is done, and the last line is JSON
  1  the service did not start; the message says where the reason is
  2  wrong settings, nothing published, a port is taken, a public address without API keys, or --monitoring without
     `prometheus`
"""
DONE = STOPPED = 0
FAILED, REFUSED = 1, 2
PUT_BACK_S = 0.05
"""How often our signal handlers are put back while Ray starts (10 s)."""


def main(arguments: list[str] | None = None) -> int:
    options = argument_parser().parse_args(arguments)
    configure_logging()
    try:
        config = _config(vars(options), options.sources)
        configure_logging(kind=config.telemetry.log_format)
        for commands in (key_commands, log_commands):
            if commands.asked(options):
                print("\n".join(commands.run(options, config)))
                return DONE
        _check(config)
        return _serve(config)
    except RaydexError as error:
        print(f"serve_index.py: {error}", file=sys.stderr)
        return REFUSED if isinstance(error, ConfigError | SnapshotNotFound) else FAILED


def app(args: dict[str, str]) -> "Application":
    """Build the application for `serve run serve_index:app index=docs max_k=50`; names are those of ServeConfig."""
    from raydex.serve.deployments import build_application

    known = {".".join(setting.path) for setting in settings_of(ServeConfig)}
    if unknown := set(args) - known - {"sources"}:
        raise ConfigError(f"unknown setting {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    config = _config(args, Path(args["sources"]) if "sources" in args else None)
    _check(config)
    return build_application(config)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve_index.py",
        description="Serve published indexes over HTTP, on a local Ray or an existing cluster.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sources", type=Path, default=None, help="TOML file whose [serve] table holds settings.")
    key_commands.add_key_options(parser)
    log_commands.add_log_options(parser)
    add_flags(parser, ServeConfig)
    return parser


def _config(flags: dict[str, Any], sources: Path | None) -> ServeConfig:
    table = load_document(sources).get("serve", {}) if sources else {}
    return resolve(ServeConfig, flags, table, str(sources or ""))


def _check(config: ServeConfig) -> None:
    from raydex.serve.access import check_start  # imports Starlette: not for --help or a wrong flag
    from raydex.serve.canary import golden_of
    from raydex.serve.rates import check_redis
    from raydex.tracing import check_exporter

    check_start(config)
    check_redis(config.access)
    check_exporter(config.telemetry)
    _check_published(config)
    golden_of(config)


def _check_published(config: ServeConfig) -> None:
    """Raise when there is nothing to serve; an index that is missing beside others is reported, not refused."""
    from raydex.serve.open_snapshots import published_names  # imports FAISS and more: not for --help or a wrong flag

    published = published_names(config)
    if not set(config.index or published) & set(published):
        raise SnapshotNotFound(f"{config.data_dir}/{config.index[0] if config.index else 'docs'}")


def _serve(config: ServeConfig) -> int:
    """Serve until a signal comes; one that comes while Ray starts takes effect when it has started.

    Ray puts handlers of its own in place of ours, in Python when it starts in the main thread, and again in C++ with
    its core, which aborts and leaves processes behind. So it starts in a second thread, and ours are put back.
    """
    started, stop = threading.Event(), threading.Event()
    _take_signals(stop)
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(_serve_until, config, started=started, stop=stop)
        while not started.wait(PUT_BACK_S) and not served.done():
            _take_signals(stop)
        _take_signals(stop)
        served.result()
    return STOPPED


def _take_signals(stop: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())


def _serve_until(config: ServeConfig, *, started: threading.Event, stop: threading.Event) -> None:
    from raydex.serve.ingress import prepared

    with prepared(config) if not config.ray_address else nullcontext():
        _serve_on_ray(config, started=started, stop=stop)


def _serve_on_ray(config: ServeConfig, *, started: threading.Event, stop: threading.Event) -> None:
    from raydex.serve.deployments import running  # imports Ray, 2 s: not for --help or a wrong flag

    with _monitoring(config) as monitoring, running(config) as addresses:
        if monitoring:
            monitoring.watch(addresses.service_discovery.parent)
        started.set()
        if not stop.is_set():
            _print_addresses(addresses)
            if monitoring:
                print("\n".join(_watched_at(monitoring)), flush=True)
            stop.wait()
        print("stopping …", flush=True)


def _monitoring(config: ServeConfig) -> "AbstractContextManager[Monitoring | None]":
    """Return what watches the service, if that is wanted; Ray, which is yet to start, finds it by the environment."""
    if not config.monitoring:
        return nullcontext()
    if config.ray_address:
        raise ConfigError(
            "--monitoring shows charts on the dashboard of a Ray that it starts, but --ray-address names one that "
            "runs. See docs/monitoring.md: `python -m raydex.monitoring`, and what that Ray's head must be told."
        )
    from raydex.monitoring.running import Monitoring

    folder = None if config.monitoring_dir == Path() else config.monitoring_dir
    return Monitoring(port=config.monitoring_port, folder=folder, interval_s=config.scrape_interval_s)


def _watched_at(monitoring: "Monitoring") -> list[str]:
    charts = f"{monitoring.charts_url}/ops" if monitoring.charts_url else f"{monitoring.grafana_url} (your Grafana)"
    return [f"charts      {charts}", f"prometheus  {monitoring.prometheus_url} (alerts: /alerts)"]


def _print_addresses(addresses: "Addresses") -> None:
    lines = [
        f"search      {addresses.url}/search?query=…",
        f"API docs    {addresses.url}/docs",
        f"dashboard   {addresses.dashboard_url}",
        *([f"            it asks for a token: {addresses.token_hint}"] if addresses.token_hint else []),
        f"logs        {addresses.log_dir}",
        f"metrics     {addresses.service_discovery} (service discovery for Prometheus)",
        f"try         python test_client.py --url {addresses.url}",
    ]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
