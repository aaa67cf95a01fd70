"""Who may do what, and how often: the layer between the edge and the routes.

    scope → scope["raydex.key"] (the Key, or None while keys are off), or 401 · 403 · 429

| keys | address | a request without a key |
|---|---|---|
| on (the key file exists) | any | 401; with `--allow-anonymous` it may search |
| off | loopback | may do all, except what another site makes a browser do |
| off | public | the service refuses to start; with `--allow-anonymous` it may search |

/healthz and /readyz are open, for whoever watches the service; /readyz names no index to a stranger. An index that a
key may not see is answered like one that does not exist.
"""

import re
from datetime import UTC, datetime

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raydex.config import ServeConfig
from raydex.errors import AuthError, ConfigError, Forbidden, RaydexError
from raydex.keys import NO_HASH, Key, KeyRing
from raydex.serve.failures import failure_kind, respond_to
from raydex.serve.rates import Meter, Standing
from raydex.serve.recorder import Recorder

KEY, METER, STANDING = "raydex.key", "raydex.meter", "raydex.standing"
OPEN_ROUTES = frozenset({"/healthz", "/readyz"})
ADMIN = "/admin"

KEYS_COUNTED = 50
"""By id: each is a series in Prometheus, for each replica."""

HARMLESS_HOST = re.compile(r"[^.]*|.*\.localhost|[0-9.]+|\[[0-9a-f:.]+\]", re.IGNORECASE)
"""Names that no stranger's DNS can bring to this machine: those without a dot, localhost, addresses."""


EPOCH = datetime.fromtimestamp(0, UTC)


def _unnamed(name: str, *, indexes: frozenset[str] | None) -> Key:
    return Key(key_id=name, name=name, sha256=NO_HASH, scopes=frozenset({"search"}), indexes=indexes, created_at=EPOCH)


ANONYMOUS = _unnamed("anonymous", indexes=None)
STRANGER = _unnamed("stranger", indexes=frozenset())
"""Who asks an open route without a key while keys are on."""


def allowed_indexes(scope: Scope) -> frozenset[str] | None:
    """Return the indexes that the caller may see; None: all."""
    key: Key | None = scope.get(KEY)
    return key.indexes if key else None


async def charge(scope: Scope, requests: int) -> None:
    """Count a request as so many more. Raises RateLimited."""
    meter: Meter | None = scope.get(METER)
    if meter and requests > 0:
        scope[STANDING] = standing = await meter.count(scope[KEY] or ANONYMOUS, requests)
        if standing.error:
            raise standing.error


def check_start(config: ServeConfig) -> None:
    """Raise ConfigError when the service would be open to others, and nobody said that it may be."""
    keys = KeyRing(config.keys_path)
    if config.is_local or config.access.allow_anonymous or keys.usable():
        return
    where = config.keys_path or "--keys-file FILE"
    raise ConfigError(
        f"host {config.host} can be reached from other machines, and there is no usable API key in {where}. Create one "
        "(python serve_index.py --create-key NAME), or let everybody search with --allow-anonymous."
    )


class Access:
    """Lets a request through to the routes with scope["raydex.key"] set, or answers 401, 403 or 429."""

    def __init__(self, app: ASGIApp, *, config: ServeConfig, keys: KeyRing, meter: Meter, recorder: Recorder) -> None:
        self._app, self._config, self._keys, self._meter, self._recorder = app, config, keys, meter, recorder
        self._counted: set[str] = set()
        self._is_open = config.access.allow_anonymous
        self._guards_names = config.is_local and not self._is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            path = get_route_path(scope)  # as the router sees it: nothing may be admin to one and not to the other
            scope[KEY] = key = self._caller(scope, path)
            if key:
                self._count(key.key_id)
            if path not in OPEN_ROUTES:
                scope[METER] = self._meter
                scope[STANDING] = standing = await self._meter.count(key or ANONYMOUS)
                if standing.headers:
                    send = _telling(scope, send)
                if standing.error:
                    raise standing.error
        except RaydexError as error:
            self._recorder.count("raydex_refused_requests", reason=failure_kind(error))
            await respond_to(scope, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _count(self, key_id: str) -> None:
        if len(self._counted) < KEYS_COUNTED:
            self._counted.add(key_id)
        self._recorder.count("raydex_key_requests", key=key_id if key_id in self._counted else "other")

    def _caller(self, scope: Scope, path: str) -> Key | None:
        """Return who asks; None: anybody, while keys are off. Raises AuthError or Forbidden."""
        is_admin = path == ADMIN or path.startswith(ADMIN + "/")
        headers = _headers(scope)
        token = _token(headers)
        if not self._keys.is_on:
            return self._keyless(path, headers, is_admin=is_admin)
        key = self._keys.find(token) if token else None
        if path in OPEN_ROUTES:
            return key or STRANGER
        if key is None:
            if token or is_admin or not self._is_open:
                raise AuthError(is_given=bool(token))
            return ANONYMOUS
        if (needed := "admin" if is_admin else "search") not in key.scopes:
            raise Forbidden(f"the scope {needed} is needed; this key has {', '.join(sorted(key.scopes))}.")
        return key

    def _keyless(self, path: str, headers: dict[bytes, bytes], *, is_admin: bool) -> Key | None:
        """Return who asks while keys are off. A page of another site can make a browser ask a service on loopback."""
        if is_admin and (self._is_open or not self._config.is_local):
            raise AuthError
        if self._is_open:
            return ANONYMOUS
        if path in OPEN_ROUTES:
            return None
        if is_admin and (b"origin" in headers or b"sec-fetch-site" in headers):
            raise Forbidden("a browser needs an API key for this (docs/access.md).")
        host = headers.get(b"host", b"").decode("latin-1")
        if self._guards_names and not HARMLESS_HOST.fullmatch(re.sub(r":\d*$", "", host)):
            raise Forbidden(
                "without API keys, only this machine's own names and addresses are answered. Create a key, or start "
                "with --allow-anonymous (docs/access.md)."
            )
        return None


def _telling(scope: Scope, send: Send) -> Send:
    """Return a `send` that adds what the caller is to know of its limits."""

    async def send_told(message: Message) -> None:
        if message["type"] == "http.response.start":
            standing: Standing = scope[STANDING]
            message["headers"] = [*message.get("headers", ()), *standing.headers]
        await send(message)

    return send_told


READ = frozenset({b"authorization", b"x-api-key", b"host", b"origin", b"sec-fetch-site"})


def _headers(scope: Scope) -> dict[bytes, bytes]:
    return {name: value for name, value in scope["headers"] if name in READ}


def _token(headers: dict[bytes, bytes]) -> str:
    """Return what was given as a key; a proxy may need Authorization for itself, so X-API-Key comes second."""
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        value = headers.get(b"x-api-key", b"")
    return value.strip().decode("latin-1")
