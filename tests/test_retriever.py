"""RaydexRetriever on the real app, as LangChain's own tests of retrievers have it, and beyond them."""

import asyncio
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from raydex.client import AsyncRaydexClient, RaydexClient
from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import ServiceError
from raydex.interop.retriever import RaydexRetriever
from raydex.snapshot import current_id
from tests.serving import serving
from tests.snapshots import make_snapshot

ROOT = Path(__file__).parents[1]
PAGE = "https://docs.example.org/io.html"
TEXTS = {
    f"{PAGE}#read": "how do I read a file",
    f"{PAGE}#write": "how do I write a file",
    "https://docs.example.org/run.html#run": "how do I run a program",
    "https://docs.example.org/run.html#stop": "how do I stop a program",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", TEXTS, HashEmbedder())
    return data_dir


@pytest.fixture(scope="module")
def client(data_dir: Path) -> Iterator[RaydexClient]:
    with serving(ServeConfig(data_dir=data_dir)) as url, RaydexClient(url) as client:
        client.wait_ready(30)
        yield client


class TestLangChain(RetrieversIntegrationTests):
    """The tests come with langchain-tests."""

    client: RaydexClient

    @pytest.fixture(autouse=True)
    def _service(self, client: RaydexClient) -> None:
        self.client = client

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RaydexRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"client": self.client}

    @property
    def retriever_query_example(self) -> str:
        return "how do I read a file"


def ask(retriever: RaydexRetriever, query: str, **options: Any) -> list[Document]:
    return retriever.invoke(query, None, **options)


def ask_awaiting(retriever: RaydexRetriever, query: str, **options: Any) -> list[Document]:
    """Ask with an async client of the event loop that waits."""

    async def awaited() -> list[Document]:
        async with AsyncRaydexClient(retriever.client.url) as client:
            of_loop = retriever.model_copy(update={"async_client": client})
            return await of_loop.ainvoke(query, None, **options)

    return asyncio.run(awaited())


def ask_in_a_thread(retriever: RaydexRetriever, query: str, **options: Any) -> list[Document]:
    return asyncio.run(retriever.ainvoke(query, None, **options))


@pytest.fixture(params=[ask, ask_awaiting, ask_in_a_thread])
def asked(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_document_says_where_it_is_from_and_how_well_it_answers(client, data_dir, asked):
    (found,) = asked(RaydexRetriever(client=client, k=1), "read a file")
    (result,) = client.search("read a file", k=1).results
    assert (found.id, found.page_content) == (result.chunk_id, "how do I read a file")
    assert found.metadata == {
        "source": f"{PAGE}#read",
        "title": "io.html",
        "headings": ["io.html", "read"],
        "score": result.score,
        "scores": result.scores,
        "section_id": f"{PAGE}#read",
        "index": "docs",
        "kind": "prose",
        "version": "",
        "snapshot": current_id(data_dir / "docs"),
    }


def test_filters_mode_and_grouping_are_fields_and_arguments(client, asked):
    retriever = RaydexRetriever(client=client, path=("/run.html",), mode="lexical")
    sources = [document.metadata["source"] for document in asked(retriever, "how do I read a program")]
    assert sorted(source.partition("#")[0] for source in sources) == ["https://docs.example.org/run.html"] * 2
    assert len(asked(retriever, "how do I read a program", group_by="page", path=[])) == 2
    assert asked(retriever, "program", index=["docs"], kind=("code",)) == []


def test_failures_are_those_of_the_client(client, asked):
    with pytest.raises(ServiceError, match="empty"):
        asked(RaydexRetriever(client=client), "")
    with pytest.raises(ServiceError, match="colour: unknown parameter"):
        asked(RaydexRetriever(client=client), "x", colour="red")


def test_it_is_a_link_of_a_chain_and_asks_several_at_once(client):
    chain = RaydexRetriever(client=client, k=1) | RunnableLambda(lambda documents: documents[0].page_content)
    assert chain.batch(["read a file", "stop a program"]) == ["how do I read a file", "how do I stop a program"]


def test_the_example_puts_what_it_finds_into_a_prompt(client, monkeypatch, capsys):
    example = ROOT / "examples" / "langchain_retriever.py"
    assert len(example.read_text().splitlines()) < 40
    monkeypatch.setattr(sys, "argv", [str(example), "how do I read a file", "--url", client.url])
    runpy.run_path(str(example), run_name="__main__")
    shown = capsys.readouterr().out
    assert f"[1] how do I read a file ({PAGE}#read)" in shown
    assert "Question: how do I read a file" in shown
