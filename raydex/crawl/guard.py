"""Which addresses a crawl may connect to: public ones, and those of the hosts that the user gave as seeds.

    sources → seed_addresses → Guard;  host → checked addresses, or ForbiddenAddress

Whoever writes a page chooses its links and redirects, and answers for its DNS: without a guard a crawl could be led to
the machines behind the firewall, or to a cloud's metadata service.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from raydex.records import Source
from utils.urls import canonical_url

SeedAddresses = Mapping[str, tuple[str, ...]]
"""Host of a seed → the addresses that it had when the build began; () when it may not be connected to."""
Resolve = Callable[[str], Sequence[str]]
"""Host → its addresses. Raises OSError."""

UNICAST, NAT64 = IPv6Network("2000::/3"), IPv6Network("64:ff9b::/96")
METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"})
"""Where clouds tell a machine its secrets (AWS, Azure, Google and others; AWS and Google by IPv6; Alibaba; Azure)."""


class ForbiddenAddress(Exception):
    """A host has an address that a crawl may not connect to."""


def resolve(host: str) -> tuple[str, ...]:
    """Ask the system for the addresses of a host, in the order to try them."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that no name can have
        raise OSError(f"{host!r} is no host name") from error
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def seed_addresses(sources: Sequence[Source], resolve: Resolve = resolve) -> SeedAddresses:
    """Look up the hosts of all seeds, once for a build: what the DNS says later widens nothing.

    A name (not a literal address) that leads to a link-local or metadata address is given no address. One that cannot
    be looked up is left out: it may be connected to later, where any host of the web may.
    """
    seeds = (canonical_url(seed) for source in sources for seed in source.seeds)
    pinned: dict[str, tuple[str, ...]] = {}
    for host in dict.fromkeys(urlsplit(seed).hostname or "" for seed in seeds if seed):
        try:
            addresses = tuple(resolve(host))
        except OSError:
            continue
        is_safe = _is_literal(host) or not any(_is_metadata(address) for address in addresses)
        pinned[host] = addresses if is_safe else ()
    return pinned


class Guard:
    """Gives the addresses to connect to; nothing else may be looked up on the way to the socket."""

    def __init__(self, seeds: SeedAddresses, resolve: Resolve = resolve) -> None:
        self._seeds, self._resolve = seeds, resolve

    async def addresses_of(self, host: str) -> tuple[str, ...]:
        """Return at least one address. Raises ForbiddenAddress; OSError when the host is unknown."""
        if pinned := self._seeds.get(host):
            return pinned
        if pinned is not None:
            raise ForbiddenAddress(f"{host} leads to a link-local or metadata address")
        addresses = tuple(await asyncio.to_thread(self._resolve, host))
        if not addresses:
            raise OSError(f"{host} has no address")
        for address in addresses:
            if not is_public(address):
                raise ForbiddenAddress(f"{host} has the address {address}, which is not public, and is no seed")
        return addresses


def is_public(address: str) -> bool:
    """Tell whether an address is one of the open internet, whatever form it is written in."""
    ip = _plain(address)
    if isinstance(ip, IPv6Address):
        return ip in UNICAST and ip.is_global and (ip.sixtofour is None or is_public(str(ip.sixtofour)))
    return ip.is_global and not ip.is_multicast and str(ip) not in METADATA


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Return an IPv4 address that stands in an IPv6 one (mapped, or NAT64) as itself."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip in NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def _is_metadata(address: str) -> bool:
    ip = _plain(address)
    return ip.is_link_local or str(ip) in METADATA


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
