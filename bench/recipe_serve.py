"""The well-known recipe's service: a LangChain FAISS store behind Ray Serve, and the same in one FastAPI process.

    python bench/recipe_serve.py save checkpoints/docs FOLDER      the chunks and vectors of a snapshot as such a store
    python bench/recipe_serve.py ray FOLDER PORT [ONGOING]         one deployment on Ray Serve as it comes
    python bench/recipe_serve.py bare FOLDER PORT                  uvicorn alone

GET /search?query=… → [{"content", "source", "score"}, …], ten of them, embedded by HuggingFaceEmbeddings as it comes.
ONGOING: max_ongoing_requests; without it Ray's own 5.
"""

import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langchain_community.vectorstores import FAISS
from langchain_huggingface import HuggingFaceEmbeddings

from raydex.embed import resolve_model

MODEL = "all-MiniLM-L6-v2"
K = 10


def embeddings() -> HuggingFaceEmbeddings:
    return HuggingFaceEmbeddings(model_name=str(resolve_model(MODEL)))


def save(index_dir: Path, folder: str) -> None:
    from raydex.snapshot import open_snapshot

    texts: list[str] = []
    vectors: list[list[float]] = []
    about: list[dict[str, Any]] = []
    for shard in open_snapshot(index_dir, verify=False).shards:
        texts += shard.chunks["text"].to_pylist()
        vectors += shard.vectors[:].tolist()
        about += [{"source": url} for url in shard.chunks["url"].to_pylist()]
    FAISS.from_embeddings(list(zip(texts, vectors, strict=True)), embeddings(), about).save_local(folder)


class Search:
    def __init__(self, folder: str) -> None:
        self._store = FAISS.load_local(folder, embeddings(), allow_dangerous_deserialization=True)

    def search(self, query: str) -> list[dict[str, Any]]:
        found = self._store.similarity_search_with_score(query, k=K)
        return [
            {"content": document.page_content, "source": document.metadata["source"], "score": float(score)}
            for document, score in found
        ]

    def __call__(self, request: Any) -> list[dict[str, Any]]:
        return self.search(request.query_params["query"])


def serve_with_ray(folder: str, port: int, ongoing: str = "") -> None:
    import ray
    from ray import serve

    ray.init("local", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    options: dict[str, Any] = {"max_ongoing_requests": int(ongoing)} if ongoing else {}
    serve.run(serve.deployment(**options)(Search).bind(folder), route_prefix="/search")
    threading.Event().wait()


def serve_bare(folder: str, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI

    app, searcher = FastAPI(), Search(folder)

    @app.get("/search")
    def search(query: str) -> list[dict[str, Any]]:
        return searcher.search(query)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "save":
        save(Path(where), rest[0])
    elif what == "ray":
        serve_with_ray(where, int(rest[0]), *rest[1:])
    else:
        serve_bare(where, int(rest[0]))
