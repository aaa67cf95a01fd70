"""A Ray cluster to work on: the one at an address, or a local one on loopback. Both programs start here.

with ray_running(config.ray_address) as context: ray.get(task.remote())
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from raydex.errors import ClusterLost

LOOPBACK = "127.0.0.2" if sys.platform == "linux" else None
"""Address of a local Ray node. Ray replaces 127.0.0.1 by the machine's own address, but leaves this one."""

TOKEN_FILE = Path.home() / ".ray" / "auth_token"

OBJECT_STORE_BYTES = 256 * 2**20
"""Only receipts and requests travel; Ray's default would set aside 30 % of the machine's memory."""

PROBE_EVERY_S, PROBE_TIMEOUT_S = 1.0, 0.5
GCS_PATIENCE_S, UNWIND_S = 20.0, 10.0
"""A cluster may start its GCS again; then a build has this long to end in order. After 60 s Ray ends it, silently."""

WORKER_DEATHS_NOTICED = {"prestart_worker_first_driver": False, "worker_register_timeout_seconds": 30}
"""Else ray.init() waits for a worker of each processor, for ever when one of them dies while it starts; and one that
dies so later is missed after 60 s only."""

OUR_CODE = tuple(str(Path(__file__).parents[1] / name) for name in ("raydex", "utils"))


@contextmanager
def ray_running(address: str, *, processors: int | None = None, watched: bool = False) -> Iterator[Any]:
    """Yield the context of ray.init: this process's own cluster if it has one, the one at the address, or a local one.

    A cluster that was there before stays. processors: of a local one, without it all of the machine. watched: when the
    cluster is gone, check_cluster() raises (a service goes on answering without a GCS, a build cannot).
    """
    if ray.is_initialized():
        yield ray.get_runtime_context()
        return
    with _sigterm_handler_kept():
        context = _join(address) if address else _start(processors)
    _watched[:] = [Pulse(context.address_info)] if watched else []
    try:
        yield context
    finally:
        ray.shutdown()
        for pulse in _watched:
            pulse.stop()
        _watched.clear()


class Pulse:
    """Looks every second whether the two processes that a driver cannot work without are there: its raylet, the GCS.

    When one is gone, calls of Ray wait for a while, and then Ray ends the process on the C++ side: no `except` and no
    `finally` would run, and nobody would be told how to go on. check() raises before; where the main thread never gets
    to it, the thread of this object says the same and ends the process.
    """

    def __init__(self, address_info: Mapping[str, Any]) -> None:
        self._raylet: str = address_info["raylet_socket_name"]
        host, _, port = address_info["gcs_address"].rpartition(":")
        self._gcs = (host.strip("[]"), int(port))
        self._gcs_seen = time.monotonic()
        self._lost: ClusterLost | None = None
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="pulse", daemon=True).start()

    def check(self) -> None:
        if self._lost:
            raise self._lost

    def stop(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._lost:
            if self._over.wait(PROBE_EVERY_S):
                return
            self._lost = self._look()
        if not self._over.wait(UNWIND_S):
            print(f"error: {self._lost}", file=sys.stderr, flush=True)  # noqa: T201 - nobody else can say it any more
            os._exit(1)

    def _look(self) -> ClusterLost | None:
        if not _answers(socket.AF_UNIX, self._raylet):
            return ClusterLost("raylet", self._raylet)
        if _answers(socket.AF_INET6 if ":" in self._gcs[0] else socket.AF_INET, self._gcs):
            self._gcs_seen = time.monotonic()
        elif time.monotonic() - self._gcs_seen > GCS_PATIENCE_S:
            return ClusterLost("GCS", "{}:{}".format(*self._gcs))
        return None


_watched: list[Pulse] = []  # a process has one Ray at most; empty while it works on one that it did not start or join


def check_cluster() -> None:
    """Raise ClusterLost when the Ray that ray_running() gave this process is gone."""
    for pulse in _watched:
        pulse.check()


def _answers(family: int, address: Any) -> bool:
    with socket.socket(family) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # busy, not gone
    return True


@contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Put the caller's handler back: Ray's own ends the cluster under a driver that waits for it, which then aborts."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _join(address: str) -> Any:
    return ray.init(
        address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"py_modules": list(OUR_CODE)}
    )


def _start(processors: int | None) -> Any:
    token_is_new = not TOKEN_FILE.exists()
    context = ray.init(
        "local",
        num_cpus=processors,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address=LOOPBACK,
        _system_config=WORKER_DEATHS_NOTICED,
    )
    if token_is_new and TOKEN_FILE.exists():
        TOKEN_FILE.chmod(0o600)  # Ray leaves it readable to everybody, and it lets its reader run code in the cluster
    return context
