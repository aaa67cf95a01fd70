"""The real app, without Ray, served by uvicorn in a thread: what the client and its command line talk to.

with serving(ServeConfig(data_dir=tmp_path)) as url: …
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from raydex.config import ServeConfig
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder


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
