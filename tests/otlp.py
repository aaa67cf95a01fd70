"""A collector of spans in a process of its own: takes OTLP over HTTP (protobuf) and writes each span as a line of JSON.

python tests/otlp.py FILE        prints its endpoint, then serves until it is terminated

with collecting(tmp_path) as collector: … eventually(lambda: collector.spans("GET /search"))
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Collector:
    endpoint: str
    file: Path
    process: "subprocess.Popen[str]"

    def spans(self, name: str = "") -> list[dict[str, Any]]:
        """Return what came so far, all or those of one name."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [span for span in map(json.loads, lines) if name in {"", span["name"]}]


@contextmanager
def collecting(folder: Path) -> Iterator[Collector]:
    file = folder / "spans.jsonl"
    command = [sys.executable, __file__, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Collector(process.stdout.readline().strip(), file, process)
        finally:
            process.terminate()


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _lines(request: ExportTraceServiceRequest) -> Iterator[str]:
    for resource in request.resource_spans:
        of_resource = {pair.key: _value(pair.value) for pair in resource.resource.attributes}
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield json.dumps({
                "service": of_resource["service.name"],
                "name": span.name,
                "trace_id": span.trace_id.hex(),
                "span_id": span.span_id.hex(),
                "parent_id": span.parent_span_id.hex(),
                "started_ns": span.start_time_unix_nano,
                "ended_ns": span.end_time_unix_nano,
                "is_error": span.status.code == span.status.STATUS_CODE_ERROR,
                "facts": {pair.key: _value(pair.value) for pair in span.attributes},
            })  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with Path(sys.argv[1]).open("a") as out:
            out.writelines(f"{line}\n" for line in _lines(ExportTraceServiceRequest.FromString(body)))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/v1/traces", flush=True)  # noqa: T201 - for whoever started it
        server.serve_forever()
