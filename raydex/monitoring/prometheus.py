"""A Prometheus of our own: its configuration, and the process, which ends with the block.

with prometheus_running(folder, port, service_discovery, interval_s=10): …

It reads Ray's service-discovery file and our rules, listens on loopback, and keeps its data in the folder.
"""

import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from raydex.errors import ConfigError, PrometheusError
from raydex.monitoring.rules import rules_text

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
START_S, STOP_S, POLL_S = 30.0, 10.0, 0.1
RULES_EVERY_S = 60
KEPT = "30d"
"""Alerts look back two weeks, the slowest error budget is that of a month."""


def find_binary() -> str:
    """Return the path of `prometheus`; ConfigError, which says what to install, when there is none."""
    found = shutil.which("prometheus")
    if not found:
        raise ConfigError(
            "--monitoring needs the program `prometheus`, which is not on the PATH. Debian's package has it: "
            "apt-get install prometheus (and systemctl disable --now prometheus: ours runs by itself)."
        )
    return found


def write_configuration(folder: Path, service_discovery: Path, *, interval_s: float) -> Path:
    """Write prometheus.yml and the rules beside it; return the path."""
    rules, configuration = folder / "raydex.rules.yml", folder / "prometheus.yml"
    folder.mkdir(parents=True, exist_ok=True)
    rules.write_text(rules_text())
    interval = f"{round(interval_s * 1000)}ms"
    document = {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": f"{round(min(RULES_EVERY_S, interval_s) * 1000)}ms",
        },
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "ray", "file_sd_configs": [{"files": [str(service_discovery)]}]}],
    }
    configuration.write_text(yaml.safe_dump(document, sort_keys=False))
    return configuration


@contextmanager
def prometheus_running(folder: Path, port: int, service_discovery: Path, *, interval_s: float) -> Iterator[str]:
    """Yield the URL of a Prometheus that is ready. Raises PrometheusError when it does not start."""
    binary = find_binary()
    configuration = write_configuration(folder, service_discovery, interval_s=interval_s)
    url = f"http://{HOST}:{port}"
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - Prometheus, without a shell
            [
                *_ends_with_us(),
                binary,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--storage.tsdb.retention.time={KEPT}",
                f"--web.listen-address={HOST}:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
    try:
        _wait_ready(process, url, folder / "prometheus.log")
        yield url
    finally:
        _stop(process)


def _ends_with_us() -> list[str]:
    """Let the kernel end it when this process is killed; where there is no setpriv, it outlives a SIGKILL."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    with httpx.Client(base_url=url, timeout=1, trust_env=False) as http:
        while time.monotonic() < deadline:
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                if _is_ready(http):
                    return
                continue
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise PrometheusError(url, f"ended at once ({' '.join(last) or f'exit {process.returncode}'})")
    raise PrometheusError(url, f"is not ready after {START_S:.0f} s; see {log}")


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").status_code == 200
    except httpx.HTTPError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        logger.warning("prometheus killed pid=%d seconds=%.0f", process.pid, STOP_S)
        process.kill()
        process.wait()
