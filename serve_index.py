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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydex.config import ServeConfig, add_flags, resolve, settings_of
from raydex.errors import ConfigError, RaydexError, SnapshotNotFound
from raydex.snapshot import current_id, index_names
from raydex.sources import load_document
from utils.logs import configure_logging

if TYPE_CHECKING:
    from ray.serve import Application

    from raydex.serve.deployments import Addresses

EXAMPLES = """examples:
  python serve_index.py                              every published index, at http://127.0.0.1:8000
  python serve_index.py --index docs --port 8080     one index, at another port

exit codes:
  0  stopped by SIGINT (Ctrl-C) or SIGTERM
  1  the service did not start; the message says where the reason is
  2  wrong settings, nothing published, or the port is taken
"""
STOPPED, FAILED, REFUSED = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    flags = vars(_parser().parse_args(arguments))
    configure_logging()
    try:
        config = _config(flags, flags["sources"])
        _check_published(config)
        return _serve(config)
    except RaydexError as error:
        print(f"serve_index.py: {error}", file=sys.stderr)
        return REFUSED if isinstance(error, ConfigError | SnapshotNotFound) else FAILED
    except (KeyboardInterrupt, SystemExit):  # a signal while Ray was starting; Ray turns SIGTERM into SystemExit
        return STOPPED


def app(args: dict[str, str]) -> "Application":
    """Build the application for `serve run serve_index:app index=docs max_k=50`; names are those of ServeConfig."""
    from raydex.serve.deployments import build_application

    known = {".".join(setting.path) for setting in settings_of(ServeConfig)}
    if unknown := set(args) - known - {"sources"}:
        raise ConfigError(f"unknown setting {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    config = _config(args, Path(args["sources"]) if "sources" in args else None)
    _check_published(config)
    return build_application(config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serve_index.py",
        description="Serve published indexes over HTTP, on a local Ray or an existing cluster.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sources", type=Path, default=None, help="TOML file whose [serve] table holds settings.")
    add_flags(parser, ServeConfig)
    return parser


def _config(flags: dict[str, Any], sources: Path | None) -> ServeConfig:
    table = load_document(sources).get("serve", {}) if sources else {}
    return resolve(ServeConfig, flags, table, str(sources or ""))


def _check_published(config: ServeConfig) -> None:
    """Raise when there is nothing to serve; an index that is missing beside others is reported, not refused."""
    names = config.index or tuple(index_names(config.data_dir))
    if not any(current_id(config.data_dir / name) for name in names):
        raise SnapshotNotFound(str(config.data_dir / (names[0] if names else "docs")))


def _serve(config: ServeConfig) -> int:
    from raydex.serve.deployments import running  # imports Ray, 2 s: not for --help or a wrong flag

    stop = threading.Event()
    with running(config) as addresses:
        for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which sets its own
            signal.signal(number, lambda *_: stop.set())
        _print_addresses(addresses)
        stop.wait()
        print("stopping …", flush=True)
    return STOPPED


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
