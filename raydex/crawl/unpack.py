"""Unpack a body while it arrives, a little at a time: a small input must not become gigabytes in one call.

    Content-Encoding, packed blocks → unpacked("gzip", blocks) → blocks of a bounded size

httpx's own decoders hand out whatever one read of 64 KiB unpacks to: 66 MB from gzip, 2 GB from zstd.
"""

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from typing import Protocol

import brotli
import httpx
import zstandard

ACCEPTED = "gzip, deflate, br, zstd"
STEP = 64 * 1024
"""Most bytes of one block (zstd: 2 MiB)."""
ZSTD_INPUT = 64
"""Bytes given to zstd at once, which has no limit on output: 4 bytes of input make 128 KiB at most."""
ZSTD_WINDOW = 8 * 2**20  # the most that RFC 9659 lets a server ask for
RAW, ZLIB, GZIP = -zlib.MAX_WBITS, zlib.MAX_WBITS, 16 + zlib.MAX_WBITS


class Unpacker(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    @property
    def is_complete(self) -> bool: ...


class _Plain:
    is_complete = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data


class _Gzip:
    """One member after the other, as RFC 1952 allows; what is no member behind the first is dropped."""

    def __init__(self, format_: int = GZIP) -> None:
        self._format, self._stream = format_, zlib.decompressobj(format_)

    @property
    def is_complete(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        is_more = False
        while data or is_more:
            if self._stream.eof:
                if self._format != GZIP or not data.startswith(b"\x1f"):
                    return
                self._stream = zlib.decompressobj(self._format)
            block = self._stream.decompress(data, STEP)
            is_more = len(block) == STEP and not self._stream.eof  # some may wait inside, all input taken
            data = self._stream.unconsumed_tail or self._stream.unused_data
            yield block


class _Deflate:
    """`deflate` is zlib's format, but some servers send the bare one: the first two bytes tell."""

    def __init__(self) -> None:
        self._head, self._inner = b"", _Gzip(ZLIB)

    @property
    def is_complete(self) -> bool:
        return self._inner.is_complete

    def feed(self, data: bytes) -> Iterator[bytes]:
        if len(self._head) < 2:
            self._head = data = self._head + data
            if len(data) < 2:
                return
            is_zlib = data[0] & 15 == zlib.DEFLATED and int.from_bytes(data[:2]) % 31 == 0
            self._inner = _Gzip(ZLIB if is_zlib else RAW)
        yield from self._inner.feed(data)


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def is_complete(self) -> bool:
        return bool(self._stream.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        block = self._stream.process(data, output_buffer_limit=STEP)
        while block or not self._stream.can_accept_more_data():  # some may wait inside, all input taken
            yield block
            block = self._stream.process(b"", output_buffer_limit=STEP)


class _Zstd:
    """One frame after the other, as RFC 8878 allows."""

    def __init__(self) -> None:
        self._unpacking = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame = self._unpacking.decompressobj(write_size=STEP)

    @property
    def is_complete(self) -> bool:
        return self._frame.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), ZSTD_INPUT):
            piece = data[start : start + ZSTD_INPUT]
            while piece:
                if self._frame.eof:
                    self._frame = self._unpacking.decompressobj(write_size=STEP)
                yield self._frame.decompress(piece)
                piece = self._frame.unused_data


_UNPACKERS: dict[str, Callable[[], Unpacker]] = {
    "": _Plain, "identity": _Plain, "gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate, "br": _Brotli, "zstd": _Zstd,
}  # fmt: skip


async def unpacked(encoding: str, blocks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the body that the blocks are the packed form of. Raises httpx.DecodingError.

    encoding: the Content-Encoding; one at most, for a body packed twice grows a millionfold.
    """
    make = _UNPACKERS.get(encoding.strip().lower())
    if make is None:
        raise httpx.DecodingError(f"Content-Encoding: {encoding}")
    unpacker, is_empty = make(), True
    try:
        async for block in blocks:
            is_empty = is_empty and not block
            for part in unpacker.feed(block):
                yield part
    except (zlib.error, brotli.error, zstandard.ZstdError) as error:
        raise httpx.DecodingError(f"{encoding}: {error}") from error
    if not (unpacker.is_complete or is_empty):
        raise httpx.DecodingError(f"{encoding}: the body ends too early")
