"""An S3 server on loopback: moto's, in a process of its own, which writes down every request.

with S3Server(tmp_path) as s3: s3.bucket("docs"); …; s3.requests() → ["PUT /docs/index/CURRENT 200", …]
"""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.processes import free_port
from tests.waiting import eventually

_LINE = re.compile(r'"(?:\x1b\[[0-9;]*m)*(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1.1(?:\x1b\[[0-9;]*m)*" (\d+)')


class S3Server:
    """environment: what the AWS library must find in os.environ to talk to this server and to no other."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        }
        self._log = folder / "s3.log"
        self._read = 0

    def __enter__(self) -> "S3Server":
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "moto.server", "-p", self.url.rpartition(":")[2]]
            environment = {**os.environ, **self.environment, "AWS_ENDPOINT_URL_S3": ""}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        eventually(self._answers, within_s=60)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
        except urllib.error.URLError:
            return False
        return True

    def client(self) -> Any:
        """Return Amazon's own client, as a second opinion."""
        import boto3

        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test-secret"}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)

    def objects(self, bucket: str) -> dict[str, int]:
        """Return name → length of everything in a bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}

    def requests(self) -> list[str]:
        """Return `METHOD path status` of the requests since the last call, in order; a listing is a `LIST prefix`."""
        text = self._log.read_text(errors="replace")
        fresh, self._read = text[self._read :], len(text)
        return [_request(*match.groups()) for match in _LINE.finditer(fresh)]


def _request(method: str, target: str, status: str) -> str:
    url = urlsplit(target)
    query = parse_qs(url.query)
    if "list-type" in query:
        return f"LIST {url.path}/{query.get('prefix', [''])[0]} {status}"
    return f"{method} {url.path} {status}"
