"""What of the dependencies can be checked without a network: nothing runs here that constraints.txt does not pin.

Known vulnerabilities need an advisory database, which grows every day: `make audit` asks one (SECURITY.md).
"""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
TOOLS = {"pip", "setuptools", "wheel"}
"""What `python -m venv` and pip bring themselves."""

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


def test_everything_installed_is_pinned_at_this_very_version():
    known = pins()
    installed = {canonicalize_name(one.metadata["Name"]): one.version for one in metadata.distributions()}
    found = {name: Version(version).public for name, version in installed.items() if name not in TOOLS}
    assert found == {name: known.get(name) for name in found}  # torch calls its CPU build 2.13.0+cpu


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
