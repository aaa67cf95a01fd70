"""Prometheus and the chart pages together, around a Ray that starts in between.

    with Monitoring(port=0, folder=None, interval_s=10) as monitoring:      the environment tells Ray's dashboard
        …                                                                   Ray starts
        monitoring.watch(session_dir)                                       Prometheus starts, the pages draw

Where Grafana is installed, our pages stay away: Ray's dashboard embeds Grafana, and our dashboard lies where Ray puts
its own, which Grafana reads.
"""

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.applications import Starlette

from raydex.errors import ConfigError
from raydex.monitoring.dashboards import grafana_json
from raydex.monitoring.pages import create_charts
from raydex.monitoring.panels import OURS
from raydex.monitoring.prometheus import HOST, find_binary, prometheus_running

GRAFANA_PROGRAMS = ("grafana", "grafana-server")
GRAFANA_URL = "http://localhost:3000"
"""Where Ray looks for Grafana unless RAY_GRAFANA_HOST says otherwise."""

OUR_FILE = "raydex_grafana_dashboard.json"
DISCOVERY_FILE = "prom_metrics_service_discovery.json"


def grafana_url() -> str:
    """Return where the user's own Grafana is: RAY_GRAFANA_HOST, or the usual place if one is installed; else ""."""
    installed = any(shutil.which(name) for name in GRAFANA_PROGRAMS)
    return os.environ.get("RAY_GRAFANA_HOST", "") or (GRAFANA_URL if installed else "")


class Monitoring:
    """Raises ConfigError at once when `prometheus` is missing or the port is taken."""

    def __init__(self, *, port: int = 0, folder: Path | None = None, interval_s: float = 10.0) -> None:
        """port: of the chart pages, 0 for a free one. folder: for Prometheus, None for one in the session's."""
        self._port, self._folder, self._interval_s = port, folder, interval_s
        self._stack = ExitStack()
        self.grafana_url = grafana_url()
        self.prometheus_url = self.charts_url = ""

    def __enter__(self) -> Self:
        find_binary()
        self._prometheus_port = free_port()
        self.prometheus_url = f"http://{HOST}:{self._prometheus_port}"
        if not self.grafana_url:
            self._listener = self._stack.enter_context(listening(self._port))
            self.charts_url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self._stack.enter_context(_told(self.environment()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def environment(self) -> dict[str, str]:
        """Return what Ray's head must find in its environment when it starts."""
        shown = self.charts_url or self.grafana_url
        return {
            "RAY_PROMETHEUS_HOST": self.prometheus_url,
            "RAY_GRAFANA_HOST": shown,
            "RAY_GRAFANA_IFRAME_HOST": os.environ.get("RAY_GRAFANA_IFRAME_HOST", shown),
        }

    def watch(self, session_dir: Path) -> None:
        """Start what is not running yet, on the session of a Ray that is there. Raises PrometheusError."""
        folder = (self._folder or session_dir / "raydex_monitoring").absolute()
        self._stack.enter_context(
            prometheus_running(folder, self._prometheus_port, session_dir / DISCOVERY_FILE, interval_s=self._interval_s)
        )
        dashboards = dashboards_folder(session_dir)
        if self.grafana_url:
            place_dashboard(dashboards)
        else:
            self._stack.enter_context(ServerThread(self._listener, create_charts(self.prometheus_url, [dashboards])))


def dashboards_folder(session_dir: Path) -> Path:
    """Return where Ray writes its dashboards, and Grafana reads them."""
    named = os.environ.get("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR")
    root = Path(os.environ.get("RAY_METRICS_OUTPUT_ROOT") or session_dir / "metrics")
    return Path(named) if named else root / "grafana" / "dashboards"


def place_dashboard(folder: Path) -> Path:
    """Write our dashboard beside Ray's; return its path. Ray empties its own folder at each start: place it after."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / OUR_FILE
    path.write_text(grafana_json(OURS))
    return path


def listening(port: int) -> socket.socket:
    """Return a socket for the chart pages on loopback; ConfigError when the port is taken."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigError(f"port {port} of {HOST} cannot be used ({error.strerror}). Choose another.") from error


@contextmanager
def _told(environment: dict[str, str]) -> Iterator[None]:
    """Set variables for what is started in the block."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class ServerThread:
    """An app on a socket, in a thread of this process, until the block ends."""

    def __init__(self, listener: socket.socket, app: Starlette) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None, access_log=False))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, name="charts")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()


def free_port() -> int:
    """Return a port that is free now: Ray's dashboard is told of it before Prometheus can start."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
