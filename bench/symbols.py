"""Asks for names: is the definition of each on rank 1? Writes bench/results/symbols.json.

    python bench/symbols.py [--man /usr/share/man] [--model hash]     needs: apt-get install python3-doc mandoc man-db

500 names of the objects.inv of Python's documentation, and 200 commands and options of a site that mandoc makes of
manual pages: a third are commands, a third options with their command, a third options that only one page has. Two
builds with build_index.py, each asked over HTTP. `rank1` and `first5`: share of the names whose definition, URL#anchor
(of a command, its page), is the first result or among the first five. Ids that open the same heading or entry are the
same place. `parsed`: share of all names of the site that are the symbol or an alias of a section with that address.
"""

import argparse
import gzip
import json
import platform
import random
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.inventory import read_inventory
from bench.local import PYTHON_DOC, ROOT, served, service, unslowed
from bench.openings import TERM_LEVEL, Opening, opening_of, openings_of
from raydex.client import RaydexClient
from raydex.errors import ParseError
from raydex.parse import parse_page
from raydex.records import Source, new_page

RESULTS = ROOT / "bench" / "results" / "symbols.json"
MODEL = "all-MiniLM-L6-v2"
NAMES, MANUAL_NAMES, ASKED_FOR = 500, 200, 10
MAX_MANUAL_PAGES = 150
SITE = "http://site.test/"
DEFINITIONS = re.compile(r"py:|c:(?!functionParam)|std:(?:cmdoption|envvar|opcode|pdbcommand|2to3fixer)$")
_FLAG = re.compile(r"--?[A-Za-z0-9][\w.-]*")
MANUAL = re.findall(
    r"[\w-]+",
    "ls cp mv rm sort cut head tail wc uniq du df date stat chmod chown tar grep sed find xargs gzip curl wget ssh scp "
    "ssh-keygen rsync bash git git-log git-commit git-rebase git-clone systemctl journalctl ps top diff make kill "
    "watch free uptime id env tee tr seq split touch mkdir ln dd sum test timeout nice",
)
"""Pages of section 1 that are taken where they are installed, before any other."""


@dataclass(frozen=True)
class Name:
    """query: as people type it. places: page#anchor, or a page, each of which is right. sort: kind of name."""

    query: str
    places: frozenset[str]
    sort: str


class Places:
    """The ids of a site that open the same heading or entry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._openings: dict[str, list[Opening]] = {}

    def openings(self, page: str) -> list[Opening]:
        if page not in self._openings:
            path = self._folder / page
            self._openings[page] = openings_of(path) if path.is_file() else []
        return self._openings[page]

    def same(self, place: str) -> frozenset[str]:
        page, _, anchor = place.partition("#")
        opening = opening_of(self.openings(page), anchor) if anchor else None
        ids = opening.ids if opening and anchor in opening.ids else []
        return frozenset({place, *(f"{page}#{other}" for other in ids)})


def names_of_inventory(folder: Path) -> list[Name]:
    places, found = Places(folder), defaultdict[tuple[str, str], set[str]](set)
    for name, role, uri in read_inventory(folder / "objects.inv"):
        if DEFINITIONS.match(role) and "#" in uri and (folder / uri.partition("#")[0]).is_file():
            typed = re.sub(r"^(.*?)\.(-.*)$", r"\1 \2", name) if role == "std:cmdoption" else name
            found[typed, role].update(places.same(unquote(uri)))
    return [Name(typed, frozenset(same), role) for (typed, role), same in found.items()]


def manual_site(man: Path, folder: Path) -> None:
    """Render pages of section 1 with mandoc, and a start page that leads to them."""
    whole = (path for path in sorted((man / "man1").glob("*.1*")) if not path.is_symlink())  # nor a page a second time
    pages = {path.name.split(".1", 1)[0]: path for path in whole}
    known = [name for name in MANUAL if name in pages]
    chosen = [*known, *(name for name in pages if name not in known)][:MAX_MANUAL_PAGES]
    rendered: set[bytes] = set()
    for name in chosen:
        path = pages[name]
        source = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if source.lstrip().startswith(b".so ") or source in rendered:
            continue  # another name of a page that is there
        rendered.add(source)
        html = subprocess.run(["mandoc", "-Thtml"], input=source, stdout=subprocess.PIPE, check=False).stdout
        (folder / f"{name}.1.html").write_bytes(html)
    links = "".join(f'<li><a href="{path.name}">{path.name}</a>' for path in sorted(folder.glob("*.1.html")))
    (folder / "index.html").write_text(f"<title>Manual</title><h1>Manual</h1><p>Pages.</p><ul>{links}</ul>")


def names_of_manual(folder: Path) -> list[Name]:
    """Return commands, their options, and the options of one command alone; an option is a `dt` that begins with it."""
    names, alone = [], defaultdict[str, set[str]](set)
    for path in sorted(folder.glob("*.1.html")):
        command = path.name.removesuffix(".1.html")
        names.append(Name(command, frozenset({path.name}), "command"))
        flags, above = defaultdict[str, set[str]](set), [""]
        for opening in openings_of(path):
            above = opening.ids or above  # of an option without an id, the nearest one is its address
            if opening.level == TERM_LEVEL and opening.text.startswith("-"):
                for flag in _FLAG.findall(re.split(r"[\s=\[]", opening.text, maxsplit=1)[0].rstrip(",")):
                    flags[flag].update(f"{path.name}#{found}" for found in above)
        names += [Name(f"{command} {flag}", frozenset(found), "command and option") for flag, found in flags.items()]
        for flag, found in flags.items():
            alone[flag] |= found
    for flag, found in sorted(alone.items()):
        if len({place.partition("#")[0] for place in found}) == 1 and flag.startswith("--"):
            names.append(Name(flag, frozenset(found), "option"))
    return names


def share_parsed(folder: Path, names: Sequence[Name]) -> float:
    """Return the share of all names that a section with one of their places has as symbol or alias."""
    known = defaultdict[str, set[str]](set)
    source = Source(name="site", seeds=(SITE,))
    for page in sorted({place.partition("#")[0] for name in names for place in name.places}):
        try:
            document = parse_page(new_page(source, SITE + page, (folder / page).read_bytes(), "text/html"))
        except ParseError:
            continue
        for section in document.sections:
            place = unquote(section.url.removeprefix(SITE))
            known[place] |= {section.symbol, *section.aliases}
            known[page] |= {section.symbol, *section.aliases}
    found = sum(any(name.query in known[place] for place in name.places) for name in names)
    return found / len(names)


def sample(names: Sequence[Name], count: int, seed: int, *, sorts: bool) -> list[Name]:
    """sorts: the same number of each sort, as far as there are as many."""
    rng = random.Random(seed)
    if not sorts:
        return rng.sample(list(names), min(count, len(names)))
    by_sort = defaultdict[str, list[Name]](list)
    for name in names:
        by_sort[name.sort].append(name)
    taken: list[Name] = []
    for left, known in zip(range(len(by_sort), 0, -1), sorted(by_sort.values(), key=len), strict=True):
        taken += rng.sample(known, min(len(known), (count - len(taken)) // left))
    return taken


def build(folder: Path, index: str, data_dir: Path, model: str) -> None:
    with served(folder) as url:
        sources = data_dir / f"{index}.toml"
        sources.write_text(f'[[source]]\nname = "{index}"\nseeds = ["{url}"]\npublic_url = "{SITE}"\n')
        settings = ("--sources", str(sources), "--index", index, "--data-dir", str(data_dir), "--model", model)
        subprocess.run([sys.executable, "build_index.py", *settings], cwd=ROOT, stdout=subprocess.PIPE, check=True)


def ask(names: Sequence[Name], index: str, data_dir: Path) -> dict[str, Any]:
    ranks: dict[Name, int] = {}
    with service(index, data_dir) as address, RaydexClient(address) as client:
        for name in names:
            sources = [unquote(result.source) for result in client.search(name.query, k=ASKED_FOR).results]
            found = [place.removeprefix(SITE) for place in sources]
            right = [place in name.places or place.partition("#")[0] in name.places for place in found]
            ranks[name] = right.index(True) + 1 if any(right) else 0
    by_sort: dict[str, Any] = {}
    for sort in sorted({name.sort for name in names}):
        by_sort[sort] = _shares([rank for name, rank in ranks.items() if name.sort == sort])
    missed = [name.query for name, rank in ranks.items() if rank != 1]
    return {**_shares(list(ranks.values())), "by_sort": by_sort, "missed": missed[:20]}


def _shares(ranks: Sequence[int]) -> dict[str, float]:
    return {
        "names": len(ranks),
        "rank1": round(sum(rank == 1 for rank in ranks) / len(ranks), 4),
        "first5": round(sum(1 <= rank <= 5 for rank in ranks) / len(ranks), 4),
    }


def measure(man: Path, model: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        manual, data_dir = Path(work) / "manual", Path(work) / "checkpoints"
        manual.mkdir()
        data_dir.mkdir()
        manual_site(man, manual)
        found: dict[str, Any] = {}
        for index, folder, names, count in (
            ("manual", manual, names_of_manual(manual), MANUAL_NAMES),
            ("inventory", PYTHON_DOC, names_of_inventory(PYTHON_DOC), NAMES),
        ):
            asked = sample(names, count, seed, sorts=index == "manual")
            build(folder, index, data_dir, model)
            found[index] = {"parsed": round(share_parsed(folder, names), 4), "of": len(names)}
            found[index] |= ask(asked, index, data_dir)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--man", type=Path, default=Path("/usr/share/man"), help="Folder that holds man1.")
    parser.add_argument("--model", default=MODEL, help=f"Embedding model. [default: {MODEL}]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    unslowed()
    found = measure(options.man, options.model, options.seed)
    result = {**found, "model": options.model, "seed": options.seed, "python": platform.python_version()}
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
