"""Tell the version and the language of a page: by what it says, else by its URL.

    (tree, metas) → version, language        URL → (language, version)        pure, no I/O

Claims are checked for form (a version has a digit, a language is in ISO 639-1), since templates leave `None`,
`{{ lang }}` and `v$VERSION` behind. Of a URL only folders count, and only where no other reading is likely:
`/de/3.11/`, `/docs/v2.1.0/`, `/zh_CN/`, but not `/api/v1/`, `/release-notes/3.11/`, `/go/` or `/as-is/`.
"""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborHTMLParser

MAX_SCRIPT_CHARS = 100_000  # beyond it an inline script is data

_VERSION_METAS = (
    "docsearch:version",
    "readthedocs-version-slug",
    "readthedocs-version",
    "docbook-version",
    "doc-version",
    "docs-version",
    "product-version",
    "version",
)
_VERSION_LABELS = (
    ".md-version__current, .wy-side-nav-search > .version, .sidebar-crate .version, .sidebar .block .version"
)
"""What Material for MkDocs, Read the Docs and rustdoc show beside the name of the project."""
_SPHINX_OPTIONS = re.compile(r"DOCUMENTATION_OPTIONS\b[^;]{0,300}?\bVERSION\s*:\s*['\"]([^'\"]*)")
_SPHINX_TITLE = re.compile(r"[—–-]\s[^—–]*?\b(v?\d+\.[\w.+-]*)\s+documentation$", re.IGNORECASE)

_VERSION = re.compile(r"v?(\d[\w.+~-]{0,30})", re.IGNORECASE)
_MOVING_VERSIONS = frozenset({"stable", "latest", "nightly"})
_BRANCHES = frozenset({"current", "main", "master", "dev", "devel", "develop", "next", "edge", "unstable", "trunk"})
"""Versions only where a path says the language right before: `/dev/` alone may be for developers."""
_PATH_VERSION = re.compile(
    r"(?:release-|version-)?v?(\d{1,4}(?:\.(?:\d{1,4}|x)){1,3}(?:[-.]?(?:a|b|rc|alpha|beta|dev)\.?\d*)?)"
)
_PATH_NUMBER = re.compile(r"v?(\d{1,3})")
_ABOUT_VERSIONS = re.compile(r"release|change|whatsnew|what-s-new|news|migrat|upgrad|^(?:rest-?)?apis?$", re.IGNORECASE)
"""The folder above a number that is the subject of its pages, not their version."""
_DOCS_FOLDERS = frozenset({"doc", "docs", "documentation", "manual", "reference", "guide"})

_ISO_639_1 = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv "
    "ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne "
    "ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st "
    "su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
_ALSO_WORDS = (
    "am an ar as be bi bm br ce ch co cs cv ee el he hi ho id ie ii io is it la li ln lo mi ml my na no ng or os pa pi "
    "ps sc se si so ss st ta te ti tk to ts tt ug ve vi vo za"
)
_LANGUAGES = frozenset(_ISO_639_1.split())
_WORDS = frozenset(_ALSO_WORDS.split())
"""Languages that are words, commands or abbreviations as well: in a path they count only right before a version."""
_LANGUAGE_TAG = re.compile(
    r"([a-z]{2,3})(?:[-_]([a-z]{4}))?(?:[-_]([a-z]{2}|\d{3}))?(?:[-_][a-z0-9]{5,8})*(?:[.@].*)?", re.IGNORECASE
)


def version_of(tree: LexborHTMLParser, metas: Mapping[str, str]) -> str:
    """Return the version that the page says it describes, without a leading v; "" when it does not say."""
    return next(filter(None, map(_normal_version, _version_claims(tree, metas))), "")


def language_of(tree: LexborHTMLParser, metas: Mapping[str, str]) -> str:
    """Return the language that the page says it is in, as BCP 47; "" when it does not say."""
    root = tree.root.attributes if tree.root else {}
    claims = (
        root.get("lang") or root.get("xml:lang") or "",
        metas.get("content-language", "").partition(",")[0],
        metas.get("docsearch:language", ""),
        metas.get("og:locale", ""),
    )
    return next(filter(None, map(normal_language, claims)), "")


def facets_of_url(url: str) -> tuple[str, str]:
    """Return (language, version) as the folders of the path say."""
    try:
        segments = [unquote(segment) for segment in urlsplit(url).path.split("/")[1:]]
    except ValueError:  # a host that cannot be
        return "", ""
    folders = segments if len(segments) == 1 else segments[:-1]
    language, version = "", ""
    is_leading = True  # nothing but a language and folders such as /docs/ so far
    for position, (above, folder, below) in enumerate(zip(["", *folders], folders, [*folders[1:], ""], strict=False)):
        found = _language_of_folder(folder, below) if position < 2 and not language else ""
        language = language or found
        if not found and not version:
            is_branch = folder in _BRANCHES and normal_language(above) == language != ""
            version = folder if is_branch else _version_of_folder(folder, above, is_leading=is_leading)
        is_leading = is_leading and (found != "" or folder.lower() in _DOCS_FOLDERS)
    return language, version


def normal_language(tag: str) -> str:
    """Return a language tag or locale as BCP 47 writes it (`zh_cn` → `zh-CN`), "" when it is none."""
    match = _LANGUAGE_TAG.fullmatch(tag.strip())
    if not match or (len(match[1]) == 2 and match[1].lower() not in _LANGUAGES):
        return ""
    return "-".join(filter(None, (match[1].lower(), (match[2] or "").title(), (match[3] or "").upper())))


def _version_claims(tree: LexborHTMLParser, metas: Mapping[str, str]) -> Iterator[str]:
    """Yield what may be a version, surest first."""
    yield from (metas[name].partition(",")[0] for name in _VERSION_METAS if name in metas)
    yield from (node.attributes.get("data-version") or "" for node in (tree.root, tree.body) if node)
    for script in tree.css("script:not([src])"):
        options = script.text()[:MAX_SCRIPT_CHARS]
        if match := _SPHINX_OPTIONS.search(options):
            yield match[1]
    title = tree.css_first("title")
    if title and (match := _SPHINX_TITLE.search(" ".join(title.text().split()))):
        yield match[1]
    yield from (node.text(strip=True).removeprefix("Version ") for node in tree.css(_VERSION_LABELS))


def _normal_version(claim: str) -> str:
    claim = claim.strip()
    if match := _VERSION.fullmatch(claim):
        return match[1]
    return claim.lower() if claim.lower() in _MOVING_VERSIONS else ""


def _language_of_folder(folder: str, below: str) -> str:
    language = normal_language(folder) if len(folder) == 2 or folder[2:3] in {"-", "_"} else ""
    if folder[:2].lower() not in _WORDS or _version_of_folder(below, "", is_leading=True):
        return language
    return language if folder[3:].isupper() else ""  # it-IT, but not as-is


def _version_of_folder(folder: str, above: str, *, is_leading: bool) -> str:
    if folder.lower() in _MOVING_VERSIONS:
        return folder.lower()
    match = _PATH_VERSION.fullmatch(folder)
    if not match and (is_leading or folder.startswith("v")):
        match = _PATH_NUMBER.fullmatch(folder)
    return match[1] if match and not _ABOUT_VERSIONS.search(above) else ""
