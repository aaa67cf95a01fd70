"""What of the dependencies can be checked without a network: nothing comes along that constraints.txt does not pin.

Known vulnerabilities need an advisory database, which grows every day: `make audit` asks one (SECURITY.md).
"""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
TOOLS = {"pip", "setuptools"}
"""What `python -m venv` brings itself."""

REQUIREMENTS = sorted(ROOT.glob("requirements*.txt"))


def lines(path):
    """Yield what a file of requirements asks for; files that it includes are looked at by themselves."""
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", "-r")):
            yield line


def pins():
    return {
        canonicalize_name(pinned.name): str(pinned.specifier).removeprefix("==")
        for pinned in map(Requirement, lines(ROOT / "constraints.txt"))
    }


def brought_along():
    """Return name → installed version of all that our requirements need, and what these need in turn."""
    found, front = {}, [Requirement(line) for path in REQUIREMENTS for line in lines(path)]
    while front:
        requirement = front.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key not in found:
            found[key] = metadata.version(requirement.name)
            needed = map(Requirement, metadata.requires(requirement.name) or ())
            front += [one for one in needed if is_wanted(one, requirement.extras)]
    return {name: version for (name, _), version in found.items() if name not in TOOLS}


def is_wanted(requirement, extras):
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in {"", *extras})


def test_everything_that_comes_along_is_pinned_at_this_very_version():
    known, found = pins(), brought_along()
    assert len(found) > 150
    public = {name: Version(version).public for name, version in found.items()}  # torch says 2.13.0+cpu
    assert public == {name: known.get(name) for name in found}


def test_every_pin_names_one_version_and_every_requirement_is_one_of_them():
    known = pins()
    assert all(re.fullmatch(r"[0-9][0-9A-Za-z.]*", version) for version in known.values())
    for path in REQUIREMENTS:
        for requirement in map(Requirement, lines(path)):
            wanted = str(requirement.specifier).removeprefix("==")
            assert known.get(canonicalize_name(requirement.name)) == wanted, f"{path.name}: {requirement}"


def test_no_requirement_comes_from_an_address_or_another_index():
    for path in [*REQUIREMENTS, ROOT / "constraints.txt"]:
        for line in path.read_text().splitlines():
            assert not re.match(r"\s*(-[^r]|--)", line), f"{path.name}: {line}"
            assert "://" not in line.partition("#")[0], f"{path.name}: {line}"
