"""One spelling for each address, and which addresses belong to a site. Pure, standard library only.

    (link, page it stands on) → canonical URL → inside the site?, public URL

canonical_url("../b/./INDEX.html#top", base="HTTP://X.org:80/docs/a/")  →  "http://x.org/docs/b/INDEX.html"
"""

import re
from ipaddress import IPv6Address
from typing import Protocol
from urllib.parse import SplitResult, quote, urljoin, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_HOST_NAME = re.compile(r"[a-z0-9._-]+")
_FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")  # `.html` is a file's, the `.12` of /3.12 is not
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE = "%/:@!$&'()*+,;=~"
_QUERY_SAFE = _PATH_SAFE + "?"


class Site(Protocol):
    """What decides membership: seeds and URL prefixes, all canonical."""

    @property
    def seeds(self) -> tuple[str, ...]: ...
    @property
    def allow(self) -> tuple[str, ...]: ...
    @property
    def deny(self) -> tuple[str, ...]: ...
    @property
    def public_url(self) -> str: ...


def canonical_url(url: str, base: str = "") -> str:
    """Return the one spelling of an http(s) address, resolved against base; "" when it is none or is unusable.

    Scheme and host in lower case (IDNA); no default port, user, fragment, dot segment or empty query; percent-encoding
    only where it is needed; `…/index.html` is `…/`.
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            return ""
        address = f"{parts.scheme}://{_host(parts)}{_path(parts.path)}"
        return f"{address}?{_escaped(parts.query, _QUERY_SAFE)}" if parts.query else address
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


def prefixes(site: Site) -> tuple[str, ...]:
    """Return the URL prefixes of the site: its own, or else the directory of each seed."""
    return site.allow or tuple(dict.fromkeys(directory_of(seed) for seed in site.seeds))


def in_scope(site: Site, url: str) -> bool:
    """Tell whether a canonical URL lies under a prefix of the site and under none that it denies."""
    return _under_any(url, prefixes(site)) and not _under_any(url, site.deny)


def public_url(site: Site, url: str) -> str:
    """Return what hits cite for a canonical crawl URL: the site's first prefix replaced by its public_url."""
    prefix = prefixes(site)[0]
    if not site.public_url or not _under_any(url, (prefix,)):
        return url
    rest = _without_web_scheme(url)[len(_without_web_scheme(prefix)) :]
    return canonical_url(site.public_url.rstrip("/") + "/" + rest.lstrip("/") if rest else site.public_url)


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
    segments = _escaped(path, _PATH_SAFE).removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del kept[max(1, len(kept) - 1) :]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", "..", "index.html", "index.htm"}:
        kept = [*(kept[:-1] if segments[-1].startswith("index") else kept), ""]
    return "/".join(kept) if len(kept) > 1 else "/"


def _escaped(text: str, safe: str) -> str:
    return quote(_ESCAPE.sub(_normal_escape, text), safe=safe)


def _normal_escape(match: re.Match[str]) -> str:
    if match[1] is None:
        return "%25"
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _under_any(url: str, those: tuple[str, ...]) -> bool:
    return any(_under(_without_web_scheme(url), _without_web_scheme(prefix)) for prefix in those)


def _under(url: str, prefix: str) -> bool:
    if prefix.endswith("/"):
        return url.startswith(prefix)
    return url == prefix or url.startswith((f"{prefix}/", f"{prefix}?"))


def _without_web_scheme(url: str) -> str:
    """http and https of one host are one site, unless a port is named."""
    parts = urlsplit(url)
    return url if parts.port else url.removeprefix(f"{parts.scheme}:")
