"""LangChain on both sides: whatever its loaders load becomes pages, and a running service becomes a retriever.

1. `loaders` makes pages of the documents of any loader, for a build; it needs no LangChain of its own.
2. `retriever` asks a running service. Import it from there: langchain_core costs every process that loads it 0.5 s.
"""

from raydex.interop.loaders import load_documents, pages_of_loader

__all__ = ["load_documents", "pages_of_loader"]
