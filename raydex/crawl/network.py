"""Connections that lead only where the guard lets them, and stay open from one request to the next.

Guard → GuardedNetwork → Connections (of one origin);  httpx.Request → httpx.Response, its body unpacked
"""

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import h2.exceptions
import httpcore
import httpx

from raydex.crawl.guard import ForbiddenAddress, Guard
from raydex.crawl.unpack import unpacked
from raydex.errors import FetchError

KEEP_S = 30.0  # a connection without a request; servers keep theirs for 5 to 75 s
NEXT_ADDRESS_S = 3.0  # before the next address of a host is tried
REST, REST_S = 64 * 1024, 1.0  # what an unwanted body may cost, in bytes and seconds
HUNG_UP = ("disconnected", "peer closed", "StreamReset", "ConnectionTerminated")
"""What httpcore and h11 say when it was the other side that ended the exchange; they have no type for it."""

logging.getLogger("hpack").setLevel(logging.INFO)  # its debug lines hold every header, credentials included


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that the guard has checked, never to a name."""

    def __init__(self, guard: Guard, network: httpcore.AsyncNetworkBackend) -> None:
        self._guard, self._network = guard, network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            *others, last = await self._guard.addresses_of(host)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error}") from error
        for address in others:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(address, port, NEXT_ADDRESS_S, local_address, socket_options)
        return await self._network.connect_tcp(last, port, timeout, local_address, socket_options)


class Connections:
    """The connections to one origin, over HTTP/2 where the server offers it. most: open at once, under HTTP/1.1."""

    def __init__(self, ssl_context: ssl.SSLContext, network: httpcore.AsyncNetworkBackend, most: int) -> None:
        self._ssl_context, self._network, self._most = ssl_context, network, most
        self._pool = self._new_pool()
        self._users: Counter[httpcore.AsyncConnectionPool] = Counter()
        self._multiplexed = False

    @asynccontextmanager
    async def answer(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """Send the request; the body is there to be read until the block ends. Content-Encoding is taken care of."""
        pool, rest = self._pool, True
        self._users[pool] += 1
        try:
            response = await pool.handle_async_request(_core_request(request))
            self._multiplexed = response.extensions["http_version"] == b"HTTP/2"
            body = _Body(response)
            try:
                yield httpx.Response(response.status, headers=body.headers, stream=body, request=request)
            finally:
                rest = not await body.is_read()
                await response.aclose()
        finally:
            self._users[pool] -= 1
            if rest and self._multiplexed and pool is self._pool:
                self._pool = self._new_pool()
            if pool is not self._pool and not self._users[pool]:
                del self._users[pool]
                await pool.aclose()

    async def aclose(self) -> None:
        for pool in {self._pool, *self._users}:
            await pool.aclose()

    def _new_pool(self) -> httpcore.AsyncConnectionPool:
        """Return a pool that knows no connection.

        A response that is left in the middle goes on under HTTP/2, up to 16 MiB of it, and blocks the connection for
        the others; httpcore cannot stop it. So no new request is sent over such a connection.
        """
        return httpcore.AsyncConnectionPool(
            ssl_context=self._ssl_context,
            http2=True,
            max_connections=self._most,
            keepalive_expiry=KEEP_S,
            network_backend=self._network,
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response, self._started, self._ended = response, False, False
        self.headers = httpx.Headers(response.headers)
        self._encoding = self.headers.pop("Content-Encoding", "")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._started = True
        async for block in unpacked(self._encoding, self._response.aiter_stream()):
            yield block
        self._ended = True

    async def is_read(self) -> bool:
        """Tell whether nothing is to come; a short body that nobody wanted is read, for the connection's sake."""
        length = self.headers.get("Content-Length", "")
        is_short = self._response.status == httpx.codes.NOT_MODIFIED or (length.isdecimal() and int(length) <= REST)
        if is_short and not self._started:
            with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
                async with asyncio.timeout(REST_S):
                    async for _ in self._response.aiter_stream():
                        pass
                self._ended = True
        return self._ended


def _core_request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    where = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    return httpcore.Request(request.method, where, headers=request.headers.raw)


@contextmanager
def named_failures(url: str) -> Iterator[None]:
    """Turn the errors of the libraries below into FetchError."""
    try:
        yield
    except ForbiddenAddress as error:
        raise FetchError(url, "forbidden_address", str(error)) from error
    except (TimeoutError, httpcore.TimeoutException) as error:
        raise FetchError(url, "timeout", str(error)) from error
    except httpcore.NetworkError as error:
        cause = error.__cause__ or error.__context__
        ill_tls = isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError)
        raise FetchError(url, "tls" if ill_tls else "connection", str(error)) from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, h2.exceptions.H2Error, httpx.InvalidURL) as error:
        hung_up = any(words in str(error) for words in HUNG_UP)
        raise FetchError(url, "connection" if hung_up else "protocol", str(error)) from error
    except httpx.DecodingError as error:
        raise FetchError(url, "bad_encoding", str(error)) from error
