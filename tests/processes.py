"""What runs on this machine, seen from outside: processes, ports, and the metrics they export."""

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def descendants(pid: int) -> set[int]:
    """Return the processes below this one, from /proc."""
    children: dict[int, set[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        children.setdefault(int(fields[1]), set()).add(int(path.parent.name))
    below, front = set(), {pid}
    while front:
        front = {child for parent in front for child in children.get(parent, ())}
        below |= front
    return below


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def command_line(pid: int) -> str:
    """Return the command line of a process; Ray's workers write there what they do. Empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def scrape(service_discovery: Path) -> dict[str, Metric]:
    """Return every metric family that Prometheus would read from this cluster; an exporter may still be starting."""
    targets = [target for group in json.loads(service_discovery.read_text()) for target in group["targets"]]
    families: dict[str, Metric] = {}
    for target in targets:
        try:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as response:
                text = response.read().decode()
        except urllib.error.URLError:
            continue
        families |= {family.name: family for family in text_string_to_metric_families(text)}
    return families
