"""What protected documentation asks for: templates of a source, filled from the environment, sent to its seeds only.

Source.headers, .basic_auth, .cookies ("Bearer ${DOCS_TOKEN}") + environ → Credentials
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydex.errors import ConfigError
from raydex.records import Source
from utils.urls import canonical_url, origin_of

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OF_THE_EXCHANGE = frozenset({"host", "connection", "content-length", "transfer-encoding", "upgrade"})


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Secret request headers of a source. Neither repr nor str shows a value."""

    origins: frozenset[str]
    headers: tuple[tuple[str, str], ...]

    def headers_for(self, origin: str) -> tuple[tuple[str, str], ...]:
        """Return the headers, if the origin (`scheme://host[:port]`) is one of the source's seeds; else none."""
        return self.headers if origin in self.origins else ()

    def __repr__(self) -> str:
        return f"Credentials({', '.join(name for name, _ in self.headers)} for {', '.join(sorted(self.origins))})"


def credentials_of(sources: Sequence[Source], environ: Mapping[str, str]) -> dict[str, Credentials]:
    """Return source name → credentials, for the sources that have some.

    Raises ConfigError naming source, key and variable, never a value: a secret that stands in the file itself, a
    variable that is not set, a value that cannot be sent.
    """
    given = {source.name: Credentials(_origins(source), _headers(source, environ)) for source in sources}
    return {name: credentials for name, credentials in given.items() if credentials.headers}


def _origins(source: Source) -> frozenset[str]:
    return frozenset(origin_of(canonical_url(seed)) for seed in source.seeds if canonical_url(seed))


def _headers(source: Source, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    headers = [(name, _filled(source, f"headers.{name}", text, environ)) for name, text in source.headers]
    for name, _ in headers:
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OF_THE_EXCHANGE:
            raise ConfigError(f"source {source.name!r}, headers: {name!r} is no header that a source may set")
    if source.basic_auth:
        login = _filled(source, "basic_auth", source.basic_auth, environ)
        if ":" not in login:
            raise ConfigError(f"source {source.name!r}, basic_auth: write it as user:password")
        headers.append(("Authorization", "Basic " + base64.b64encode(login.encode()).decode()))
    if source.cookies:
        headers.append(("Cookie", _filled(source, "cookies", source.cookies, environ)))
    return tuple(headers)


def _filled(source: Source, key: str, template: str, environ: Mapping[str, str]) -> str:
    where = f"source {source.name!r}, {key}"
    if not _VARIABLE.search(template):
        raise ConfigError(f"{where}: take secrets from the environment, as in ${{DOCS_TOKEN}}, not from the file")

    def value(match: re.Match[str]) -> str:
        found = environ.get(match[1], "")
        if not found:
            raise ConfigError(f"{where}: environment variable {match[1]} is not set")
        if _CONTROL.search(found):
            raise ConfigError(f"{where}: environment variable {match[1]} holds a line break or another control")
        return found

    return _VARIABLE.sub(value, template)
