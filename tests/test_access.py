"""Who may do what over HTTP, in process: keys on and off, scopes, indexes, addresses."""

import base64
import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from starlette.testclient import TestClient

import serve_index
from raydex.config import CODE_VERSION, AccessConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import ConfigError
from raydex.keys import create_key
from raydex.serve.access import check_start
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.headers import add_security_headers
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from tests.snapshots import make_snapshot
from utils.logs import EventFormatter

PAGE = "https://docs.example.org/io.html"
SECRET_PAGE = "https://intern.example.org/plans.html"
QUESTION = {"query": "open a file"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two published indexes; no keys."""
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", {f"{PAGE}#reading": "Open a file and read it."}, HashEmbedder())
    make_snapshot(data_dir / "intern", {f"{SECRET_PAGE}#file": "Open a file of the board."}, HashEmbedder())
    return data_dir


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def client_for(data_dir: Path, keys_file: Path, *, index: tuple[str, ...] = (), **access: Any) -> TestClient:
    settings = {key: access.pop(key) for key in ("host",) if key in access}
    config = ServeConfig(data_dir=data_dir, index=index, access=AccessConfig(keys_file=keys_file, **access), **settings)
    app = create_app(DirectBackend(Engine(config), MemoryRecorder()), config)

    @app.post("/admin/who")
    async def who(request: Request) -> str:
        key = request.scope["raydex.key"]
        return key.key_id if key else "anybody"

    return TestClient(app)


@pytest.fixture
def client(data_dir: Path, keys_file: Path) -> Iterator[TestClient]:
    """A service with keys on; `keys_file` has one of each kind."""
    create_key(keys_file, "first")
    with client_for(data_dir, keys_file) as client:
        yield client


def bearer(keys_file: Path, **rights: Any) -> dict[str, str]:
    """Create a key before the service starts, and return the header that carries it."""
    return {"Authorization": f"Bearer {create_key(keys_file, 'test', **rights)[0]}"}


def test_with_keys_a_request_without_one_is_refused_with_one_body_whatever_is_wrong(data_dir, keys_file):
    token, key = create_key(keys_file, "ci")
    other, _ = create_key(keys_file, "other")
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer {token[:-1]}"},
        {"Authorization": f"Bearer rdx_{key.key_id}_{other.split('_', 2)[2]}"},
        {"Authorization": f"Basic {token}"},
        {"X-API-Key": "nonsense"},
        {"X-API-Key": token + "ü"},
    ]
    bodies = set()
    with client_for(data_dir, keys_file) as client:
        for headers in wrong:
            encoded = {n.encode(): value.encode("latin-1") for n, value in {**headers, "X-Request-Id": "r1"}.items()}
            response = client.get("/search", params=QUESTION, headers=encoded)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"].startswith('Bearer realm="raydex"')
            bodies.add(response.text)
    assert len(bodies) == 1
    assert '"type":"auth_error"' in bodies.pop()


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "Bearer  {} "])
def test_a_key_is_taken_from_authorization_or_x_api_key(data_dir, keys_file, scheme):
    token, _ = create_key(keys_file, "ci")
    with client_for(data_dir, keys_file) as client:
        assert client.get("/search", params=QUESTION, headers={"Authorization": scheme.format(token)}).is_success
        assert client.get("/search", params=QUESTION, headers={"X-API-Key": token}).is_success
        beside = {"Authorization": "Basic cHJveHk6cHJveHk=", "X-API-Key": token}
        assert client.get("/search", params=QUESTION, headers=beside).is_success


@pytest.mark.parametrize(
    "path", ["/search?query=x", "/indexes", "/suggest?query=x", "/sections/x", "/docs", "/openapi.json", "/no/such"]
)
def test_everything_but_health_needs_a_key(client, path):
    assert client.get(path).status_code == 401
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_readiness_names_no_index_to_a_stranger(data_dir, keys_file):
    key = bearer(keys_file, indexes=["docs"])
    with client_for(data_dir, keys_file) as client:
        assert client.get("/readyz").json()["snapshot"] == {}
        assert client.get("/readyz", headers={"X-API-Key": "wrong"}).json()["snapshot"] == {}
        assert list(client.get("/readyz", headers=key).json()["snapshot"]) == ["docs"]
    with client_for(data_dir, keys_file, index=("docs", "unbuilt")) as client:
        refused = client.get("/readyz")
        assert refused.status_code == 503
        assert "unbuilt" not in refused.text


def test_admin_routes_need_the_scope_admin_and_search_routes_the_scope_search(data_dir, keys_file):
    searching, ruling = bearer(keys_file, scopes=["search"]), bearer(keys_file, scopes=["admin"])
    with client_for(data_dir, keys_file) as client:
        assert client.post("/admin/who").status_code == 401
        refused = client.post("/admin/who", headers=searching)
        assert refused.status_code == 403
        assert refused.json()["error"]["type"] == "forbidden"
        assert "the scope admin is needed" in refused.json()["error"]["message"]
        assert client.post("/admin/who", headers=ruling).status_code == 200
        assert client.get("/search", params=QUESTION, headers=ruling).status_code == 403
        for path in ("/admin", "/admin/", "/admin/none", "//admin/who", "/admin//who", "/./admin/who", "/%61dmin/who"):
            assert client.post(path, headers=searching).status_code in {403, 404}, path


def test_a_key_sees_its_indexes_and_the_others_do_not_exist_for_it(data_dir, keys_file):
    key = bearer(keys_file, indexes=["docs", "gone"])
    with client_for(data_dir, keys_file) as client:
        client.headers.update(key)
        answer = client.get("/search", params=QUESTION).json()
        assert {hit["index"] for hit in answer["results"]} == {"docs"}
        assert list(answer["snapshot"]) == ["docs"]
        batch = client.post("/search", json={"queries": ["open a file"]}).json()
        assert list(batch["snapshot"]) == ["docs"]
        assert [index["name"] for index in client.get("/indexes").json()["indexes"]] == ["docs"]
        assert client.get("/sections/https%3A%2F%2Fdocs.example.org%2Fio.html%23reading").status_code == 200
        hidden = client.get("/sections/https%3A%2F%2Fintern.example.org%2Fplans.html%23file")
        assert hidden.status_code == 404
        for ask in (
            lambda name: client.get("/search", params={**QUESTION, "index": name}),
            lambda name: client.get("/search", params={**QUESTION, "index": ["docs", name]}),
            lambda name: client.post("/search", json={"queries": ["x"], "index": [name]}),
            lambda name: client.get("/suggest", params={"query": "op", "index": name}),
        ):
            there, nowhere = ask("intern"), ask("nowhere")
            assert there.status_code == nowhere.status_code == 404
            for response in (there, nowhere):
                assert "served: docs." in response.json()["error"]["message"]


def test_an_index_that_a_key_may_not_see_is_not_named_when_it_is_not_ready(data_dir, keys_file):
    key, all_of_them = bearer(keys_file, indexes=["docs"]), bearer(keys_file)
    with client_for(data_dir, keys_file, index=("docs", "unbuilt")) as client:
        assert "unbuilt" in client.get("/search", params=QUESTION, headers=all_of_them).json()["message"]
        assert client.get("/search", params=QUESTION, headers=key).json()["message"] == ""
        assert client.get("/search", params={**QUESTION, "index": "unbuilt"}, headers=key).status_code == 404


def test_a_key_none_of_whose_indexes_is_served_learns_of_no_other(data_dir, keys_file):
    key = bearer(keys_file, indexes=["gone"])
    with client_for(data_dir, keys_file) as client:
        refused = client.get("/search", params=QUESTION, headers=key)
        assert refused.status_code == 404
        assert "no index 'gone'; served: none." in refused.json()["error"]["message"]


def test_without_keys_a_service_on_loopback_serves_and_rules(data_dir, keys_file):
    with client_for(data_dir, keys_file) as client:
        assert client.get("/search", params=QUESTION).is_success
        assert client.post("/admin/who").json() == "anybody"


def test_without_keys_another_site_cannot_make_a_browser_ask_for_it(data_dir, keys_file):
    with client_for(data_dir, keys_file) as client:
        for header in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.post("/admin/who", headers=header).status_code == 403
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "a.b."):
            assert client.get("/search", params=QUESTION, headers={"Host": host}).status_code == 403, host
            assert client.get("/healthz", headers={"Host": host}).status_code == 200
        for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000", "app.localhost", "docs-service", "10.0.0.7"):
            assert client.get("/search", params=QUESTION, headers={"Host": host}).is_success, host


def test_allow_anonymous_lets_everybody_search_but_not_rule(data_dir, keys_file):
    with client_for(data_dir, keys_file, allow_anonymous=True, host="0.0.0.0") as client:
        assert client.get("/search", params=QUESTION, headers={"Host": "docs.example.org"}).is_success
        assert client.post("/admin/who").status_code == 401
    ruling = bearer(keys_file, scopes=["admin"])
    with client_for(data_dir, keys_file, allow_anonymous=True, host="0.0.0.0") as client:
        assert client.get("/search", params=QUESTION).is_success
        assert client.get("/search", params=QUESTION, headers={"X-API-Key": "wrong"}).status_code == 401
        assert client.post("/admin/who").status_code == 401
        assert client.post("/admin/who", headers=ruling).is_success


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "docs.example.org"])
def test_a_public_address_needs_a_usable_key_or_a_word(data_dir, keys_file, host, capsys):
    config = ServeConfig(data_dir=data_dir, host=host, access=AccessConfig(keys_file=keys_file))
    with pytest.raises(ConfigError, match=rf"host {host} can be reached.*--create-key.*--allow-anonymous"):
        check_start(config)
    assert serve_index.main(["--data-dir", str(data_dir), "--host", host, "--keys-file", str(keys_file)]) == 2
    assert "there is no usable API key" in capsys.readouterr().err
    check_start(config.model_copy(update={"access": AccessConfig(keys_file=keys_file, allow_anonymous=True)}))
    create_key(keys_file, "ci")
    check_start(config)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_key(data_dir, keys_file, host):
    check_start(ServeConfig(data_dir=data_dir, host=host, access=AccessConfig(keys_file=keys_file)))


def test_every_response_tells_browsers_to_keep_and_load_nothing(data_dir, keys_file):
    key = bearer(keys_file)
    with client_for(data_dir, keys_file) as client:
        for response in (
            client.get("/search", params=QUESTION, headers=key),
            client.get("/search", params=QUESTION),
            client.get("/search", headers=key),
            client.get("/no/such", headers=key),
            client.get("/healthz"),
        ):
            assert len(response.headers.raw) == len(dict(response.headers.raw)), "a header is said twice"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_a_response_that_says_a_header_itself_keeps_it():
    own = [(b"content-security-policy", b"default-src 'self'"), (b"x-content-type-options", b"nosniff")]
    message: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": own}
    add_security_headers(message)
    assert len(dict(message["headers"])) == len(message["headers"])
    assert dict(message["headers"])[b"content-security-policy"] == b"default-src 'self'"
    assert dict(message["headers"])[b"cache-control"] == b"no-store"


def test_no_response_names_the_version_of_the_program(data_dir, keys_file):
    with client_for(data_dir, keys_file) as client:
        for path in ("/openapi.json", "/docs", "/healthz", "/no/such", "/search?query=x"):
            response = client.get(path)
            assert CODE_VERSION not in response.text + str(response.headers), path


def test_the_policy_of_the_docs_page_allows_what_the_page_needs_and_nothing_else(data_dir, keys_file):
    with client_for(data_dir, keys_file) as client:
        response = client.get("/docs")
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts}
    files = set(re.findall(r'<script src="([^"]+)"', response.text))
    assert scripts
    assert files
    assert set(policy["script-src"].split()) == hashes | files
    assert set(re.findall(r'rel="stylesheet" href="([^"]+)"', response.text)) <= set(policy["style-src"].split())
    assert policy["connect-src"] == "'self'"
    assert policy["default-src"] == "'none'"


def test_a_page_of_a_named_origin_may_say_who_asks_and_of_which_trace(data_dir, keys_file):
    ours = "https://docs.example.org"
    names = "authorization, x-api-key, x-request-id, x-session-id, content-type, traceparent, tracestate"
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names}
    with client_for(data_dir, keys_file, cors_origins=[ours]) as client:
        assert client.options("/search", headers={"Origin": ours, **preflight}).status_code == 200
        other = {**preflight, "Access-Control-Request-Headers": "x-forwarded-for"}
        assert client.options("/search", headers={"Origin": ours, **other}).status_code == 400


def test_cross_origin_requests_are_off_unless_an_origin_is_named(data_dir, keys_file):
    key = bearer(keys_file)
    ours, other = "https://docs.example.org", "https://evil.example"
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    with client_for(data_dir, keys_file) as client:
        assert client.options("/search", headers={"Origin": ours, **preflight}).status_code == 401
        answer = client.get("/search", params=QUESTION, headers={**key, "Origin": ours})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    with client_for(data_dir, keys_file, cors_origins=[ours]) as client:
        allowed = client.options("/search", headers={"Origin": ours, **preflight})
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == ours
        assert client.options("/search", headers={"Origin": other, **preflight}).status_code == 400
        answer = client.get("/search", params=QUESTION, headers={**key, "Origin": ours})
        assert answer.headers["Access-Control-Allow-Origin"] == ours
        assert "RateLimit" in answer.headers["Access-Control-Expose-Headers"]
        refused = client.get("/search", params=QUESTION, headers={"Origin": ours})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, ours)
        answer = client.get("/search", params=QUESTION, headers={**key, "Origin": other})
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_wrong_origin_is_refused(data_dir):
    with pytest.raises(ValueError, match=r"not an origin such as https://docs\.example\.org: docs\.example\.org"):
        AccessConfig(cors_origins=("docs.example.org",))


def access_lines(caplog):
    return [line for line in caplog.text.splitlines() if "raydex.serve.accesslog" in line]


def test_the_access_log_has_one_line_a_request_and_never_the_query_or_the_key(data_dir, keys_file, caplog):
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(EventFormatter("text"))
    token, key = create_key(keys_file, "ci")
    with client_for(data_dir, keys_file) as client:
        headers = {"Authorization": f"Bearer {token}", "X-Request-Id": "r1"}
        client.get("/search", params={"query": "burning question"}, headers=headers)
        client.post("/search", json={"queries": ["burning question"]}, headers={"X-API-Key": token})
        client.get("/sections/burning-question", headers={"X-API-Key": token})
        client.get("/burning/question", headers={"X-API-Key": token[:-1]})
    lines = access_lines(caplog)
    assert len(lines) == 4
    assert re.fullmatch(
        rf".* request answered method=GET route=/search status=200 seconds=\d\.\d{{4}} key={key.key_id} request_id=r1"
        r" snapshots=\S+",
        lines[0],
    )
    assert "method=POST route=/search status=200" in lines[1]
    assert "route=/sections/{section_id:path} status=404" in lines[2]
    assert "method=GET route=other status=401" in lines[3]
    assert "key=- " in lines[3]
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("raydex"))
    assert "burning" not in ours
    assert token.split("_", 2)[2][:20] not in caplog.text


def test_the_access_log_can_be_switched_off_or_told_to_write_queries_which_stay_in_their_line(
    data_dir, keys_file, caplog
):
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(EventFormatter("text"))
    with client_for(data_dir, keys_file, access_log="off") as client:
        client.get("/search", params=QUESTION)
    assert not access_lines(caplog)
    with client_for(data_dir, keys_file, access_log="queries") as client:
        client.get("/search?query=a%0Amethod=GET", headers={"X-Request-Id": "r1 key=admin"})
    (line,) = access_lines(caplog)
    assert 'key=- request_id="r1 key=admin" ' in line
    assert line.endswith("query=query=a%0Amethod=GET")


def test_an_admin_key_rules_only_the_indexes_it_may_see(data_dir, keys_file):
    key = bearer(keys_file, scopes=["admin"], indexes=["docs"])
    with client_for(data_dir, keys_file) as client:
        client.headers.update(key)
        assert list(client.post("/admin/reload").json()["snapshot"]) == ["docs"]
        for name in ("intern", "nowhere"):
            refused = client.post("/admin/rollback", json={"index": name})
            assert refused.status_code == 404
            assert "served: docs." in refused.json()["error"]["message"]


def test_requests_are_counted_by_key_and_those_of_many_keys_together(data_dir, keys_file, monkeypatch):
    monkeypatch.setattr("raydex.serve.access.KEYS_COUNTED", 1)
    (first, known), (second, _) = (create_key(keys_file, name) for name in ("first", "second"))
    recorder = MemoryRecorder()
    config = ServeConfig(data_dir=data_dir, access=AccessConfig(keys_file=keys_file))
    client = TestClient(create_app(DirectBackend(Engine(config), recorder), config))
    for token in (first, second, first):
        assert client.get("/search", params=QUESTION, headers={"X-API-Key": token}).status_code == 200
    assert recorder.values("raydex_key_requests", key=known.key_id) == [1, 1]
    assert recorder.values("raydex_key_requests", key="other") == [1]
