"""A running service as a LangChain retriever.

RaydexRetriever(client=RaydexClient("http://127.0.0.1:8000"), k=4).invoke("how do I open a file") → [Document, …]
"""

import asyncio
from typing import Any, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from raydex.client import AsyncRaydexClient, RaydexClient, SearchAnswer, SearchOptions

Names = tuple[str, ...]


class RaydexRetriever(BaseRetriever):
    """The passages a service finds, best first. Failures are ServiceErrors.

    Fields but the clients are options of a search, and so are named arguments of invoke: `invoke(query, k=3)`; unset
    ones are the service's to decide. async_client: of the event loop that awaits; without one a thread asks `client`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    client: RaydexClient
    async_client: AsyncRaydexClient | None = None
    k: int | None = None
    index: Names = ()
    mode: Literal["hybrid", "dense", "lexical"] | None = None
    group_by: Literal["none", "section", "page"] | None = None
    source: Names = ()
    version: Names = ()
    language: Names = ()
    kind: tuple[Literal["prose", "code", "api"], ...] = ()
    path: Names = ()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **changes: Any
    ) -> list[Document]:
        return _documents(self.client.search(query, **self._options(changes)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **changes: Any
    ) -> list[Document]:
        options = self._options(changes)
        if self.async_client is None:
            return _documents(await asyncio.to_thread(self.client.search, query, **options))
        return _documents(await self.async_client.search(query, **options))

    def _options(self, changes: dict[str, Any]) -> SearchOptions:
        chosen = {name: getattr(self, name) for name in SearchOptions.__annotations__ if hasattr(self, name)}
        wanted = {name: value for name, value in (chosen | changes).items() if value not in (None, ())}
        return cast(SearchOptions, wanted)


def _documents(answer: SearchAnswer) -> list[Document]:
    return [
        Document(
            id=result.chunk_id,
            page_content=result.content,
            metadata={
                "source": result.source,
                "title": result.title,
                "headings": [*result.headings],
                "score": result.score,
                "scores": result.scores,
                "section_id": result.section_id,
                "index": result.index,
                "kind": result.kind,
                "version": result.version,
                "snapshot": answer.snapshot.get(result.index, ""),
            },
        )
        for result in answer.results
    ]
