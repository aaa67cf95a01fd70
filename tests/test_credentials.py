"""Secrets come from the environment, go to the seeds' own origins, and are shown nowhere."""

import base64
import pickle
from typing import Any

import pytest

from raydex.crawl import credentials_of
from raydex.errors import ConfigError
from raydex.records import Source

SEED = "https://docs.example.org/guide/"
ENVIRONMENT = {"TOKEN": "s3cret-token", "USER": "reader", "PASSWORD": "p4ss:word", "EVIL": "a\r\nHost: b"}


def source(**fields: Any) -> Source:
    return Source(name="docs", **{"seeds": (SEED,), **fields})


def headers(origin: str = "https://docs.example.org", **fields: Any) -> dict[str, str]:
    return dict(credentials_of([source(**fields)], ENVIRONMENT)["docs"].headers_for(origin))


def test_templates_are_filled_from_the_environment():
    assert headers(headers=(("Authorization", "Bearer ${TOKEN}"),)) == {"Authorization": "Bearer s3cret-token"}
    assert headers(cookies="session=${TOKEN}; theme=dark") == {"Cookie": "session=s3cret-token; theme=dark"}
    login = base64.b64encode(b"reader:p4ss:word").decode()
    assert headers(basic_auth="${USER}:${PASSWORD}") == {"Authorization": f"Basic {login}"}


def test_a_source_without_templates_has_no_credentials():
    assert credentials_of([source()], ENVIRONMENT) == {}


@pytest.mark.parametrize(
    "origin",
    [
        "http://docs.example.org",
        "https://docs.example.org:8443",
        "https://example.org",
        "https://docs.example.org.evil.example",
        "https://cdn.example.net",
    ],
)
def test_another_scheme_port_or_host_gets_nothing(origin):
    assert headers(origin, headers=(("X-Key", "${TOKEN}"),)) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cookies": "session=${MISSING}"}, r"source 'docs', cookies: environment variable MISSING is not set"),
        ({"headers": (("Authorization", "Bearer literal"),)}, r"headers\.Authorization: take secrets from the env"),
        ({"basic_auth": "${TOKEN}"}, "basic_auth: write it as user:password"),
        ({"headers": (("X-Key", "${EVIL}"),)}, "EVIL holds a line break"),
        ({"headers": (("Host", "${TOKEN}"),)}, "'Host' is no header that a source may set"),
        ({"headers": (("Bad Name", "${TOKEN}"),)}, "'Bad Name' is no header"),
    ],
)
def test_a_mistake_is_named_with_source_key_and_variable_and_never_with_a_value(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        credentials_of([source(**fields)], ENVIRONMENT)
    assert not any(secret in str(caught.value) for secret in ("s3cret", "p4ss", "Host: b"))


def test_credentials_travel_between_processes_but_show_nothing():
    credentials = credentials_of([source(headers=(("X-Key", "${TOKEN}"),))], ENVIRONMENT)["docs"]
    copy = pickle.loads(pickle.dumps(credentials))  # noqa: S301 - Ray sends it like this
    assert dict(copy.headers_for("https://docs.example.org")) == {"X-Key": "s3cret-token"}
    assert "s3cret" not in f"{credentials} {credentials!r}"


def test_a_folder_with_credentials_sends_them_nowhere():
    credentials = credentials_of([source(seeds=("file:///srv/docs/",), cookies="a=${TOKEN}")], ENVIRONMENT)
    assert not any(dict(credentials[name].headers_for("https://docs.example.org")) for name in credentials)
