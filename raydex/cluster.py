"""A Ray cluster to work on: the one at an address, or a local one on loopback. Both programs start here.

with ray_running(config.ray_address) as context: ray.get(task.remote())
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

LOOPBACK = "127.0.0.2" if sys.platform == "linux" else None
"""Address of a local Ray node. Ray replaces 127.0.0.1 by the machine's own address, but leaves this one."""

TOKEN_FILE = Path.home() / ".ray" / "auth_token"

OBJECT_STORE_BYTES = 256 * 2**20
"""Only receipts and requests travel; Ray's default would set aside 30 % of the machine's memory."""

OUR_CODE = tuple(str(Path(__file__).parents[1] / name) for name in ("raydex", "utils"))


@contextmanager
def ray_running(address: str, *, processors: int | None = None) -> Iterator[Any]:
    """Yield the context of ray.init: this process's own cluster if it has one, the one at the address, or a local one.

    A cluster that was there before stays. processors: of a local one, without it all of the machine.
    """
    if ray.is_initialized():
        yield ray.get_runtime_context()
        return
    with _sigterm_handler_kept():
        context = _join(address) if address else _start(processors)
    try:
        yield context
    finally:
        ray.shutdown()


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
    )
    if token_is_new and TOKEN_FILE.exists():
        TOKEN_FILE.chmod(0o600)  # Ray leaves it readable to everybody, and it lets its reader run code in the cluster
    return context
