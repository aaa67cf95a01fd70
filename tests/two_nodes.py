"""A Ray cluster of two nodes on loopback, for as long as stdin is open.

    python -m tests.two_nodes [1 3]     processors of each; prints {"address": …, "raylet": pid of the second node's
                                        raylet}, then obeys: kill-gcs, start-gcs

In a process of its own: what Ray leaves behind in it (sockets, native threads) must not be there for the next tests.

    with two_nodes(1, 3) as (address, raylet): …
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE: dict[str, Any] = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


@contextmanager
def two_nodes(first: int, other: int) -> Iterator[tuple[str, int]]:
    """Run them; yield the address and the raylet of the second node. Each has an address of its own on loopback."""
    command = [sys.executable, "-m", "tests.two_nodes", str(first), str(other)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        try:
            assert cluster.stdout is not None
            started = json.loads(next(line for line in cluster.stdout if line.startswith("{")))
            yield started["address"], started["raylet"]
        finally:
            cluster.communicate(timeout=60)  # closes stdin


def main() -> None:
    from ray.cluster_utils import Cluster  # 1 s, and who asks for a cluster of another process needs none of it

    first, other = map(int, sys.argv[1:] or (1, 3))
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={"num_cpus": first, "node_ip_address": "127.0.0.3", **NODE}
    )
    try:
        second = cluster.add_node(num_cpus=other, node_ip_address="127.0.0.4", **NODE)
        raylet = second.all_processes["raylet"][0].process.pid
        print(json.dumps({"address": cluster.address, "raylet": raylet}), flush=True)  # noqa: T201 - for the test that started us
        for line in sys.stdin:
            if line.strip() == "kill-gcs":
                cluster.head_node.kill_gcs_server()
            elif line.strip() == "start-gcs":
                cluster.head_node.start_gcs_server()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
