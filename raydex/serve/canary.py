"""What the canary finds → raydex_canary_… figures. No Ray.

ServeConfig → golden_of, then keep_asking(config, golden, recorder), which does not end
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from raydex.config import ServeConfig
from raydex.evaluate import Golden, load_golden
from raydex.observe.canary import ANSWERED, Round, client_of, rounds
from raydex.serve.recorder import Recorder

logger = logging.getLogger(__name__)

SET_AGAIN_S = 10.0
"""Ray exports every 10 s, and forgets a gauge that was not set for two exports."""


def golden_of(config: ServeConfig) -> Golden | None:
    """Return what the canary asks; None when there is to be none. Raises ConfigError naming what is wrong."""
    golden = load_golden(config.canary_queries, "", base=config.canary_base)
    if golden:
        client_of(config)  # not only where it would be started again and again
    return golden


async def keep_asking(config: ServeConfig, golden: Golden, recorder: Recorder) -> None:
    gauges = {
        "raydex_canary_interval_seconds": config.canary_interval_s,
        "raydex_canary_least_recall": config.canary_least_recall,
    }
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_set(gauges, recorder))
        async for asked in rounds(config, golden):
            gauges["raydex_canary_recall"] = asked.recall
            gauges["raydex_canary_mrr"] = asked.mrr
            gauges["raydex_canary_last_round_timestamp_seconds"] = time.time()
            _set(gauges, recorder)
            _record(asked, recorder)


async def _keep_set(gauges: Mapping[str, float], recorder: Recorder) -> None:
    while True:
        _set(gauges, recorder)
        await asyncio.sleep(SET_AGAIN_S)


def _set(gauges: Mapping[str, float], recorder: Recorder) -> None:
    for name, value in gauges.items():
        recorder.set(name, value)


def _record(asked: Round, recorder: Recorder) -> None:
    logger.info(
        "canary round recall=%.3f mrr=%.3f answered=%d failed=%d",
        asked.recall,
        asked.mrr,
        asked.outcomes.get(ANSWERED, 0),
        sum(count for outcome, count in asked.outcomes.items() if outcome != ANSWERED),
    )
    for outcome, count in asked.outcomes.items():
        for _ in range(count):
            recorder.count("raydex_canary_queries", outcome=outcome)
    for seconds in asked.seconds:
        recorder.observe("raydex_canary_seconds", seconds)
