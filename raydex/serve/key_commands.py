"""What serve_index.py does with API keys instead of serving: create, list, revoke. Text for a person, then a JSON line.

python serve_index.py --create-key ci --scopes search --key-indexes docs --expires-days 90
"""

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from raydex.config import ServeConfig
from raydex.errors import ConfigError
from raydex.keys import Key, create_key, read_keys, revoke_key

DETAILS = ("scopes", "key_indexes", "expires_days", "rate", "quota")
"""Options of --create-key; without it they would be lost silently."""

MOST_DAYS = 36_500


def add_key_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("API keys (docs/access.md)")
    action = group.add_mutually_exclusive_group()
    action.add_argument("--create-key", metavar="NAME", help="Create a key, show it this once, and end.")
    action.add_argument("--list-keys", action="store_true", help="List the keys, without their secrets, and end.")
    action.add_argument("--revoke-key", metavar="ID", help="Revoke a key, also for running services, and end.")
    group.add_argument("--scopes", help="With --create-key: search, admin or search,admin. [default: search]")
    group.add_argument("--key-indexes", metavar="NAMES", help="With --create-key: the indexes it may see, as a,b.")
    group.add_argument("--expires-days", metavar="DAYS", type=float, help="With --create-key: until when it is valid.")
    group.add_argument("--rate", help="With --create-key: most requests, such as 20/second, instead of --default-rate.")
    group.add_argument("--quota", help="With --create-key: the same over longer, such as 10000/day.")


def asked(options: argparse.Namespace) -> bool:
    """Return whether a command for keys was given. Raises ConfigError for details without --create-key."""
    given = [f"--{name.replace('_', '-')}" for name in DETAILS if getattr(options, name) is not None]
    if given and options.create_key is None:
        raise ConfigError(f"{', '.join(given)}: only with --create-key")
    return options.list_keys or options.create_key is not None or options.revoke_key is not None


def run(options: argparse.Namespace, config: ServeConfig) -> list[str]:
    """Do what was asked, and return what to print."""
    path = config.keys_path
    if path is None:
        raise ConfigError("the data folder is a URI: say with --keys-file where the keys are, on this machine")
    if options.create_key is not None:
        return _create(options, path)
    if options.revoke_key is not None:
        key = revoke_key(path, options.revoke_key)
        return [f"revoked {key.key_id} ({key.name}); running services refuse it within seconds", json.dumps(_row(key))]
    keys = read_keys(path)
    return [*map(_line, keys), json.dumps({"keys": [_row(key) for key in keys]})]


def _create(options: argparse.Namespace, path: Path) -> list[str]:
    days = options.expires_days
    if days is not None and not 0 < days <= MOST_DAYS:
        raise ConfigError(f"--expires-days {days:g}: allowed are more than 0 and at most {MOST_DAYS}")
    token, key = create_key(
        path,
        options.create_key,
        scopes=_names(options.scopes) or ["search"],
        indexes=None if options.key_indexes is None else _names(options.key_indexes),
        rate=options.rate or "",
        quota=options.quota or "",
        expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
    )
    return [
        f"created {_line(key)}",
        f"It is in {path}, but only as a hash: this is the one time that the key itself is shown.",
        json.dumps({**_row(key), "key": token}),
    ]


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _line(key: Key) -> str:
    indexes = "all indexes" if key.indexes is None else "index " + ",".join(sorted(key.indexes))
    until = f"until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else ""
    parts = (key.key_id, _state(key), "+".join(sorted(key.scopes)), indexes, key.rate, key.quota, until, key.name)
    return "  ".join(filter(None, parts))


def _row(key: Key) -> dict[str, object]:
    """Return what may be shown of a key: all but the hash."""
    row = key.model_dump(mode="json", exclude={"sha256"})
    row |= {"scopes": sorted(key.scopes), "indexes": None if key.indexes is None else sorted(key.indexes)}
    return {**row, "state": _state(key)}


def _state(key: Key) -> str:
    if key.revoked_at:
        return "revoked"
    return "usable" if key.is_usable(datetime.now(UTC)) else "expired"
