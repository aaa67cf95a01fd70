"""The well-known recipe, whole: LangChain's loader, splitter and FAISS in Ray tasks, merged and saved.

    python bench/recipe_build.py URL FOLDER     last line of stdout: JSON

RecursiveUrlLoader with BeautifulSoup text → RecursiveCharacterTextSplitter 500/50 in Ray tasks → FAISS.from_documents
for each batch in Ray tasks → merge_from → save_local, as the documentation of these libraries shows it. One batch for
each processor; all-MiniLM-L6-v2 through HuggingFaceEmbeddings with its defaults.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import ray
from bs4 import BeautifulSoup
from langchain_community.document_loaders import RecursiveUrlLoader
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_text_splitters import RecursiveCharacterTextSplitter

NO_DEPTH_LIMIT = 100_000


@ray.remote
def split(documents: list[Document]) -> list[Document]:
    return RecursiveCharacterTextSplitter(chunk_size=500, chunk_overlap=50).split_documents(documents)


@ray.remote
def embed(chunks: list[Document], model: str) -> FAISS:
    return FAISS.from_documents(chunks, HuggingFaceEmbeddings(model_name=model))


def main(url: str, folder: str, model: str) -> dict[str, Any]:
    logging.disable(logging.WARNING)  # a line for each broken link
    sys.setrecursionlimit(NO_DEPTH_LIMIT)
    started = time.perf_counter()
    ray.init(log_to_driver=False)
    loader = RecursiveUrlLoader(
        url,
        max_depth=NO_DEPTH_LIMIT,
        prevent_outside=True,
        timeout=20,
        check_response_status=True,
        extractor=lambda html: BeautifulSoup(html, "html.parser").get_text(),
    )
    documents = [document for document in loader.load() if "html" in document.metadata["content_type"]]
    loaded = time.perf_counter()
    batches = max(1, int(ray.cluster_resources()["CPU"]))  # type: ignore[no-untyped-call]
    chunks = ray.get([split.remote(documents[number::batches]) for number in range(batches)])
    stores = ray.get([embed.remote(batch, model) for batch in chunks if batch])
    for other in stores[1:]:
        stores[0].merge_from(other)
    stores[0].save_local(folder)
    return {
        "pages": len(documents),
        "characters": sum(len(document.page_content) for document in documents),
        "chunks": sum(map(len, chunks)),
        "load_s": round(loaded - started, 2),
        "seconds": round(time.perf_counter() - started, 2),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from raydex.embed import resolve_model

    print(json.dumps(main(sys.argv[1], sys.argv[2], str(resolve_model("all-MiniLM-L6-v2")))))
