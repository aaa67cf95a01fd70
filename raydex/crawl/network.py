"""httpx over connections that keep one time limit per request, from connect to last byte.

    network = TimedNetwork(); client = httpx.Client(transport=Transport(network)); network.start(20.0); client.get(url)

A timeout per read, as HTTP clients have it, lets a server that sends a byte every 19 seconds hold a request for days,
in the headers as well as in the body.
"""

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from raydex.errors import FetchError


class TimedNetwork(httpcore.NetworkBackend):
    """Gives each connect, read and write of a request what is left of its time: a dripping server gains nothing.

    (A timeout per read, as HTTP clients have it, lets 10 kB at one byte in 19 seconds take two days.)
    Looking up the host name is left to the system and its limits.
    """

    def __init__(self) -> None:
        self._network = httpcore.SyncBackend()
        self._ends_at = 0.0
        self.peer_closed = False

    def start(self, timeout_s: float) -> None:
        self._ends_at = time.monotonic() + timeout_s
        self.peer_closed = False

    def left_s(self) -> float:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the whole request is over")
        return left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _TimedStream(
            self._network.connect_tcp(host, port, self.left_s(), local_address, socket_options),
            self,
        )


class _TimedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, network: TimedNetwork) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, self._network.left_s())
        self._network.peer_closed = not data
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left_s())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TimedStream(
            self._stream.start_tls(ssl_context, server_hostname, self._network.left_s()),
            self._network,
        )

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Transport(httpx.BaseTransport):
    """httpx over a given network; httpx has no setting for it. Errors stay httpcore's."""

    def __init__(self, network: httpcore.NetworkBackend) -> None:
        self._pool = httpcore.ConnectionPool(ssl_context=httpx.create_ssl_context(), network_backend=network)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        response = self._pool.handle_request(httpcore.Request(request.method, url, headers=request.headers.raw))
        return httpx.Response(response.status, headers=response.headers, stream=_BodyStream(response))

    def close(self) -> None:
        self._pool.close()


class _BodyStream(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


@contextmanager
def named_failures(url: str, network: TimedNetwork) -> Iterator[None]:
    """Turn the HTTP client's errors into FetchError."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise FetchError(url, "timeout", str(error)) from error
    except httpcore.NetworkError as error:
        cause = error.__cause__ or error.__context__
        ill_tls = isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError)
        raise FetchError(url, "tls" if ill_tls else "connection", str(error)) from error
    except (httpcore.ProtocolError, httpx.InvalidURL) as error:
        raise FetchError(url, "connection" if network.peer_closed else "protocol", str(error)) from error
    except httpx.DecodingError as error:
        raise FetchError(url, "bad_encoding", str(error)) from error
