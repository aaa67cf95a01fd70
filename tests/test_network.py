"""The fetcher over TLS and HTTP/2, against a real server with a certificate of its own."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from raydex.config import CrawlConfig
from raydex.crawl import Fetcher
from raydex.errors import FetchError
from raydex.records import Page, Source
from tests.docsite import DocSite, page

BODY = page("Over HTTP/2", "The first page.").encode()
BLOCK = 16_000  # below the frame size that every peer takes


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    return folder / "cert.pem", folder / "key.pem"


class H2Site:
    """Answers every path with BODY, but /reset and /goaway once with what they say, and /huge without end."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: Counter[str] = Counter()
        self.most_at_once = 0
        self.together = asyncio.Event()
        self.wanted_together = 0
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        answers: set[asyncio.Task[None]] = set()
        try:
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        headers = {bytes(name): bytes(value) for name, value in event.headers}
                        path = headers[b":path"].decode()
                        answers.add(asyncio.create_task(self._answer(connection, writer, event.stream_id, path)))
                writer.write(connection.data_to_send())
        except (ConnectionError, ssl.SSLError):
            return
        finally:
            for answer in answers:
                answer.cancel()
            writer.close()

    async def _answer(self, connection: Any, writer: asyncio.StreamWriter, stream: int, path: str) -> None:
        self.requests[path] += 1
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        if self._open >= self.wanted_together:
            self.together.set()
        await self.together.wait()
        self._open -= 1
        if self.requests[path] == 1 and path in {"/reset", "/goaway"}:
            connection.reset_stream(stream) if path == "/reset" else connection.close_connection()
        elif path == "/huge":
            await self._endless(connection, writer, stream)
        else:
            connection.send_headers(stream, [(":status", "200"), ("content-type", "text/html")])
            connection.send_data(stream, BODY, end_stream=True)
        writer.write(connection.data_to_send())

    async def _endless(self, connection: Any, writer: asyncio.StreamWriter, stream: int) -> None:
        connection.send_headers(stream, [(":status", "200"), ("content-type", "text/html")])
        while connection.local_flow_control_window(stream) >= BLOCK:
            connection.send_data(stream, bytes(BLOCK))
            writer.write(connection.data_to_send())
            await writer.drain()


@asynccontextmanager
async def h2_site(certificate: tuple[Path, Path]) -> AsyncIterator[tuple[H2Site, str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2"])
    site = H2Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=context)
    try:
        yield site, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def no_wait(seconds: float) -> None:
    """Wait for nothing."""


def fetcher_for(url: str, certificate: tuple[Path, Path], **config: Any) -> tuple[Fetcher, Source]:
    source = Source(name="docs", seeds=(url,))
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    return Fetcher(CrawlConfig(**config), [source], ssl_context=trusting, wait=no_wait), source


def test_pages_come_together_over_one_connection_where_the_server_offers_http_2(certificate):
    async def work() -> None:
        async with h2_site(certificate) as (site, url):
            fetcher, source = fetcher_for(url, certificate, per_host=4)
            async with fetcher:
                await fetcher.fetch(source, url)
                site.together.clear()
                site.wanted_together = 2
                pages = await asyncio.gather(*(fetcher.fetch(source, f"{url}{number}") for number in range(8)))
            assert all(isinstance(fetched, Page) and fetched.body == BODY for fetched in pages)
            assert site.connections == 1
            assert site.most_at_once >= 2

    asyncio.run(asyncio.wait_for(work(), timeout=30))


@pytest.mark.parametrize("path", ["reset", "goaway"])
def test_a_stream_or_connection_that_the_server_ends_is_tried_again(certificate, path):
    async def work() -> None:
        async with h2_site(certificate) as (site, url):
            fetcher, source = fetcher_for(url, certificate)
            async with fetcher:
                fetched = await fetcher.fetch(source, url + path)
            assert isinstance(fetched, Page)
            assert site.requests[f"/{path}"] == 2

    asyncio.run(asyncio.wait_for(work(), timeout=30))


def test_a_body_without_end_is_cut_off_and_does_not_hold_up_the_next_page(certificate):
    async def work() -> None:
        async with h2_site(certificate) as (_, url):
            fetcher, source = fetcher_for(url, certificate, max_body_bytes=50_000)
            async with fetcher:
                with pytest.raises(FetchError) as caught:
                    await fetcher.fetch(source, f"{url}huge")
                assert caught.value.reason == "too_large"
                assert isinstance(await fetcher.fetch(source, url), Page)

    asyncio.run(asyncio.wait_for(work(), timeout=30))


def test_a_certificate_that_nobody_vouches_for_is_a_tls_failure_and_not_tried_again(certificate):
    async def work() -> None:
        async with h2_site(certificate) as (site, url):
            source = Source(name="docs", seeds=(url,))
            async with Fetcher(CrawlConfig(), [source], wait=no_wait) as fetcher:
                with pytest.raises(FetchError) as caught:
                    await fetcher.fetch(source, url)
            assert caught.value.reason == "tls"
            assert not site.requests

    asyncio.run(asyncio.wait_for(work(), timeout=30))


def test_a_kept_connection_that_the_server_has_closed_costs_no_page():
    async def work() -> None:
        with DocSite({"index.html": page("Home", "The first page.")}) as site:
            source = Source(name="docs", seeds=(site.url,))
            async with Fetcher(CrawlConfig(attempts=1), [source], wait=no_wait) as fetcher:
                await fetcher.fetch(source, site.url)
                site.hang_up()
                assert isinstance(await fetcher.fetch(source, site.url), Page)
            assert site.connections_made == 2

    asyncio.run(asyncio.wait_for(work(), timeout=30))
