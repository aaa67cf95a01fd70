"""A canary: judged queries put to a running service over HTTP, again and again, as a user puts them.

    Golden → rounds(ServeConfig, Golden) → Round, Round, …        one: ask_round(AsyncRaydexClient, Golden)

Queries go one after the other, each once: what a user would have to ask again has failed. A query without an answer
found nothing, so figures fall when the service fails, and the outcomes say that it was this.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from raydex.client import AsyncRaydexClient
from raydex.config import ServeConfig
from raydex.errors import ServiceError
from raydex.evaluate import Golden, evaluate, figures

logger = logging.getLogger(__name__)

K = 10
"""Results looked at of each query: recall@10, MRR@10."""

ANSWER_WITHIN_S = 10.0
"""As long as the service itself gives a search that names no timeout_ms."""

ANSWERED, UNASKED = "answered", "unasked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """recall, mrr: means over every query of the golden set. seconds: of each answered query, as the client saw it.

    outcomes: how many queries were answered, unreachable (no response), not_allowed (401, 403), rate_limited (429),
    refused (other 4xx), failed (5xx, or no answer that can be read) or unasked (the time of the round was over).
    """

    recall: float
    mrr: float
    seconds: tuple[float, ...]
    outcomes: Mapping[str, int]


async def rounds(config: ServeConfig, golden: Golden) -> AsyncIterator[Round]:
    """Ask a round in each interval, without end; the first when the service is ready, or has not become so in one."""
    async with client_of(config) as client:
        with suppress(ServiceError):  # which the round will tell
            await client.wait_ready(config.canary_interval_s)
        while True:
            ends = time.monotonic() + config.canary_interval_s
            yield await ask_round(client, golden, index=config.canary_index, within_s=config.canary_interval_s)
            await asyncio.sleep(ends - time.monotonic())


def client_of(config: ServeConfig) -> AsyncRaydexClient:
    """Raises ConfigError for a key that no header can hold."""
    return AsyncRaydexClient(
        config.canary_url or config.url,
        api_key=config.canary_key,
        headers={"DNT": "1"},  # what it asks is not what people look for
        attempts=1,
        timeout_s=ANSWER_WITHIN_S,
    )


async def ask_round(client: AsyncRaydexClient, golden: Golden, *, index: Sequence[str], within_s: float) -> Round:
    """Ask every query of the golden set. within_s: afterwards, no further query is begun."""
    ends = time.monotonic() + within_s
    run: dict[str, list[str]] = {}
    seconds: list[float] = []
    outcomes: Counter[str] = Counter()
    for query, text in golden.queries.items():
        started = time.monotonic()
        if started >= ends:
            outcomes[UNASKED] += 1
            continue
        try:
            answer = await client.search(text, k=K, index=index)
        except ServiceError as error:
            logger.warning("canary query failed query=%s reason=%s", query, error)
            outcomes[_outcome(error)] += 1
            continue
        seconds.append(time.monotonic() - started)
        outcomes[ANSWERED] += 1
        run[query] = [result.source for result in answer.results]
    found = figures(evaluate(golden, run, k=K))
    return Round(recall=found.recall, mrr=found.mrr, seconds=tuple(seconds), outcomes=outcomes)


def _outcome(error: ServiceError) -> str:
    if error.status == 0:
        return "unreachable"
    if error.status in {401, 403}:
        return "not_allowed"
    if error.status == 429:
        return "rate_limited"
    return "refused" if 400 <= error.status < 500 else "failed"
