"""A Ray cluster of two nodes on loopback, for as long as stdin is open.

    python -m tests.two_nodes [1 3]     processors of each; prints {"address": …, "raylet": pid of the second node's
                                        raylet}, then obeys: kill-gcs, start-gcs

In a process of its own: what Ray leaves behind in it (sockets, native threads) must not be there for the next tests.
"""

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


def main() -> None:
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
