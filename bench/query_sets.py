"""Makes development queries of documentation sites, mechanically: queries → pages and anchors that answer them.

    python bench/query_sets.py --root / --sites SITES --sets SETS      needs the Debian packages that SITES names

For each site: SITES/<name>, what is to be crawled, and SETS/<name>.jsonl with a line of JSON for each query: id, query,
gold, kind (symbol, keywords, question), accept (other ids of the same place), accept_section (ids of the heading around
it), source:

- inventory: names that the site defines, whole or their last two parts, a flag with its command
- index: entries that people wrote for the index, with their target; the index is left out of the site
- glossary: terms that are no code
- heading: a heading as people type it: lower case, without stop words; one that begins with a verb as "how to …"
- purpose: what the first line of a manual page says that it does, as "how to …"
- faq: questions; on the site, "Question 7" stands where the question stood, and only its answer can be found

A query that two places answer equally well has both as gold, and none when there are more than three.
"""

import argparse
import json
import random
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from html import escape, unescape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.inventory import read_inventory
from bench.openings import Opening, headings_around, opening_of, openings_of

MOST_OF_A_SOURCE = 100
MOST_GOLD = 3
MAX_WORDS = 12
GENERATED = ("genindex*", "py-modindex*", "search*", "contents.html", "_modules/*", "_sources/*", "bookindex.html")


@dataclass(frozen=True)
class Site:
    """folder: below the root. leave_out, faq: globs of pages that are no part of the site, or hold questions."""

    folder: str
    leave_out: tuple[str, ...] = ()
    faq: tuple[str, ...] = ()


SITES = {
    "django": Site(
        "usr/share/doc/python-django-doc/html", leave_out=("releases/*", "internals/*"), faq=("faq/*.html",)
    ),
    "sqlalchemy": Site("usr/share/doc/python-sqlalchemy-doc/html", leave_out=("changelog/*",), faq=("faq/*.html",)),
    "git": Site("usr/share/doc/git-doc", leave_out=("RelNotes*", "*.txt", "*.gz"), faq=("gitfaq.html",)),
    "postgresql": Site(
        "usr/share/doc/postgresql-doc-15/html",
        leave_out=(
            *("release*", "catalog-*", "infoschema-*", "view-*", "ecpg*", "spi*", "source*", "nls*", "gist*", "gin*"),
            *("spgist*", "brin*", "sepgsql*", "error-*", "protocol*", "logicaldecoding*", "fdw-*", "geqo*", "regress*"),
            *("install-*", "installation*", "docguide*", "features*", "acronyms*", "plperl*", "pltcl*", "xfunc*"),
            *(
                "libpq*",
                "plpython*",
                "bki*",
                "btree*",
                "custom-*",
                "event-*",
                "jit*",
                "extend-*",
                "external-*",
                "rules*",
            ),
            *(
                "storage*",
                "typeconv*",
                "lo-*",
                "index-*",
                "indexam*",
                "planner-*",
                "parallel-*",
                "datetime-*",
                "tableam*",
            ),
            *("contrib-*", "dblink*", "pgcrypto*", "xml2*", "lo.html", "cube*", "isn*", "seg*", "test*", "xoper*"),
            *("xaggr*", "xtypes*", "xplang*", "xindex*", "plhandler*", "tcn*", "hash-*", "kerberos*"),
        ),
    ),
    "sphinx": Site("usr/share/doc/sphinx-doc/html", leave_out=("changes*",)),
}
"""python-django-doc, python-sqlalchemy-doc, git-doc, postgresql-doc-15, sphinx-doc."""

# fmt: off
STOP_WORDS = frozenset(re.findall(r"\w+",
    "a an the of for to in on with and or is are be by from as at your you it its this that how do does can i what "
    "when why which using use used vs via into about"
))
GENERIC = frozenset(re.findall(r"\w+",
    "introduction overview example examples usage notes see also options synopsis description parameters author "
    "authors reporting bugs compatibility name summary details configuration options settings installation git"
))
# fmt: on
_GERUND = re.compile(r"([a-z]{2,})ing")
_ENDS_IN_E = re.compile(r"(?:at|iz|is|ur|ag|uc|id|ut|iv|ov|us|ak|rv|os|ach|il|et|ar|in|yp|rit|bl|pl|nc|rg|ng)$")
_NO_E = re.compile(
    r"(?:edit|visit|limit|commit|submit|explain|join|contain|train|obtain|maintain|creat?in|comput?in"
    r"|test|wait|sett?|gett?|read|head|load|learn|return|start|format|debug|sett|import|export|build)$"
)
_CODE = re.compile(r"[_(){}\[\]<>=$@/\\]|::|\w\.\w|--|[a-z][A-Z]|^[A-Z_ ]+$")
_NUMBER = re.compile(r"^(?:(?:Chapter|Part|Appendix)\s+\w+\.|(?:[\dA-Z]+\.)+\d*)\s*")

Queries = Iterator[tuple[str, str, str, str]]
"""query, kind, source, gold (page#anchor)."""


def as_keywords(heading: str) -> str:
    words = re.findall(r"[\w.+#-]*\w[+#]*", heading.lower().replace("’", "'"))
    return " ".join(word for word in words if word not in STOP_WORDS)


def as_task(heading: str) -> str:
    """Return `how to create a view` for `Creating a view`; "" for a heading that begins with no gerund."""
    first, _, rest = heading.lower().rstrip(".:").partition(" ")
    match = _GERUND.fullmatch(first)
    if not match or not rest or not re.search("[aeiouy]", match[1]):
        return ""
    stem = match[1]
    if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
        stem = stem[:-1]
    elif _ENDS_IN_E.search(stem) and not _NO_E.search(stem):
        stem += "e"
    return f"how to {stem} {rest}"


class Pages:
    """The pages of a site by their path, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html"))
        self._openings: dict[str, list[Opening]] = {}

    def openings(self, path: str) -> list[Opening]:
        if path not in self._openings:
            file = self.folder / path
            self._openings[path] = openings_of(file) if file.is_file() else []
        return self._openings[path]


def copy_site(source: Path, target: Path, site: Site) -> dict[str, str]:
    """Copy the pages without what is left out; return question → page#anchor, each replaced by a number."""
    shutil.rmtree(target, ignore_errors=True)
    left_out = (*GENERATED, *site.leave_out)
    for path in sorted(source.rglob("*")):
        name = str(path.relative_to(source))
        if path.is_file() and not any(fnmatch(name, glob) for glob in left_out):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
    return hide_questions(Pages(target), site)


def hide_questions(pages: Pages, site: Site) -> dict[str, str]:
    questions: dict[str, str] = {}
    for path in (path for path in pages.paths if any(fnmatch(path, glob) for glob in site.faq)):
        for opening in pages.openings(path):
            is_question = opening.text.endswith("?") or opening.text.lower().startswith(("how ", "i’m ", "why "))
            anchor = opening.anchor or (opening.around.anchor if opening.around else "")
            if opening.level > 1 and anchor and is_question:
                questions[opening.text] = f"{path}#{anchor}"
    hidden = {re.sub(r"\W+", " ", text).strip(): f"Question {n}" for n, text in enumerate(questions, 1)}
    places = re.compile(r"(<(h[2-6]|dt|a|title)\b[^>]*>)((?:(?!</\2>).){5,600}?)(</\2>)", re.DOTALL)
    for path in pages.paths if questions else ():
        html = (pages.folder / path).read_text(encoding="utf-8", errors="replace")

        def hide(match: re.Match[str]) -> str:
            said = unescape(re.sub(r"<[^>]*>|¶", "", match[3]))
            number = hidden.get(re.sub(r"\W+", " ", said).strip())
            ids = "".join(f'<a id="{escape(found)}"></a>' for found in re.findall(r'id="([^"]*)"', match[3]))
            return f"{match[1]}{ids}{number}{match[4]}" if number else match[0]

        (pages.folder / path).write_text(places.sub(hide, html), encoding="utf-8")
    return questions


def from_inventory(pages: Pages, source: Path, rng: random.Random) -> Queries:
    """Half of the names of code whole, half as people shorten them; without an inventory, from definition lists."""
    if not (source / "objects.inv").is_file():
        yield from from_definitions(pages)
        return
    for name, role, uri in read_inventory(source / "objects.inv"):
        if "#" not in uri or role.endswith(("label", "doc", "term", "module", "parameter", "Param", "token")):
            continue
        if role.startswith("py:") and not uri.endswith(name.lstrip("_")):
            continue  # a name that the page does not say
        parts = name.split(".")
        is_shortened = role.startswith("py:") and len(parts) > 2 and rng.random() < 0.5
        if role == "std:cmdoption":
            name = re.sub(r"^(.*?)\.(-.*)$", r"\1 \2", name)
        yield ".".join(parts[-2:]) if is_shortened else name, "symbol", "inventory", uri


def from_definitions(pages: Pages) -> Queries:
    for path in pages.paths:
        command = Path(path).stem.removeprefix("app-").replace("git-", "git ", 1)
        section = ""
        for opening in pages.openings(path):
            section = opening.anchor if opening.level < 7 and opening.anchor else section
            flag = re.match(r"--?[\w-]+\w", opening.text)
            if opening.level == 7 and flag:
                yield f"{command} {flag[0]}", "symbol", "inventory", f"{path}#{opening.anchor or section}"
            elif opening.level == 7 and (name := re.match(r"([a-z]+[._][\w.]+)\b(?: \(\w+\))?$", opening.text)):
                yield name[1], "symbol", "inventory", f"{path}#{opening.anchor or section}"


def from_index(source: Path) -> Queries:
    """Entries of an index as DocBook writes it: people chose the words."""
    book = source / "bookindex.html"
    if not book.is_file():
        return
    html = book.read_text(encoding="utf-8", errors="replace")
    for token in re.findall(r"<dt[^>]*>(.*?)</dt>", html, re.DOTALL):
        term = unescape(re.sub(r"<[^>]*>", "", token.partition("<a")[0])).strip(" ,\n")
        links = re.findall(r'class="indexterm" href="([^"]+)"', token)
        is_code = bool(_CODE.search(term))
        if term and 0 < len(links) <= MOST_GOLD and not is_code and " " in term:
            yield from ((as_keywords(term), "keywords", "index", link) for link in links)


def from_glossary(pages: Pages) -> Queries:
    for path in pages.paths:
        for opening in pages.openings(path):
            is_term = any(name.lower().startswith(("term-", "def_", "glossary-")) for name in opening.ids)
            if opening.level == 7 and is_term and not _CODE.search(opening.text.strip()):
                yield (
                    as_keywords(re.sub(r"\s*\([^)]*\)", "", opening.text)),
                    "keywords",
                    "glossary",
                    (f"{path}#{opening.anchor}"),
                )


def from_headings(pages: Pages, rng: random.Random, faq: tuple[str, ...]) -> Queries:
    for path in pages.paths:
        if any(fnmatch(path, glob) for glob in faq):
            continue
        for opening in pages.openings(path):
            text = _NUMBER.sub("", opening.text)
            words = [word for word in as_keywords(text).split() if word not in GENERIC]
            if opening.level in range(1, 6) and opening.anchor and len(words) >= 2 and not _CODE.search(text):
                task = as_task(text)
                if task and rng.random() < 0.8:
                    yield task, "question", "heading", f"{path}#{opening.anchor}"
                else:
                    yield as_keywords(text), "keywords", "heading", f"{path}#{opening.anchor}"


def from_purposes(pages: Pages) -> Queries:
    """`git-log - Show commit logs` → how to show commit logs."""
    purpose = re.compile(r"<p>\s*(?:<[^>]*>)*([\w .-]{2,40}?)(?:<[^>]*>)*\s+[-—]\s+([^<]{8,120}?)\s*</p>")
    for path in pages.paths:
        html = (pages.folder / path).read_text(encoding="utf-8", errors="replace")
        found = purpose.search(html, max(0, html.find(">NAME<")))
        if found and ("git-" in path or "app-" in path or "sql-" in path):
            said = unescape(" ".join(found[2].split())).rstrip(".")
            yield f"how to {said[0].lower()}{said[1:]}", "question", "purpose", path


def resolved(pages: Pages, gold: str) -> tuple[str, list[str], list[str]] | None:
    """Return the gold, the other ids of its place and those of the heading around it; None: there is no such page."""
    path, _, anchor = gold.partition("#")
    if path not in pages.paths:
        return None
    if not anchor:
        return gold, [], []
    opening = opening_of(pages.openings(path), anchor)
    if opening is None:
        return None
    is_own = anchor in opening.ids
    others = [f"{path}#{other}" for other in (opening.ids if is_own else []) if other != anchor]
    around = headings_around(opening) if is_own else opening.ids or headings_around(opening)
    return gold, others, [f"{path}#{other}" for other in around]


def query_set(name: str, found: Queries, pages: Pages, rng: random.Random) -> list[dict[str, Any]]:
    """Merge queries that are the same, leave out the ambiguous ones and sample each source."""
    golds: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for query, kind, source, gold in found:
        if query and len(query.split()) <= MAX_WORDS:
            golds[query, kind, source][gold] = None
    by_source: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for (query, kind, source), targets in golds.items():
        places = [place for gold in targets if (place := resolved(pages, gold))]
        if not 0 < len(places) <= MOST_GOLD or len(places) < len(targets):
            continue
        row: dict[str, Any] = {"query": query, "gold": [gold for gold, _, _ in places], "kind": kind}
        row["accept"] = [other for _, others, _ in places for other in others]
        row["accept_section"] = [other for _, _, around in places for other in around]
        by_source[source].append({key: value for key, value in row.items() if value} | {"source": source})
    rows = [
        row for _, known in sorted(by_source.items()) for row in rng.sample(known, min(MOST_OF_A_SOURCE, len(known)))
    ]
    return [{"id": f"{name}-{number:04d}", **row} for number, row in enumerate(rows)]


def make(name: str, site: Site, source: Path, target: Path, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(f"{seed}{name}")
    questions = copy_site(source, target, site)
    pages = Pages(target)

    def found() -> Queries:
        yield from ((query, "question", "faq", gold) for query, gold in questions.items())
        yield from from_inventory(pages, source, rng)
        yield from from_index(source)
        yield from from_glossary(pages)
        yield from from_headings(pages, rng, site.faq)
        yield from from_purposes(pages)

    return query_set(name, found(), pages, rng)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/"), help="Where the packages are unpacked. [default: /]")
    parser.add_argument("--sites", type=Path, required=True, help="Folder for what is to be crawled.")
    parser.add_argument("--sets", type=Path, required=True, help="Folder for the queries.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.sets.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, site in SITES.items():
        if not (source := options.root / site.folder).is_dir():
            continue
        rows = make(name, site, source, options.sites / name, options.seed)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (options.sets / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        pages = sum(1 for _ in (options.sites / name).rglob("*.html"))
        sources = sorted({row["source"] for row in rows})
        made[name] = {"pages": pages} | {kind: sum(row["source"] == kind for row in rows) for kind in sources}
    print(json.dumps(made))
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
