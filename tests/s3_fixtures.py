"""Fixtures of the tests on S3: one server for all, a bucket a test, machines by name."""

import re

import pytest

from tests.machines import Machine
from tests.s3 import S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch, request):
    """The server, with an empty bucket named after the test."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.name = re.sub(r"[^a-z0-9]+", "-", request.node.name[5:].lower())[-60:].strip("-")  # with its parameter
    s3_server.client().create_bucket(Bucket=s3_server.name)
    s3_server.uri = f"s3://{s3_server.name}/indexes"
    s3_server.requests()
    return s3_server


@pytest.fixture
def machine(s3, tmp_path, capsys):
    return lambda name: Machine(s3.uri, tmp_path / name, capsys)
