"""Every error Raydex raises on purpose, as one tree.

    RaydexError
    ├── ConfigError              a setting is missing, malformed or out of range
    ├── FetchError               a page could not be fetched
    │   └── TooLarge             the body is longer than the limit
    ├── ParseError               a page could not be read as a document
    ├── EmbedError               a model could not be found, loaded or used
    ├── SnapshotError            what is on disk cannot be served
    │   ├── SnapshotNotFound     no such snapshot, or nothing published yet
    │   ├── SnapshotCorrupt      a file does not match the checksum in its manifest
    │   ├── SnapshotIncompatible another format, model or dimension than expected
    │   ├── GateRefused          the new snapshot is worse than its parent
    │   └── ArchiveRefused       a file to import is damaged, or not what an export writes
    ├── BuildLocked              another build of this index is running
    ├── StorageError             where the indexes are kept (a URI) cannot be reached, read or written
    ├── StorageFull              the disk is full, or too small for the build
    ├── ClusterLost              Ray is gone under a running build
    ├── TooManyFailedPages       the failed share of pages is above the limit
    ├── NothingToIndex           the crawl ended without one chunk
    ├── IndexNotFound            the service does not serve this index
    ├── SectionNotFound          no served index holds this section
    ├── RollbackRefused          the service cannot make that snapshot live
    ├── QueryError               a query is empty, too long or out of range
    ├── Overloaded               more searches wait than the service lets in
    ├── ShardsLost               no process can be reached that has the part of an index that is needed
    ├── PrometheusError          Prometheus does not answer, or refuses an expression
    ├── RequestRefused           a request is over a limit, or malformed, before anybody looks at its meaning
    │   ├── MalformedRequest     its URL or headers are not well formed
    │   ├── UriTooLong           its URL is longer than the limit
    │   ├── HeadersTooLarge      its headers are too many or too long
    │   ├── BodyTooLarge         its body is longer than the limit
    │   └── BodyTooSlow          its body did not come in time
    ├── DeadlineExceeded         an answer was not ready within the time the request allowed
    ├── AuthError                a request without a valid API key
    ├── Forbidden                a request that its key, or where it comes from, does not allow
    ├── RateLimited              a key made more requests than it may
    └── ServiceError             the service gave an error, or no answer at all (raised by the client)

Each message says what, where, found against expected, and what to do. All facts go through `super().__init__`, so
that an error keeps its fields when it travels between processes.
"""


class RaydexError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(RaydexError):
    """A setting is missing, malformed or out of range."""


class FetchError(RaydexError):
    """A page could not be fetched. `reason` is a short stable word: timeout, http_500, redirect_loop…

    retry_after_s: seconds the server asked us to stay away (Retry-After), 0 when it did not say.
    """

    def __init__(self, url: str, reason: str, detail: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(url, reason, detail, retry_after_s)
        self.url, self.reason, self.detail, self.retry_after_s = url, reason, detail, retry_after_s

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class TooLarge(FetchError):
    """The body is longer than the limit (bytes); reading stopped there."""

    def __init__(self, url: str, limit: int) -> None:
        super().__init__(url, "too_large", f"more than {limit} bytes; raise --max-body-bytes to take it")
        self.args = (url, limit)
        self.limit = limit


class ParseError(RaydexError):
    """A page could not be read as a document. `reason` is a short stable word: empty, navigation_only, noindex,
    needs_javascript, soft_404, not_html, too_deep, not_markup, bad_notebook, deadline.

    links: absolute URLs on the page, which a crawl may follow all the same.
    """

    def __init__(self, url: str, reason: str, detail: str = "", links: tuple[str, ...] = ()) -> None:
        super().__init__(url, reason, detail, links)
        self.url, self.reason, self.detail, self.links = url, reason, detail, links

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


class EmbedError(RaydexError):
    """A model could not be found, loaded or used."""


class SnapshotError(RaydexError):
    """What is on disk cannot be served."""


class SnapshotNotFound(SnapshotError):
    """No such snapshot, or nothing has been published yet."""

    def __init__(self, index_dir: str, snapshot_id: str = "") -> None:
        super().__init__(index_dir, snapshot_id)
        self.index_dir, self.snapshot_id = index_dir, snapshot_id

    def __str__(self) -> str:
        name = self.index_dir.rstrip("/").rsplit("/", 1)[-1]
        if self.snapshot_id:
            return (
                f"{self.index_dir}: there is no snapshot {self.snapshot_id}. "
                f"See `python build_index.py --list --index {name}`."
            )
        return f"{self.index_dir}: nothing is published. Build with `python build_index.py URL --index {name}`."


class SnapshotCorrupt(SnapshotError):
    """A snapshot file is missing or does not match the checksum in its manifest."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(path, expected, found)
        self.path, self.expected, self.found = path, expected, found

    def __str__(self) -> str:
        return (
            f"{self.path}: found {_short(self.found)}, expected {_short(self.expected)}. "
            "Roll back with `python build_index.py --rollback --index NAME`, or rebuild."
        )


def _short(finding: str) -> str:
    return finding[:12] if len(finding) == 64 else finding  # a checksum; its head is enough for a person


class SnapshotIncompatible(SnapshotError):
    """The snapshot was made with another format, model or dimension than this program has."""

    def __init__(self, path: str, what: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(path, what, expected, found, remedy)
        self.path, self.what, self.expected, self.found, self.remedy = path, what, expected, found, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.what} is {self.found}, expected {self.expected}. {self.remedy}"


class GateRefused(SnapshotError):
    """The new snapshot failed a check; CURRENT did not move. is_damaged: its files are, so nothing can publish it."""

    def __init__(self, snapshot_id: str, failures: tuple[str, ...], report: str, *, is_damaged: bool = False) -> None:
        super().__init__(snapshot_id, failures, report)
        self.snapshot_id, self.failures, self.report, self.is_damaged = snapshot_id, failures, report, is_damaged

    def __str__(self) -> str:
        way_out = (
            "Build it anew: its files are damaged."
            if self.is_damaged
            else "If it is right all the same, build again with --publish-anyway 'REASON'."
        )
        failures = "\n  ".join(self.failures)
        return (
            f"snapshot {self.snapshot_id} was not published, CURRENT stays as it is:\n  {failures}\n"
            f"{way_out} Every page and query: {self.report}"
        )


class ArchiveRefused(SnapshotError):
    """A file to import is damaged, or not what an export writes; nothing was taken from it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}. Nothing was imported; export the snapshot again, and compare checksums."


class BuildLocked(RaydexError):
    """Another build of this index is running."""

    def __init__(self, index: str, holder: str) -> None:
        super().__init__(index, holder)
        self.index, self.holder = index, holder

    def __str__(self) -> str:
        return f"index {self.index!r} is being built by {self.holder}. Wait for it, or stop it."


class StorageError(RaydexError):
    """Where the indexes are kept (a URI) cannot be reached, read or written. action: `read`, `write`, …"""

    def __init__(self, uri: str, action: str, reason: str, remedy: str) -> None:
        super().__init__(uri, action, reason, remedy)
        self.uri, self.action, self.reason, self.remedy = uri, action, reason, remedy

    def __str__(self) -> str:
        return f"{self.uri}: cannot {self.action}: {self.reason}. {self.remedy}"


class StorageFull(RaydexError):
    """The disk is full, or has less room than the build needs."""

    def __init__(self, path: str, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(path, free_bytes, needed_bytes)
        self.path, self.free_bytes, self.needed_bytes = path, free_bytes, needed_bytes

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.free_bytes / 2**20:,.0f} MiB free, {self.needed_bytes / 2**20:,.0f} MiB needed. "
            "Free some space or choose another --data-dir (for a URI: --work-dir); the live snapshot is untouched and "
            "the same command resumes."
        )


class ClusterLost(RaydexError):
    """Ray is gone under a running build. process: raylet or GCS."""

    def __init__(self, process: str, address: str) -> None:
        super().__init__(process, address)
        self.process, self.address = process, address

    def __str__(self) -> str:
        return (
            f"Ray's {self.process} at {self.address} is gone (killed, or the machine ran out of memory). "
            "The live snapshot is untouched and the same command resumes."
        )


class TooManyFailedPages(RaydexError):
    """The failed share of pages is above the limit; nothing was published."""

    def __init__(self, failed: int, attempted: int, limit: float, reasons: str, report: str) -> None:
        super().__init__(failed, attempted, limit, reasons, report)
        self.failed, self.attempted, self.limit, self.reasons, self.report = failed, attempted, limit, reasons, report

    def __str__(self) -> str:
        return (
            f"{self.failed} of {self.attempted} pages failed ({self.reasons}), more than --max-failed-share "
            f"{self.limit:g} allows. The live snapshot stays. Every page: {self.report}"
        )


class NothingToIndex(RaydexError):
    """The crawl ended without one chunk."""

    def __init__(self, index: str, reasons: str, report: str) -> None:
        super().__init__(index, reasons, report)
        self.index, self.reasons, self.report = index, reasons, report

    def __str__(self) -> str:
        return f"index {self.index!r}: nothing to index ({self.reasons}). Details: {self.report}"


class IndexNotFound(RaydexError):
    """The service does not serve this index."""

    def __init__(self, index: str, served: tuple[str, ...]) -> None:
        super().__init__(index, served)
        self.index, self.served = index, served

    def __str__(self) -> str:
        return f"no index {self.index!r}; served: {', '.join(self.served) or 'none'}."


class SectionNotFound(RaydexError):
    """No served index holds this section."""

    def __init__(self, section_id: str) -> None:
        super().__init__(section_id)
        self.section_id = section_id

    def __str__(self) -> str:
        return f"no section {self.section_id!r} in the served snapshots; take `section_id` from a hit."


class RollbackRefused(RaydexError):
    """The service cannot make that snapshot live; the live one stays."""


class QueryError(RaydexError):
    """A query is empty, too long or out of range."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Overloaded(RaydexError):
    """More searches wait than the service lets in; the same request may be taken a moment later."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting

    def __str__(self) -> str:
        return f"{self.waiting} searches are waiting, and no more are let in (max_waiting). Ask again in a second."


class PrometheusError(RaydexError):
    """Prometheus does not answer, does not start, or refuses an expression."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where, self.reason = where, reason

    def __str__(self) -> str:
        return f"Prometheus ({self.where}): {self.reason}. See docs/monitoring.md."


class RequestRefused(RaydexError):
    """A request is over a limit, or malformed; its meaning was not looked at."""


class MalformedRequest(RequestRefused):
    """The URL or the headers are not well formed."""


class UriTooLong(RequestRefused):
    """Path and query string are longer than the limit."""


class HeadersTooLarge(RequestRefused):
    """The headers are too many, or too long together."""


class BodyTooLarge(RequestRefused):
    """The body is longer than the limit; it was not read to its end."""


class BodyTooSlow(RequestRefused):
    """The body did not come in time."""


class ShardsLost(RaydexError):
    """No process that has a part of an index can be reached, or none of those that may have what is asked for."""

    def __init__(self, index: str, shards_ok: int, shards: int) -> None:
        super().__init__(index, shards_ok, shards)
        self.index, self.shards_ok, self.shards = index, shards_ok, shards

    def __str__(self) -> str:
        return (
            f"index {self.index}: {self.shards_ok} of {self.shards} shards can be reached. Their processes are started "
            "again by themselves; ask again in some seconds."
        )


class DeadlineExceeded(RaydexError):
    """An answer was not ready within the time the request allowed; what had not begun was not begun."""

    def __init__(self, timeout_ms: int) -> None:
        super().__init__(timeout_ms)
        self.timeout_ms = timeout_ms

    def __str__(self) -> str:
        return (
            f"no answer within {self.timeout_ms} ms. Ask for less (k, queries), allow more (timeout_ms), or ask again "
            "when the service has less to do."
        )


class AuthError(RaydexError):
    """A request without a valid API key. One text whatever is wrong with it, so that nothing is learned by trying.

    is_given: there was one. It only changes WWW-Authenticate.
    """

    def __init__(self, *, is_given: bool = False) -> None:
        super().__init__()
        self.is_given = is_given

    def __str__(self) -> str:
        return "a valid API key is needed: `Authorization: Bearer KEY` or `X-API-Key: KEY`."


class Forbidden(RaydexError):
    """A request that its key, or where it comes from, does not allow."""


class RateLimited(RaydexError):
    """A key made more requests than it may. limit: `20/second`; retry_after_s: seconds until there is room again."""

    def __init__(self, limit: str, retry_after_s: float) -> None:
        super().__init__(limit, retry_after_s)
        self.limit, self.retry_after_s = limit, retry_after_s

    def __str__(self) -> str:
        return f"more than {self.limit} with this key; try again in {self.retry_after_s:g} s."


class ServiceError(RaydexError):
    """The service answered with an error, or not at all (status 0). The fields are those of its error body.

    retry_after_s: seconds the service asked us to stay away, 0 when it did not say.
    """

    def __init__(
        self, url: str, status: int, type_: str, message: str, request_id: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(url, status, type_, message, request_id, retry_after_s)
        self.url, self.status, self.type, self.message = url, status, type_, message
        self.request_id, self.retry_after_s = request_id, retry_after_s

    def __str__(self) -> str:
        known_as = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.url}: {self.status or 'no answer'} {self.type}: {self.message}{known_as}"
