"""Kills real builds at random points, runs the same command again, and says what that cost. About 15 minutes.

    python bench/kill.py [--kills 50] [--seed 4]        a real site, Ray, stores and shards; the fake embedder

By turns the driver, a worker, an embedder, a fetcher and the raylet get SIGKILL, after so many pages, vectors or
shards, and up to 0.3 s later. Each round begins with a live snapshot of an older, smaller site. A round is well when
the last run publishes the content_digest of an uninterrupted build, the live snapshot verified all the time, no stored
chunk was embedded again, no finished shard written again, no page asked for again but those under way (4 units of 2),
and nothing was left running. The last line is one JSON object, also written to bench/results/kill.json.
"""

import argparse
import json
import os
import platform
import secrets
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# before a build starts: every process of Ray must agree on mode and token
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

from tests.docsite import DocSite
from tests.kills import Kills, Round, random_kills

RESULTS = Path(__file__).parent / "results" / "kill.json"


def line(number: int, done: Round, faults: list[str]) -> str:
    kill = done.kill
    point = f"{kill.stage} {kill.count or ''}".ljust(12) + f"+{kill.late_s:.2f} s"
    ended = "went on by itself" if done.survived else f"exit {done.first_exit:4d}, resumed"
    ended = "had ended before" if done.missed else ended
    cost = f"twice: {done.pages_twice:2d} pages, {done.chunks_twice} chunks, {done.shards_twice} shards"
    return f"{number:3d}  {kill.victim:9s} {point:20s} {ended:22s} {cost}  {done.seconds:5.1f} s  {faults or 'well'}"


def summary(rounds: list[Round], faults: list[list[str]], seed: int) -> dict[str, Any]:
    return {
        "kills": len(rounds),
        "seed": seed,
        "faulty": sum(map(bool, faults)),
        "faults": dict(Counter(fault for found in faults for fault in found)),
        "missed": sum(done.missed for done in rounds),
        "survived": sum(done.survived for done in rounds),
        "resumed": sum(not done.survived for done in rounds),
        "by_victim": dict(Counter(done.kill.victim for done in rounds)),
        "pages_twice": sum(done.pages_twice for done in rounds),
        "most_pages_twice": max(done.pages_twice for done in rounds),
        "chunks_twice": sum(done.chunks_twice for done in rounds),
        "shards_twice": sum(done.shards_twice for done in rounds),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="How many builds to kill. [default: 50]")
    parser.add_argument("--seed", type=int, default=4, help="Which points. [default: 4]")
    parser.add_argument("--only", type=int, help="Do this round alone.")
    options = parser.parse_args()
    rounds, faults = [], []
    with DocSite() as site, tempfile.TemporaryDirectory(prefix="raydex-kill-") as folder:
        kills = Kills(site, Path(folder))
        for number, kill in enumerate(random_kills(options.kills, options.seed), start=1):
            if options.only in {None, number}:
                rounds.append(kills.round(kill))
                faults.append(rounds[-1].faults(kills.digest))
                print(line(number, rounds[-1], faults[-1]), flush=True)
        left = kills.left_running()
    result = summary(rounds, faults, options.seed) | {"left_running": left}
    if options.only is None:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 1 if result["faulty"] or left else 0


if __name__ == "__main__":
    sys.exit(main())
