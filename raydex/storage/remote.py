"""Objects under a URI, through fsspec: read, listed, written whole, and written on a condition.

    Remote("s3://bucket/prefix").read("docs/CURRENT") → Content | None

Names are relative to the URI. Every failure is a StorageError that says what to do; credentials are the library's
business, and are never seen here. Only S3 writes on a condition in one step; elsewhere a look comes before the write.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec
from fsspec.core import url_to_fs
from fsspec.exceptions import FSTimeoutError

from raydex.errors import ConfigError, StorageError
from utils.files import is_disk_full

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Requests in flight; more than 16 brought nothing against a store on the same machine, and 16 fill most links."""

NEW = ""
"""The version of an object that is not there yet: write(…, expected=NEW) only creates."""

Item = TypeVar("Item")


class Content(NamedTuple):
    """version: what a later write can be bound to. It is that of data or an older one, never a newer one."""

    data: bytes
    version: str


class Stat(NamedTuple):
    """modified: Unix time, by the clock of the store."""

    bytes: int
    modified: float


class Remote:
    """The objects under one URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        scheme = uri.partition("://")[0]
        try:
            options = {"skip_instance_cache": True, "use_listings_cache": False}
            self._fs, root = url_to_fs(self.uri, **(options if scheme in {"s3", "s3a"} else {}))
        except ImportError as error:
            wanted = "requirements-s3.txt" if scheme in {"s3", "s3a"} else "what this message names"
            raise ConfigError(f"--data-dir {uri}: {error}. Install it: pip install -r {wanted}") from error
        except ValueError as error:
            known = ", ".join(sorted({"file", "memory", "s3"} & set(fsspec.available_protocols())))
            raise ConfigError(f"--data-dir {uri}: {error}. Tested are {known}, and any folder") from error
        self._root = root.rstrip("/")
        self._is_s3 = scheme in {"s3", "s3a"}
        self._foreign = _foreign_errors()

    def read(self, name: str) -> Content | None:
        """Return an object, None when there is none."""
        with self._named("read", name):
            try:
                version = self._fs.info(self._path(name)).get("ETag", "") if self._is_s3 else ""
                data: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
        return Content(data, version or hashlib.sha256(data).hexdigest())

    def write(self, name: str, data: bytes, *, expected: str | None = None) -> bool:
        """Write an object whole; False, and nothing is written, when it is not in the version expected (NEW: absent).

        expected=None: whatever is there.
        """
        with self._named("write", name):
            if expected is None:
                self._pipe(name, data)
            elif expected == NEW:
                return self._pipe_if(name, data, FileExistsError, mode="create")
            elif self._is_s3:
                return self._pipe_if(name, data, FileNotFoundError, IfMatch=expected)
            elif (found := self.read(name)) is None or found.version != expected:
                return False
            else:
                self._pipe(name, data)
        return True

    def stats(self, prefix: str) -> dict[str, Stat]:
        """Return every object below a prefix (a folder), by name relative to the URI; a missing bucket is an error."""
        with self._named("list", prefix):
            found: dict[str, dict[str, Any]] = self._fs.find(self._path(prefix), detail=True)
        start = len(self._root) + 1
        return {
            path[start:]: Stat(int(info["size"]), _modified(info))
            for path, info in found.items()
            if info["type"] == "file"
        }

    def folders(self) -> list[str]:
        """Return the names of the folders right below the URI; raises StorageError when there is no such bucket."""
        with self._named("list", ""):
            try:
                found = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                if self._is_s3:
                    self._fs.ls(self._root.partition("/")[0], detail=True)  # raises when the bucket is missing
                return []
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "directory")

    def download(self, name: str, path: Path) -> bool:
        """Copy an object into a file; False when it is not there."""
        with self._named("read", name):
            try:
                self._fs.get_file(self._path(name), str(path))
            except FileNotFoundError:
                return False
        return True

    def upload(self, path: Path, name: str) -> None:
        with self._named("write", name):
            self._make_parent(name)
            self._fs.put_file(str(path), self._path(name))

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is gone already is no error."""
        doomed = [self._path(name) for name in names]
        for start in range(0, len(doomed), 1000):  # what one request to S3 may name
            with self._named("delete", doomed[start][len(self._root) + 1 :]):
                try:
                    self._fs.rm(doomed[start : start + 1000])
                except FileNotFoundError:
                    for path in doomed[start : start + 1000]:
                        if self._fs.exists(path):
                            self._fs.rm_file(path)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _pipe(self, name: str, data: bytes, **condition: str) -> None:
        self._make_parent(name)
        self._fs.pipe_file(self._path(name), data, **condition)

    def _make_parent(self, name: str) -> None:
        if not self._is_s3:
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _pipe_if(self, name: str, data: bytes, refusal: type[OSError], **condition: str) -> bool:
        """Write on a condition; False when it does not hold. refusal: what the library may call that."""
        try:
            self._pipe(name, data, **condition)
        except OSError as error:
            if isinstance(error, refusal) or _is_refused_condition(error):
                return False
            raise
        return True

    @contextmanager
    def _named(self, action: str, name: str) -> Iterator[None]:
        """Turn whatever the library raises into a StorageError that names the object and the way out."""
        where = f"{self.uri}/{name}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(where, action, _said(error), "Is the name right, and the bucket there?") from error
        except PermissionError as error:
            remedy = "Check the credentials, and what they may do (docs/storage.md, Permissions)."
            raise StorageError(where, action, _said(error), remedy) from error
        except self._foreign as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise  # the disk of the mirror
            remedy = "Nothing was published; check network, endpoint and credentials, then run the command again."
            raise StorageError(where, action, _said(error), remedy) from error


def at_once(function: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call a function for every item, AT_ONCE at a time; the first error ends it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _foreign_errors() -> tuple[type[Exception], ...]:
    """Return what the library may raise; that of S3 only where it is installed."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return (OSError, FSTimeoutError)
    return (OSError, FSTimeoutError, BotoCoreError, ClientError)


def _is_refused_condition(error: OSError) -> bool:
    """Tell whether S3 said 412 (another version) or 409 (another conditional write at the same moment)."""
    words = f"{error} {error.__cause__}"
    return any(word in words for word in ("PreconditionFailed", "ConditionalRequestConflict", "pre-conditions"))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(". :")[:300]


def _modified(info: dict[str, Any]) -> float:
    when = info.get("LastModified") or info.get("mtime") or info.get("created") or 0.0
    return when.timestamp() if isinstance(when, datetime) else float(when)
