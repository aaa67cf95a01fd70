"""What lets a crawl into protected documentation: headers, basic authentication, cookies, all from the environment.

    Source (templates), environment → Credentials of each source → headers, for the source's own origins alone

headers = { Authorization = "Bearer ${DOCS_TOKEN}" }     in sources.toml; the file never holds the secret itself
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from raydex.errors import ConfigError
from raydex.records import Source
from utils.urls import canonical_url, origin_of

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Headers to send to these origins (`scheme://host[:port]`) and to no other. Its repr shows no secret."""

    origins: frozenset[str]
    _headers: Mapping[str, str] = field(repr=False)

    def headers_for(self, url: str) -> Mapping[str, str]:
        """Return what to send along to a canonical URL; nothing to another host, port or scheme."""
        return self._headers if origin_of(url) in self.origins else {}


def credentials_of(sources: Sequence[Source], environment: Mapping[str, str]) -> dict[str, Credentials]:
    """Return the credentials of the sources that have some, by name.

    Raises ConfigError, which names source, key and variable and never a value.
    """
    found = {}
    for source in sources:
        if headers := dict(_headers(source, environment)):
            origins = frozenset(origin_of(canonical_url(seed)) for seed in source.seeds)
            found[source.name] = Credentials(origins, headers)
    return found


def _headers(source: Source, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, template in source.headers:
        yield name, _filled(source, f"headers.{name}", template, environment)
    if source.basic_auth:
        pair = _filled(source, "basic_auth", source.basic_auth, environment)
        yield "Authorization", f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
    if source.cookies:
        yield "Cookie", _filled(source, "cookies", source.cookies, environment)


def _filled(source: Source, key: str, template: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if not (found := environment.get(match[1])):
            raise ConfigError(f"source {source.name!r}, {key}: the environment variable {match[1]} is not set")
        return found

    filled = _VARIABLE.sub(value, template)
    if not filled.isprintable() or (key != "basic_auth" and not filled.isascii()):
        raise ConfigError(f"source {source.name!r}, {key}: the value cannot be sent as a header (line feed, not ASCII)")
    return filled
