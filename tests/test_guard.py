"""Which addresses a crawl may connect to. Nothing connects here: the guard is asked, with a resolver of our own."""

import asyncio
from collections.abc import Sequence

import pytest

from raydex.crawl.guard import ForbiddenAddress, Guard, is_public, seed_addresses
from raydex.records import Source

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # the metadata service of most clouds
    "100.64.0.1",  # carrier-grade NAT
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "::",
    "::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",  # an IPv4 address in IPv6 clothes
    "::ffff:169.254.169.254",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
    "2001:db8::1",
]
PUBLIC = ["8.8.8.8", "151.101.0.223", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def addresses(guard: Guard, host: str) -> tuple[str, ...]:
    return asyncio.run(guard.addresses_of(host))


def source_at(*seeds: str) -> Source:
    return Source(name="docs", seeds=seeds)


def unknown(host: str) -> Sequence[str]:
    raise OSError("no such host")


@pytest.mark.parametrize("address", PRIVATE)
def test_a_host_with_an_address_that_is_not_public_is_refused(address):
    assert not is_public(address)
    with pytest.raises(ForbiddenAddress, match=r"docs\.example\.org"):
        addresses(Guard({}, lambda host: [address]), "docs.example.org")


@pytest.mark.parametrize("address", PUBLIC)
def test_a_host_of_the_open_internet_is_allowed(address):
    assert addresses(Guard({}, lambda host: [address]), "docs.example.org") == (address,)


def test_one_private_address_among_public_ones_is_enough_to_refuse_a_host():
    with pytest.raises(ForbiddenAddress):
        addresses(Guard({}, lambda host: ["8.8.8.8", "10.0.0.1"]), "docs.example.org")


def test_a_seed_may_be_private_and_keeps_the_addresses_it_had_when_the_build_began():
    pinned = seed_addresses([source_at("https://docs.corp.example/")], lambda host: ["10.0.0.7"])
    guard = Guard(pinned, lambda host: ["10.0.0.8"])
    assert addresses(guard, "docs.corp.example") == ("10.0.0.7",)
    with pytest.raises(ForbiddenAddress):
        addresses(guard, "other.corp.example")


def test_a_public_seed_that_turns_private_later_is_still_connected_to_where_it_was():
    pinned = seed_addresses([source_at("https://docs.example.org/")], lambda host: ["8.8.8.8"])
    assert addresses(Guard(pinned, lambda host: ["127.0.0.1"]), "docs.example.org") == ("8.8.8.8",)


def test_a_seed_by_name_never_leads_to_a_metadata_address_but_a_literal_one_may():
    sources = [source_at("http://innocent.example/", "http://169.254.169.254/latest/")]
    pinned = seed_addresses(sources, lambda host: ["169.254.169.254"])
    guard = Guard(pinned, unknown)
    with pytest.raises(ForbiddenAddress, match="metadata"):
        addresses(guard, "innocent.example")
    assert addresses(guard, "169.254.169.254") == ("169.254.169.254",)


def test_a_seed_that_cannot_be_looked_up_is_no_licence_for_what_it_becomes():
    pinned = seed_addresses([source_at("https://docs.example.org/")], unknown)
    with pytest.raises(ForbiddenAddress):
        addresses(Guard(pinned, lambda host: ["127.0.0.1"]), "docs.example.org")


def test_an_unknown_host_is_an_error_of_the_network_not_of_the_guard():
    with pytest.raises(OSError, match="no such host"):
        addresses(Guard({}, unknown), "nowhere.example")
    with pytest.raises(OSError, match="no address"):
        addresses(Guard({}, lambda host: []), "nowhere.example")


def test_folders_and_loaders_are_no_hosts():
    assert seed_addresses([source_at("file:///srv/docs/"), source_at("loader://notes/")], unknown) == {}
