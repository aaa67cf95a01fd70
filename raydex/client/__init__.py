"""Talk to a running service: typed answers, typed errors, in blocking and in async code.

    with RaydexClient("http://127.0.0.1:8000", api_key="…") as client:
        for result in client.search("how do I open a file", k=3).results:
            print(result.score, result.source)

    async with AsyncRaydexClient("http://127.0.0.1:8000") as client:
        answer = await client.search("how do I open a file", k=3)

Every failure is a ServiceError. 429, 502, 503 and lost connections are asked again, no sooner than Retry-After says:
what is asked here reads, so it may be asked twice; of a verdict that may then count twice, little is lost.
"""

from raydex.client.answers import (
    BatchAnswer,
    IndexInfo,
    PageCount,
    QueryAnswer,
    QueryCount,
    Reformulation,
    ReportAnswer,
    Result,
    SearchAnswer,
    SectionAnswer,
    SuggestAnswer,
    Suggestion,
)
from raydex.client.asking import AsyncRaydexClient, ClientSettings, RaydexClient, SearchOptions

__all__ = [
    "AsyncRaydexClient",
    "BatchAnswer",
    "ClientSettings",
    "IndexInfo",
    "PageCount",
    "QueryAnswer",
    "QueryCount",
    "RaydexClient",
    "Reformulation",
    "ReportAnswer",
    "Result",
    "SearchAnswer",
    "SearchOptions",
    "SectionAnswer",
    "SuggestAnswer",
    "Suggestion",
]
