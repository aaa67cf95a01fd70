"""How often a key may ask: rates and quotas, counted in Redis for all replicas, or in this process for this replica.

    meter = Meter(config.access, recorder)
    await meter.count(key)  →  Standing(headers, error)     error: a RateLimited to answer with, or None

A rate (`20/second`) slides, so that no burst fits over the border of two windows; a quota (`10000/day`) is a window
that begins with its first request. While Redis does not answer, each replica counts for itself, so that a limit
becomes at most as many times larger as there are replicas; a counter and the log say so.
The headers are those of draft-ietf-httpapi-ratelimit-headers-10: RateLimit-Policy and RateLimit.
"""

import logging
import math
import time
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError

from raydex.config import AccessConfig
from raydex.errors import ConfigError, RateLimited
from raydex.keys import Key
from raydex.serve.recorder import Recorder

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

REDIS_TIMEOUT_S, REDIS_AGAIN_S = 0.25, 5.0
"""How long one answer of Redis is waited for; how long it is left alone when it gave none."""

parsed = lru_cache(maxsize=1024)(parse)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller is told of its limits. error: set when it has asked too often."""

    headers: Headers
    error: RateLimited | None = None


UNLIMITED = Standing([])


class Counters:
    """Both strategies over one storage."""

    def __init__(self, storage: Storage) -> None:
        self.strategies: dict[str, RateLimiter] = {
            "rate": SlidingWindowCounterRateLimiter(storage),
            "quota": FixedWindowRateLimiter(storage),
        }

    async def count(self, key_id: str, limits: dict[str, str], cost: int) -> Standing:
        """Count for each limit in turn, up to the first that refuses."""
        policies, remainders, error = [], [], None
        for name, text in limits.items():
            strategy, item = self.strategies[name], parsed(text)
            taken = min(cost, item.amount)  # a batch larger than the limit takes all of it, instead of never passing
            is_allowed = error is None and await strategy.hit(item, name, key_id, cost=taken)
            stats = await strategy.get_window_stats(item, name, key_id)
            reset_s = max(0.0, stats.reset_time - time.time())
            if error is None and not is_allowed:
                error = RateLimited(text, max(1, math.ceil(reset_s)))
            policies.append(_policy(name, item))
            remainders.append(f'"{name}";r={max(0, stats.remaining)};t={math.ceil(reset_s)}')
        headers = [
            (b"ratelimit-policy", ", ".join(policies).encode()),
            (b"ratelimit", ", ".join(remainders).encode()),
        ]
        return Standing(headers, error)


class Meter:
    """Counts the requests of each key; those of callers without one together."""

    def __init__(self, access: AccessConfig, recorder: Recorder) -> None:
        """Raises ConfigError when there is a Redis to use and no client for it."""
        self._default = {"rate": access.default_rate, "quota": access.default_quota}
        self._recorder = recorder
        self._own = Counters(MemoryStorage())
        self._shared = Counters(_redis(access.redis_url)) if access.redis_url else None
        self._shared_from = 0.0

    async def count(self, key: Key, cost: int = 1) -> Standing:
        rate, quota = key.rate or self._default["rate"], key.quota or self._default["quota"]
        if not rate and not quota:
            return UNLIMITED
        limits = {name: text for name, text in (("rate", rate), ("quota", quota)) if text}
        shared = await self._count_together(self._shared, key.key_id, limits, cost) if self._shared else None
        return shared or await self._own.count(key.key_id, limits, cost)

    async def _count_together(self, redis: Counters, key_id: str, limits: dict[str, str], cost: int) -> Standing | None:
        """Return what Redis says; None while it is left alone, or when it did not answer."""
        was_away, now = self._shared_from > 0, time.monotonic()
        if now < self._shared_from:
            return None
        if was_away:
            self._shared_from = now + REDIS_AGAIN_S  # one request tries it, the others do not wait for it
        try:
            standing = await redis.count(key_id, limits, cost)
        except StorageError as error:
            self._shared_from = time.monotonic() + REDIS_AGAIN_S
            self._recorder.count("raydex_limiter_failures")
            reason = type(error.storage_error).__name__  # its text may name the user
            logger.warning("Redis does not answer, each replica counts rates for itself reason=%s", reason)
            return None
        if was_away:
            self._shared_from = 0.0
            logger.warning("Redis answers again, rates are counted for all replicas")
        return standing


def check_redis(access: AccessConfig) -> None:
    """Raise what Meter would, before anything is started."""
    if access.redis_url:
        _redis(access.redis_url)


def _redis(url: str) -> RedisStorage:
    try:
        from redis.asyncio.retry import Retry  # not everybody has it: requirements-redis.txt
        from redis.backoff import NoBackoff

        if "://" not in url:
            raise ValueError("no scheme")  # which limits does not miss
        return RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="raydex",
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]  # passed on to redis-py as it is
        )
    except ImportError as error:
        raise ConfigError("redis_url: Redis is set, its client is not installed; see requirements-redis.txt") from error
    except (ConfigurationError, ValueError) as error:  # never the URL: it may hold a password
        raise ConfigError("redis_url: not a URL such as redis://:password@host:6379/0") from error


@lru_cache(maxsize=1024)
def _policy(name: str, item: RateLimitItem) -> str:
    return f'"{name}";q={item.amount};w={item.get_expiry()}'
