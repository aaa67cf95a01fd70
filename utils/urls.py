"""One spelling for each address, and which addresses belong to a site. Standard library only.

    (link, page it stands on) → canonical URL → inside the site?, public URL

canonical_url("../b/./INDEX.html#top", base="HTTP://X.org:80/docs/a/")  →  "http://x.org/docs/b/INDEX.html"
"""

import os
import re
from functools import lru_cache
from ipaddress import IPv6Address
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
VISITOR_PARAMETERS = frozenset({
    "_ga", "_gl", "dclid", "fbclid", "gclid", "jsessionid", "mc_cid", "mc_eid", "msclkid", "phpsessid", "sessionid",
    "sid", "yclid",
})  # fmt: skip
"""Query parameters (in lower case; `utm_…` too) that name a visitor or where he came from, never a page: with them a
page has as many addresses as visits."""
PAGE_SUFFIXES = frozenset({".htm", ".html", ".ipynb", ".markdown", ".md", ".mdx", ".rst", ".txt", ".xhtml"})
FOLDER_PAGES = frozenset({"_index", "index", "readme"})
LINK_ENDINGS = {"html": ".html", "bare": "", "directory": "/"}
_GLOB = re.compile(r"(/\*\*/|\*\*|\*)")
_GLOB_PARTS = {"/**/": "/(?:.*/)?", "**": ".*", "*": "[^/?]*"}
_SESSION = re.compile(r";(?:jsessionid|phpsessid)=[^;/]*", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_HOST_NAME = re.compile(r"[a-z0-9._-]+")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")  # `.html` is a file's, the `.12` of /3.12 is not
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = "%/:@!$&'()*+,;=~"
_QUERY_SAFE = _PATH_SAFE + "?"


class Site(Protocol):
    """What decides membership: seeds, and URL prefixes or globs, all canonical or `file:` URLs.

    A prefix holds the address and all below it. A glob (it holds a `*`) holds what matches it as a whole, any query
    aside, and when it ends in `/` all below that. link_style: keep, html, bare or directory.
    """

    @property
    def seeds(self) -> tuple[str, ...]: ...
    @property
    def allow(self) -> tuple[str, ...]: ...
    @property
    def deny(self) -> tuple[str, ...]: ...
    @property
    def public_url(self) -> str: ...
    @property
    def link_style(self) -> str: ...


def canonical_url(url: str, base: str = "") -> str:
    """Return the one spelling of an http(s) address, resolved against base; "" when it is none or is unusable.

    Scheme and host in lower case (IDNA); no default port, user, fragment, dot segment, session id, tracking parameter
    or empty query; percent-encoding only where it is needed; `…/index.html` is `…/`.
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            return ""
        address = f"{parts.scheme}://{_host(parts)}{_path(parts.path)}"
        query = _query(parts.query)
        return f"{address}?{query}" if query else address
    except ValueError:  # a port or host that cannot be, a lone surrogate
        return ""


def origin_of(url: str) -> str:
    """Return `scheme://host[:port]` of a canonical URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def directory_of(url: str) -> str:
    """Return the prefix a seed stands for: the folder of a file, else the address itself and all below it."""
    address = url.partition("?")[0]
    folder, _, last = address.rpartition("/")
    return f"{folder}/" if _FILE_SUFFIX.search(last) else address


def file_url(path: Path) -> str:
    """Return the `file:` URL of a path, percent-encoded; that of a folder ends in `/`."""
    return path.absolute().as_uri() + ("/" if path.is_dir() and path.parent != path else "")


def file_path(url: str) -> Path:
    """Return the path that a `file:` URL stands for."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(url).path)))


def is_file_url(url: str) -> bool:
    return url.startswith("file:")


def prefixes(site: Site) -> tuple[str, ...]:
    """Return the URL prefixes of the site: its own, globs cut to their folder, or else the directory of each seed."""
    return tuple(map(_literal, site.allow)) or tuple(dict.fromkeys(directory_of(seed) for seed in site.seeds))


def in_scope(site: Site, url: str) -> bool:
    """Tell whether a canonical URL lies under a prefix or glob of the site and under none that it denies."""
    return _under_any(url, site.allow or prefixes(site)) and not _under_any(url, site.deny)


def public_url(site: Site, url: str) -> str:
    """Return what hits cite for a crawl URL: the site's first prefix, or its folder, replaced by its public_url.

    The page names of a folder take the site's link_style: `guide/intro.md` is `guide/intro.md` (keep),
    `guide/intro.html`, `guide/intro` (bare) or `guide/intro/` (directory); but for keep, `guide/README.md` is `guide/`.
    """
    of_folder = is_file_url(site.seeds[0])
    prefix = site.seeds[0] if of_folder else prefixes(site)[0]
    if not site.public_url or not _under_any(url, (prefix,)):
        return url
    rest = _without_web_scheme(url)[len(_without_web_scheme(prefix)) :]
    if of_folder:
        rest = _styled(rest, site.link_style)
    below = rest or of_folder
    return canonical_url(site.public_url.rstrip("/") + "/" + rest.lstrip("/") if below else site.public_url)


def _host(parts: SplitResult) -> str:
    name = (parts.hostname or "").rstrip(".")
    if ":" in name:
        host = f"[{IPv6Address(name).compressed}]"
    else:
        host = name.encode("idna").decode("ascii").lower()
        if not _HOST_NAME.fullmatch(host):
            raise ValueError(f"{name!r} is no host name")
    return host if parts.port in {None, DEFAULT_PORTS[parts.scheme]} else f"{host}:{parts.port}"


def _path(path: str) -> str:
    kept: list[str] = [""]
    path = _escaped(path, _PATH_SAFE)
    segments = (_SESSION.sub("", path) if ";" in path else path).removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del kept[max(1, len(kept) - 1) :]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", "..", "index.html", "index.htm"}:
        kept = [*(kept[:-1] if segments[-1].startswith("index") else kept), ""]
    return "/".join(kept) if len(kept) > 1 else "/"


def _query(query: str) -> str:
    kept = (part for part in _escaped(query, _QUERY_SAFE).split("&") if not _is_of_visitor(part.partition("=")[0]))
    return "&".join(kept) if query else ""


def _is_of_visitor(name: str) -> bool:
    name = name.lower()
    return name in VISITOR_PARAMETERS or name.startswith("utm_")


def _escaped(text: str, safe: str) -> str:
    return quote(_ESCAPE.sub(_normal_escape, text), safe=safe)


def _normal_escape(match: re.Match[str]) -> str:
    if match[1] is None:
        return "%25"
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _literal(entry: str) -> str:
    start, star, _ = entry.partition("*")
    return start[: start.rindex("/") + 1] if star else entry


def _styled(path: str, style: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if style not in LINK_ENDINGS or not stem or dot + suffix.lower() not in PAGE_SUFFIXES:
        return path
    return folder + slash + ("" if stem.lower() in FOLDER_PAGES else stem + LINK_ENDINGS[style])


def _under_any(url: str, entries: tuple[str, ...]) -> bool:
    return any(_matcher(entry).fullmatch(url) for entry in entries)


@lru_cache(maxsize=1024)  # a crawl asks for the same few entries with every link
def _matcher(entry: str) -> re.Pattern[str]:
    address = _without_web_scheme(entry)
    scheme = "https?:" if address != entry else ""
    pattern = "".join(_GLOB_PARTS.get(part) or re.escape(part) for part in _GLOB.split(address))
    below = "(?:[?].*)?" if "*" in address else "(?:[/?].*)?"
    return re.compile(scheme + pattern + (".*" if address.endswith("/") else below), re.DOTALL)


def _without_web_scheme(url: str) -> str:
    """http and https of one host are one site, unless a port is named."""
    parts = urlsplit(url)
    return url.removeprefix(f"{parts.scheme}:") if parts.scheme in DEFAULT_PORTS and not parts.port else url
