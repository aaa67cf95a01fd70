"""The anchors that generators make of headings.

    heading text → id, unique in its document

Slugs("").of("What's new in 2.0?")  →  "whats-new-in-20"
"""

import re
import unicodedata

from docutils.nodes import make_id

_VITEPRESS_SPECIAL = re.compile(r"[\s~`!@#$%^&*()\-_+=\[\]{}|\\;:\"'“”‘’<>,.?/]+")


class Slugs:
    """The ids given so far. variant: mkdocs, vitepress, myst, notebook; any other: GitHub, Docusaurus, mdBook."""

    def __init__(self, variant: str) -> None:
        self._slug, self._repeat = _VARIANTS.get(variant, (_github, "{0}-{1}"))
        self._repeats: dict[str, int] = {}
        self._numbered = 0

    def of(self, heading: str) -> str:
        slug = candidate = self._slug(heading)
        while candidate in self._repeats or not candidate:
            self._repeats[slug] = self._repeats.get(slug, 0) + 1
            self._numbered += 1
            candidate = self._repeat.format(slug, self._repeats[slug], self._numbered)
        self._repeats[candidate] = 0
        return candidate


def _github(heading: str) -> str:
    kept = (char for char in heading.strip().lower() if char in " -_" or char.isalnum() or _is_mark(char))
    return "".join(kept).replace(" ", "-")


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _mkdocs(heading: str) -> str:
    """Python-Markdown's `toc` extension: ASCII only."""
    text = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def _vitepress(heading: str) -> str:
    text = "".join(char for char in unicodedata.normalize("NFKD", heading) if not "\u0300" <= char <= "\u036f")
    slug = _VITEPRESS_SPECIAL.sub("-", text).strip("-").lower()
    return f"_{slug}" if slug[:1].isdigit() else slug


def _notebook(heading: str) -> str:
    return heading.replace(" ", "-")


_VARIANTS = {
    "mkdocs": (_mkdocs, "{0}_{1}"),
    "vitepress": (_vitepress, "{0}-{1}"),
    "myst": (make_id, "id{2}"),
    "notebook": (_notebook, "{0}-{1}"),
}
"""variant → (slug of a heading, how a repeated one is told apart: slug, its repetition, repetitions of any)."""
