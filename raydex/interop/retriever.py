"""A running service as a LangChain retriever.

RaydexRetriever(client=RaydexClient("http://127.0.0.1:8000"), k=4).invoke("how do I open a file") → [Document, …]
"""

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from raydex.client import RaydexClient, Result


class RaydexRetriever(BaseRetriever):
    """The passages a service finds, best first; metadata: source, title, score, headings. Failures are ServiceErrors.

    index: names of the indexes to ask; none of them: all.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    client: RaydexClient
    k: int = 10
    index: tuple[str, ...] = ()

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [_document(result) for result in self.client.search(query, k=self.k, index=self.index).results]


def _document(result: Result) -> Document:
    metadata = {"source": result.source, "title": result.title, "score": result.score, "headings": [*result.headings]}
    return Document(id=result.chunk_id, page_content=result.content, metadata=metadata)
