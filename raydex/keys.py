"""API keys: made here, kept in one file as hashes, looked up by who serves.

    create_key(path, "ci") → ("rdx_k3v9…_…", Key)        KeyRing(path).find("rdx_k3v9…_…") → Key, or None

A key holds 256 random bits. Slow hashes (bcrypt, scrypt, Argon2) make the guessing of *passwords* dear; nobody guesses
256 bits, so one SHA-256 is as safe, and a request does not pay 100 ms for it. The id inside the key says which hash to
compare with, in constant time. A running service sees changes of the file within seconds (RELOAD_S).
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raydex.config import INDEX_NAME, RATE
from raydex.errors import ConfigError
from utils.files import exclusive_lock, write_bytes

logger = logging.getLogger(__name__)

Scope = Literal["search", "admin"]

RELOAD_S = 1.0
"""A change of the file is looked for at most this often, when a request comes."""

KEY_ID_CHARACTERS, KEY_ID_LENGTH, SECRET_BYTES = "abcdefghijkmnpqrstuvwxyz23456789", 10, 32
TOKEN = re.compile(r"rdx_([a-z0-9]{1,32})_[A-Za-z0-9_-]{16,128}")
NO_HASH = "0" * 64
PRIVATE = 0o600


class Key(BaseModel):
    """One key, without its secret. indexes: those it may see; None: all. rate, quota: `20/second`; empty: the default.

    Nothing in it is secret; nobody can go from the hash to the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    name: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    scopes: frozenset[Scope] = Field(min_length=1)
    indexes: frozenset[str] | None = None
    rate: str = Field("", pattern=RATE)
    quota: str = Field("", pattern=RATE)
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_usable(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1
    keys: list[Key] = []


def create_key(
    path: Path,
    name: str,
    *,
    scopes: Sequence[str] = ("search",),
    indexes: Sequence[str] | None = None,
    rate: str = "",
    quota: str = "",
    expires_at: datetime | None = None,
) -> tuple[str, Key]:
    """Return (token, Key); the token is nowhere else. Raises ConfigError for a wrong name, scope, index or rate."""
    if indexes is not None and not indexes:
        raise ConfigError("indexes: name at least one; without the option, a key may see all")
    if wrong := [index for index in indexes or () if not re.match(INDEX_NAME, index)]:
        raise ConfigError(f"no name of an index: {', '.join(wrong)}")
    key_id = "".join(secrets.choice(KEY_ID_CHARACTERS) for _ in range(KEY_ID_LENGTH))
    token = f"rdx_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    try:
        key = Key.model_validate(
            {
                "key_id": key_id,
                "name": name,
                "sha256": _hash(token),
                "scopes": scopes,
                "indexes": indexes,
                "rate": rate,
                "quota": quota,
                "created_at": datetime.now(UTC),
                "expires_at": expires_at,
            }
        )
    except ValidationError as error:
        raise ConfigError("; ".join(f"{e['loc'][0]} = {e['input']!r}: {e['msg']}" for e in error.errors())) from error
    with _changing(path) as keys:
        keys.append(key)
    return token, key


def revoke_key(path: Path, key_id: str) -> Key:
    """Mark a key as revoked, and return it; it stays in the list. Raises ConfigError when there is none of this id."""
    with _changing(path) as keys:
        for position, key in enumerate(keys):
            if key.key_id == key_id:
                keys[position] = key.model_copy(update={"revoked_at": key.revoked_at or datetime.now(UTC)})
                return keys[position]
        raise ConfigError(f"{path}: there is no key {key_id!r}; see `python serve_index.py --list-keys`")


def read_keys(path: Path) -> list[Key]:
    """Return every key in the file, the revoked ones too. Raises ConfigError when it cannot be read."""
    try:
        return _KeyFile.model_validate_json(path.read_bytes()).keys if path.exists() else []
    except (OSError, ValidationError) as error:
        # Never the content: a key pasted into the wrong place would stand in a log.
        reason = error.strerror if isinstance(error, OSError) else "not a key file of format 1"
        raise ConfigError(f"{path}: {reason}. Put back a copy, or delete it and create the keys anew.") from None


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """Yield the keys; what is done to the list is written when the block ends well. One process at a time."""
    with exclusive_lock(path.with_name(f".{path.name}.lock"), "", wait=True):
        keys = read_keys(path)
        yield keys
        write_bytes(path, _KeyFile(keys=keys).model_dump_json(indent=1).encode() + b"\n", mode=PRIVATE)


class KeyRing:
    """The keys as a service sees them: read when it starts, and again when the file has changed.

    Without a file, keys are off; with one, also when it holds no usable key or is deleted later, they are on. A file
    that was damaged by hand leaves the keys read before in force, and an error in the log.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """path: None when there can be none. Raises ConfigError when the file is there and cannot be read."""
        self._path, self._clock = path, clock
        self._keys: dict[str, Key] = {}
        self._seen: tuple[int, ...] | None = None
        self._next_look = clock() + RELOAD_S
        self._is_on = False
        if path is not None and (seen := _signature(path)) is not None:
            self._take(read_keys(path), seen)

    @property
    def is_on(self) -> bool:
        """True when requests need a key."""
        self._refresh()
        return self._is_on

    def find(self, token: str) -> Key | None:
        """Return the key that this token opens; None when it is malformed, unknown, revoked or expired."""
        self._refresh()
        match = TOKEN.fullmatch(token)
        key = self._keys.get(match[1]) if match else None
        is_right = hmac.compare_digest(_hash(token), key.sha256 if key else NO_HASH)
        return key if key and is_right and key.is_usable(datetime.now(UTC)) else None

    def usable(self) -> list[Key]:
        now = datetime.now(UTC)
        return [key for key in self._keys.values() if key.is_usable(now)]

    def _refresh(self) -> None:
        now = self._clock()
        if self._path is None or now < self._next_look:
            return
        self._next_look = now + RELOAD_S
        seen = _signature(self._path)
        if seen == self._seen:
            return
        try:
            self._take(read_keys(self._path), seen)
        except ConfigError as error:
            self._seen = seen
            logger.error("keys not read, those read before stay in force reason=%s", error)

    def _take(self, keys: Sequence[Key], seen: tuple[int, ...] | None) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._seen, self._is_on = seen, True
        logger.info("keys read count=%d", len(keys))


def _signature(path: Path) -> tuple[int, ...] | None:
    """Return what tells one version of a file from the next; None without a file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
