"""A running service in a LangChain chain: question → passages → prompt. Put a chat model of yours behind it.

python examples/langchain_retriever.py "how do I open a file" --url http://127.0.0.1:8000
"""

import argparse
import os
import sys
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from raydex.client import RaydexClient
from raydex.interop.retriever import RaydexRetriever

PROMPT = ChatPromptTemplate.from_template(
    "Answer from these passages, and cite them:\n{passages}\n\nQuestion: {question}"
)


def numbered(documents: list[Document]) -> str:
    return "\n".join(f"[{n}] {d.page_content} ({d.metadata['source']})" for n, d in enumerate(documents, start=1))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("question")
parser.add_argument("--url", default="http://127.0.0.1:8000")
options = parser.parse_args()
with RaydexClient(options.url, api_key=os.environ.get("RAYDEX_API_KEY", "")) as client:
    retriever = RaydexRetriever(client=client, k=3, group_by="section")
    chain = {"passages": retriever | numbered, "question": RunnablePassthrough()} | PROMPT  # | your chat model
    print(chain.invoke(options.question).to_string())
