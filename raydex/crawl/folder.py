"""A folder or checkout as a source: its documents, in a stable order, and each of them as a page.

    Source (seed file:///…/) → file URLs → Page or FetchError

Left out: what git ignores, hidden folders, build output, installed packages, links that leave the folder.
"""

import io
import logging
import os
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from raydex.config import CrawlConfig
from raydex.errors import FetchError, TooLarge
from raydex.records import Page, Source, new_page
from utils.urls import file_path, file_url, in_scope

logger = logging.getLogger(__name__)

CONTENT_TYPES = {
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdx": "text/markdown",
    ".rst": "text/x-rst",
    ".txt": "text/plain",
    ".ipynb": "application/x-ipynb+json",
}
GENERATORS = {
    "mkdocs.yml": "mkdocs",
    "mkdocs.yaml": "mkdocs",
    ".vitepress": "vitepress",
    "conf.py": "myst",
    "docusaurus.config.js": "mdx",
    "docusaurus.config.ts": "mdx",
    "docusaurus.config.mjs": "mdx",
}
"""What stands in a folder → whose anchors the Markdown in and below it has (RFC 7763's `variant`)."""
LEFT_OUT_FOLDERS = frozenset({"node_modules", "_build", "__pycache__", "site-packages", "venv"})
GIT_TIMEOUT_S = 60
GIT = (
    "git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*",
)  # fmt: skip
"""A checkout may be anybody's: nothing that its configuration names is run."""


@dataclass(frozen=True, slots=True)
class Listing:
    """urls: of the documents, sorted. left_out: reason → number of files and folders."""

    urls: tuple[str, ...]
    left_out: Mapping[str, int]


def list_folder(source: Source) -> tuple[str, ...]:
    """Return the URLs of the documents in the folder that the source's seed names, sorted."""
    listing = scan_folder(source)
    counts = " ".join(f"{reason}={count}" for reason, count in sorted(listing.left_out.items()))
    logger.info("folder listed source=%s documents=%d left_out=%s", source.name, len(listing.urls), counts or "nothing")
    return listing.urls


def scan_folder(source: Source) -> Listing:
    """Return what list_folder returns, and what was left out: hidden, build_output, ignored, link, out_of_scope.

    Raises FetchError: file_missing when there is no such folder.
    """
    root = _root(source)
    if not root.is_dir():
        raise FetchError(source.seeds[0], "file_missing", "no such folder")
    left_out: Counter[str] = Counter()
    urls = []
    for path in _documents(root, _ignored(root), left_out):
        url = file_url(path)
        if in_scope(source, url):
            urls.append(url)
        else:
            left_out["out_of_scope"] += 1
    return Listing(tuple(sorted(urls)), dict(left_out))


def read_folder_page(source: Source, url: str, config: CrawlConfig) -> Page:
    """Return one file of the folder as a page; its etag is made of size and time of change.

    Raises FetchError: file_missing, forbidden_path (outside the folder or the source, or no document), too_large,
    unreadable.
    """
    path, root = file_path(url), _root(source)
    content_type = CONTENT_TYPES.get(path.suffix.lower(), "")
    if not content_type or not in_scope(source, url):
        raise FetchError(url, "forbidden_path", "no document of this source")
    try:
        if not path.resolve(strict=True).is_relative_to(root):
            raise FetchError(url, "forbidden_path", "leads outside the folder")
        body, status = _read(path, url, config.max_body_bytes)
    except FileNotFoundError as error:
        raise FetchError(url, "file_missing") from error
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the path; RuntimeError: links in a ring
        raise FetchError(url, "unreadable", getattr(error, "strerror", None) or str(error)) from error
    content_type = f"{content_type}; charset=utf-8{_variant(path, root)}"
    return new_page(source, url, body, content_type, etag=f'"{status.st_size}-{status.st_mtime_ns}"')


def _root(source: Source) -> Path:
    return file_path(source.seeds[0]).resolve()


def _documents(root: Path, ignored: frozenset[str], left_out: Counter[str]) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        kept = []
        for path in (Path(folder, name) for name in folders):
            if reason := _why_not_enter(path) or _why_not(path, root, ignored):
                left_out[reason] += 1
            else:
                kept.append(path.name)
        folders[:] = kept
        for path in (Path(folder, name) for name in files if Path(name).suffix.lower() in CONTENT_TYPES):
            if reason := _why_not(path, root, ignored):
                left_out[reason] += 1
            else:
                yield path


def _why_not_enter(folder: Path) -> str:
    if folder.is_symlink():  # it would give the files two addresses, or leads out
        return "link"
    return "build_output" if folder.name in LEFT_OUT_FOLDERS or Path(folder, "pyvenv.cfg").exists() else ""


def _why_not(path: Path, root: Path, ignored: frozenset[str]) -> str:
    if path.name.startswith("."):
        return "hidden"
    if str(path.relative_to(root)) in ignored:
        return "ignored"
    return "link" if path.is_symlink() and not _leads_to_a_file_below(path, root) else ""


def _leads_to_a_file_below(link: Path, root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_file() and target.is_relative_to(root)


def _read(path: Path, url: str, limit: int) -> tuple[bytes, os.stat_result]:
    with io.FileIO(path, opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FetchError(url, "forbidden_path", "not a regular file")
        body = file.read(limit + 1)
    if len(body) > limit:
        raise TooLarge(url, limit)
    return body, status


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe must not hold the build


def _ignored(root: Path) -> frozenset[str]:
    """Return the paths, relative to root, that git ignores; none when it is no checkout or git is not there."""
    command = [*GIT, "-C", str(root), "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
    }
    try:
        found = subprocess.run(  # noqa: S603 - git, without a shell and without the settings of whoever owns the folder
            command, env=environment, capture_output=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("git says nothing folder=%s reason=%s", root, error)
        return frozenset()
    paths = frozenset(os.fsdecode(path).rstrip("/") for path in found.stdout.split(b"\0"))
    return frozenset() if "." in paths else paths - {""}  # the folder itself is ignored, yet it was asked for


def _variant(path: Path, root: Path) -> str:
    """Return the parameter of the content type that names the generator of a Markdown file; "" for any other."""
    if CONTENT_TYPES[path.suffix.lower()] != "text/markdown":
        return ""
    if path.suffix.lower() == ".mdx":
        return "; variant=mdx"
    for folder in (folder for folder in path.parents if folder.is_relative_to(root.parent)):
        for name, variant in GENERATORS.items():
            if Path(folder, name).exists():
                return f"; variant={variant}"
    return ""
