"""A small manual as a site, and judged queries on it: what a search is worth, without a network or 500 pages.

    with DocSite(manual()) as site: …

The manual (of a job queue that does not exist) has guides, settings, an API reference, flags and error codes in the
markup that generators make. The queries are of five kinds, and were written before any search was tried on them.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"
QUERIES = DATA / "tidewater.jsonl"
"""A query a line; answers are relative to the root of the site."""


def manual() -> dict[str, str]:
    """Return path → HTML; each page has the navigation and footer of its site around its content."""
    root = DATA / "tidewater"
    return {str(path.relative_to(root)): _page(path, root) for path in sorted(root.rglob("*.html"))}


def _page(path: Path, root: Path) -> str:
    content, up = path.read_text(encoding="utf-8"), "../" * (len(path.relative_to(root).parts) - 1)
    title = content.partition("</h1>")[0].rpartition(">")[2]
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title} — Tidewater 4.2 manual</title></head>
<body><nav class="navbar"><a href="{up}index.html">Home</a> <a href="{up}tutorial.html">Tutorial</a>
<a href="{up}guide/jobs.html">Guides</a> <a href="{up}api.html">API</a> <a href="{up}faq.html">FAQ</a></nav>
<main>
{content}</main>
<footer><p>Copyright The Tidewater authors. Built from the sources of version 4.2.</p></footer></body></html>
"""
