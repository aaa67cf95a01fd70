"""What the canary finds → raydex_canary_… figures. No Ray.

ServeConfig → golden_of, then keep_asking(config, golden, recorder), which does not end
"""

import logging
import time

from raydex.config import ServeConfig
from raydex.evaluate import Golden, load_golden
from raydex.observe.canary import ANSWERED, Round, rounds
from raydex.serve.recorder import Recorder

logger = logging.getLogger(__name__)


def golden_of(config: ServeConfig) -> Golden | None:
    """Return what the canary asks; None when there is to be none. Raises ConfigError naming what is wrong."""
    return load_golden(config.canary_queries, "", base=config.canary_base)


async def keep_asking(config: ServeConfig, golden: Golden, recorder: Recorder) -> None:
    recorder.set("raydex_canary_interval_seconds", config.canary_interval_s)
    recorder.set("raydex_canary_least_recall", config.canary_least_recall)
    async for asked in rounds(config, golden):
        _record(asked, recorder)


def _record(asked: Round, recorder: Recorder) -> None:
    logger.info(
        "canary round recall=%.3f mrr=%.3f answered=%d failed=%d",
        asked.recall,
        asked.mrr,
        asked.outcomes.get(ANSWERED, 0),
        sum(count for outcome, count in asked.outcomes.items() if outcome != ANSWERED),
    )
    recorder.set("raydex_canary_recall", asked.recall)
    recorder.set("raydex_canary_mrr", asked.mrr)
    recorder.set("raydex_canary_last_round_timestamp_seconds", time.time())
    for outcome, count in asked.outcomes.items():
        for _ in range(count):
            recorder.count("raydex_canary_queries", outcome=outcome)
    for seconds in asked.seconds:
        recorder.observe("raydex_canary_seconds", seconds)
