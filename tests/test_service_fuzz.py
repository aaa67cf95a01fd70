"""Whatever is sent to the service: never a 5xx, never an answer that its OpenAPI schema does not describe.

More examples: HYPOTHESIS_PROFILE=deep python -m pytest tests/test_service_fuzz.py
"""

import json
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection

from raydex.config import AnalyticsConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from raydex.serve.schemas import BatchRequest, SearchParameters
from tests.asgi import JSON, Answer, ask, check_refusal, escaped
from tests.snapshots import make_snapshot

TEXTS = {
    "https://docs.example.org/io.html#read": "How do I read a file line by line? Open it and loop.",
    "https://docs.example.org/dates.html#parse": "strptime parses a date from a string.",
}
WITH_PARAMETERS = (
    "GET /search",
    "POST /search",
    "GET /suggest",
    "POST /admin/rollback",
    "POST /feedback",
    "GET /admin/report",
)
OPERATIONS = (
    *WITH_PARAMETERS,
    "GET /sections/{section_id}",
    "GET /indexes",
    "GET /healthz",
    "GET /readyz",
    "POST /admin/reload",
)
MEGABYTE = 1_000_000

texts = st.text(st.characters(), max_size=60)  # halves of surrogate pairs, control characters and all
numbers = st.integers() | st.floats() | st.sampled_from([10**30, -1, 0, 2**63])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(sorted(BatchRequest.model_fields.keys() | SearchParameters.model_fields.keys()))
plausible = st.fixed_dictionaries({"queries": st.just(["read a file"])})


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", TEXTS, HashEmbedder())
    config = ServeConfig(data_dir=data_dir, analytics=AnalyticsConfig(query_log="text"))
    return create_app(DirectBackend(Engine(config), MemoryRecorder()), config)


@pytest.fixture(scope="module")
def schema(app: Any) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def check(answer: Answer) -> Answer:
    """Assert that an answer is good, or a refusal in the one shape."""
    if answer.status != 200:
        check_refusal(answer)
    return answer


# schemathesis 4 draws from `random` inside of its own strategies
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize(
    ("mode", "operation"),
    [
        *((GenerationMode.POSITIVE, operation) for operation in OPERATIONS),
        *((GenerationMode.NEGATIVE, operation) for operation in WITH_PARAMETERS),
    ],
)
def test_answers_are_what_the_openapi_schema_says_and_never_a_5xx(schema, operation, mode):
    method, path = operation.split()
    statuses = Counter[int]()

    @settings(suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case[Any]) -> None:
        fields = case.body.values() if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) else ()
        assume(not any(isinstance(value, float) for value in fields))  # 5.0 is an integer to JSON Schema, not to us
        response = case.call()
        statuses[response.status_code] += 1
        excluded: list[schemathesis.CheckFunction] = []
        if response.status_code == 504 and response.json()["error"]["type"] == "deadline_exceeded":
            excluded = [not_a_server_error]
        elif response.status_code in {413, 414}:  # rejected, only not in the way that the check knows
            excluded = [negative_data_rejection]
        case.validate_response(response, excluded_checks=excluded)

    run()
    assert statuses


def test_every_operation_of_the_schema_is_tried(schema):
    assert {operation.ok().label for operation in schema.get_all_operations()} == set(OPERATIONS)


@given(query=texts)
@example(query="\ud800")
@example(query="\x00")
@example(query='"' * 3000)
@example(query="-x " * 1000)
@example(query="a" * MEGABYTE)
@example(query="\N{GREEK SMALL LETTER ALPHA}\N{COMBINING ACUTE ACCENT}" * 2000)
@example(query="\u202e\u200f\ufeff right to left")
def test_any_text_is_searched_or_refused(app, query):
    for route in ("/search", "/suggest"):
        check(ask(app, "GET", route, query=b"query=" + escaped(query)))


@given(text=texts, name=names)
@example(text="9" * 5000, name="k")
@example(text="NaN", name="offset")
@example(text="1e999", name="timeout_ms")
@example(text="\ud800", name="index")
@example(text="*" * 3000, name="path")
def test_any_value_of_a_parameter_is_taken_or_refused(app, text, name):
    check(ask(app, "GET", "/search", query=b"query=read&%s=%s" % (name.encode(), escaped(text))))


@given(query=st.binary(max_size=80))
@example(query=b"query=%")
@example(query=b"query=%00&query=%ff")
@example(query=b"&&==&query&=x")
@example(query=b"query=read;k=1")
@example(query=b"&".join(b"a%d=1" % number for number in range(5000)))
@example(query=b"query=read" + b"&k=1" * 9000)
def test_any_bytes_after_the_question_mark_are_taken_or_refused(app, query):
    for route in ("/search", "/suggest"):
        check(ask(app, "GET", route, query=query))


@given(body=st.binary(max_size=80) | anything.map(lambda value: json.dumps(value).encode()))
@example(body=b'{"queries": ["x"], "k": NaN}')
@example(body=b'{"queries": ["x"], "offset": Infinity}')
@example(body=b'{"queries": ["x"], "k": 1e400}')
@example(body=b'{"queries": ["x"], "k": 1%s}' % (b"0" * 5000))
@example(body=b'{"queries": ["x"], "k": 1.0}')
@example(body=b'{"queries": ["x"], "queries": ["\\ud800"]}')
@example(body=b'{"queries": ["x"], "source": ["\\ud800"]}')
@example(body=b'{"queries": ["x"], "index": ["\\ud800"]}')
@example(body=b'{"queries": ["x"], "\\ud800": 1}')
@example(body=b'{"queries": ["%s"]}' % (b"a" * MEGABYTE))
@example(body=b'{"queries": ["%s"]}' % (b"a" * (MEGABYTE - 20)))
@example(body=b"[" * MEGABYTE)
@example(body=b'[{"a":' * 100_000)
@example(body=b"[]," * 300_000)
@example(body=b'"' + b"\\" * 900_001)
@example(body=b"\xff\xfe" + '{"queries": ["x"]}'.encode("utf-16-le"))
@example(body=b"\xef\xbb\xbf" + b'{"queries": ["x"]}')
def test_any_body_is_answered_or_refused(app, body):
    check(ask(app, "POST", "/search", body=body, headers=JSON))


@given(fields=st.dictionaries(names, anything, max_size=4), base=plausible)
def test_any_values_in_a_body_are_taken_or_refused(app, fields, base):
    check(ask(app, "POST", "/search", body=json.dumps({**base, **fields}).encode(), headers=JSON))


@given(
    kind=st.text(st.characters(max_codepoint=255), max_size=40)
    | st.sampled_from(["", "text/plain", "multipart/form-data"])
)
@example(kind="application/json; charset=utf-16")
@example(kind="multipart/form-data; boundary=x")
@example(kind="application/x-www-form-urlencoded")
@example(kind="application/problem+json; charset=nonsense")
def test_any_content_type_is_answered_or_refused(app, kind):
    header = (b"content-type", kind.encode("latin-1"))
    check(ask(app, "POST", "/search", body=b'{"queries": ["read"]}', headers=[header]))


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW", "get", ""])
@pytest.mark.parametrize("path", ["/search", "/suggest", "/indexes", "/sections/x", "/healthz", "/readyz"])
def test_a_method_that_no_route_has_is_refused_in_the_one_shape(app, method, path):
    answer = ask(app, method, path, query=b"query=x")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) <= {"GET", "POST"}
    check_refusal(answer)


@given(path=texts)
@example(path="../../etc/passwd")
@example(path="\x00")
@example(path="\ud800")
@example(path="x" * 100_000)
def test_any_section_and_any_path_is_found_or_refused(app, path):
    check(ask(app, "GET", f"/sections/{escaped(path).decode()}"))
    answer = ask(app, "GET", f"/{escaped(path).decode()}")
    assert answer.status == 200 or check_refusal(answer)


@given(
    name=st.sampled_from(["x-request-id", "accept", "accept-encoding", "cookie", "host"]), value=st.binary(max_size=60)
)
@example(name="x-request-id", value=b"\xff")
@example(name="x-request-id", value=b"a\r\nSet-Cookie: x=1")
@example(name="x-request-id", value=b"x" * 5000)
@example(name="cookie", value=b"x" * MEGABYTE)
def test_any_header_is_taken_or_refused(app, name, value):
    answer = check(ask(app, "GET", "/search", query=b"query=x&k=0", headers=[(name.encode(), value)]))
    assert "\r" not in answer.headers["x-request-id"]
