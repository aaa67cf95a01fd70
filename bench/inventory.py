"""The names of a Sphinx site: objects.inv, version 2.

path → [(name, "py:function", "library/os.html#os.open"), …]
"""

import re
import zlib
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"(.+?)\s+(\S+:\S+)\s+(-?\d+)\s+?(\S*)\s+(.*)")


class Entry(NamedTuple):
    """role: domain and kind. uri: page and anchor, relative to the site."""

    name: str
    role: str
    uri: str


def read_inventory(path: Path) -> list[Entry]:
    *_, packed = path.read_bytes().split(b"\n", 4)
    matches = filter(None, map(_LINE.match, zlib.decompress(packed).decode().splitlines()))
    return [Entry(m[1], m[2], m[4][:-1] + m[1] if m[4].endswith("$") else m[4]) for m in matches]
