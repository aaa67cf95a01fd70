"""The page store in packs: what one machine sends, another unpacks; what changes little is sent little."""

import secrets

import pytest

from raydex.storage import pages
from raydex.storage.pages import pull_pages, push_pages
from raydex.storage.remote import Remote


@pytest.fixture
def remote():
    return Remote(f"memory://{secrets.token_hex(4)}")


def put(folder, number, body, *, build="one"):
    """Write the two files of a page, as a page store does."""
    page_id = f"{number:02x}{'0' * 30}"
    path = folder / page_id[:2] / f"{page_id}.page"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f'{{"build_id": "{build}"}}\n'.encode() + body)
    path.with_suffix(".reading").write_bytes(b"recipe\n" + body[::-1])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def packs(remote):
    return {name.rpartition("/")[2]: stat.bytes for name, stat in remote.stats("docs/packs").items()}


def bodies(count):
    return [f"page {number} ".encode() * 50 + b"\n\x00\n" for number in range(count)]


def test_pages_arrive_byte_by_byte_whatever_the_number_of_packs(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_PACK_BYTES", 2000)
    for number, body in enumerate(bodies(10)):
        put(tmp_path / "one", number, body)
    push_pages(remote, "docs", tmp_path / "one")
    assert len(packs(remote)) > 3
    pull_pages(remote, "docs", tmp_path / "two", "")
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_pages_that_were_only_looked_at_cost_one_object(remote, tmp_path):
    for build in ("one", "two"):
        for number, body in enumerate(bodies(10)):
            put(tmp_path / "one", number, body, build=build)
        push_pages(remote, "docs", tmp_path / "one")
        assert len(packs(remote)) == 1
    seen = pull_pages(remote, "docs", tmp_path / "two", "")
    assert files(tmp_path / "two") == files(tmp_path / "one")
    put(tmp_path / "two", 3, b"newer, and not sent yet")
    newer = files(tmp_path / "two")
    assert pull_pages(remote, "docs", tmp_path / "two", seen) == seen
    assert files(tmp_path / "two") == newer


def test_pack_of_which_little_is_in_use_is_packed_anew(remote, tmp_path):
    for number, body in enumerate(bodies(10)):
        put(tmp_path / "one", number, body)
    push_pages(remote, "docs", tmp_path / "one")
    (first,) = packs(remote)
    for number in range(3):
        put(tmp_path / "one", number, b"changed " * 60 + bytes([number]))
    push_pages(remote, "docs", tmp_path / "one")
    push_pages(remote, "docs", tmp_path / "one")
    assert first in packs(remote)
    assert len(packs(remote)) == 2
    for number in range(3, 8):
        put(tmp_path / "one", number, b"changed " * 60 + bytes([number]))
    push_pages(remote, "docs", tmp_path / "one")
    push_pages(remote, "docs", tmp_path / "one")  # by then nobody refers to what was changed
    assert first not in packs(remote)
    pull_pages(remote, "docs", tmp_path / "two", "")
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_page_that_is_forgotten_leaves_every_pack_and_every_mirror(remote, tmp_path):
    for number, body in enumerate(bodies(10)):
        put(tmp_path / "one", number, body)
    push_pages(remote, "docs", tmp_path / "one")
    pull_pages(remote, "docs", tmp_path / "two", "")
    for path in (tmp_path / "one" / "04").iterdir():
        path.unlink()
    push_pages(remote, "docs", tmp_path / "one", least_in_use=1.0)
    for name in remote.stats("docs"):
        found = remote.read(name)
        assert found
        assert b"page 4 " not in found.data
    pull_pages(remote, "docs", tmp_path / "two", "the version before")
    assert files(tmp_path / "two") == files(tmp_path / "one")
