"""The real app without Ray, in the test's process or served by uvicorn in a thread: what a client talks to.

client_for(config_for(tmp_path)).get("/search", …)
with serving(ServeConfig(data_dir=tmp_path)) as url: …
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from raydex.config import ServeConfig
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder

PAGE = "https://docs.example.org/guide/io.html"
TEXTS = {
    f"{PAGE}#reading": "Open a file and read it line by line with a loop.",
    f"{PAGE}#writing": "Write text into a file and flush the buffer.",
    "https://docs.example.org/guide/dates.html#parse": "Parse a date from a string with a format.",
    "https://docs.example.org/guide/dates.html#zones": "Time zones shift a date by an offset.",
    "https://docs.example.org/guide/net.html?v=2#sockets": "A socket connects two programs.",
}
OTHER_TEXTS = {
    "https://other.example.org/a.html#files": "Open a file and read it line by line with another library.",
    "https://other.example.org/a.html#dates": "Calendars hold a date for every day.",
}
READING = "open a file and read it line by line"


def config_for(data_dir: Path, **settings: Any) -> ServeConfig:
    return ServeConfig(data_dir=data_dir, max_k=20, max_offset=50, max_query_chars=3000, max_batch=4, **settings)


def client_for(config: ServeConfig, recorder: MemoryRecorder | None = None) -> TestClient:
    backend = DirectBackend(Engine(config), recorder or MemoryRecorder())
    return TestClient(create_app(backend, config))


def assert_failure(response: Any, status: int, kind: str, *, field: str | None = None, says: str = "") -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert set(error) == {"type", "message", "field", "request_id"}
    assert (error["type"], error["field"]) == (kind, field)
    assert says in error["message"]
    assert error["request_id"] == response.headers["X-Request-Id"] != ""


@contextmanager
def serving(config: ServeConfig) -> Iterator[str]:
    """Serve the indexes of config.data_dir until the block ends; yield the URL."""
    app = create_app(DirectBackend(Engine(config), MemoryRecorder()), config)
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
