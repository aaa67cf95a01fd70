"""Answers as bytes: encoded once by msgspec, kept by snapshot, shared by all who ask the same at the same time.

Found → encode → Answer(body without its timings) → kept → + timings_s → the body of GET /search
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import msgspec

from raydex.records import Found, Hit

ENTRY_BYTES = 1000
"""What an answer takes beside its body: key, query, entry."""

Origin = Literal["computed", "kept", "shared"]

_encode = msgspec.json.Encoder().encode


class Passage(msgspec.Struct, frozen=True):
    """One result, with the fields of schemas.Result in their order."""

    rank: int
    score: float
    scores: dict[str, float]
    content: str
    highlights: tuple[tuple[int, int], ...]
    excerpt: tuple[int, int]
    source: str
    title: str
    headings: tuple[str, ...]
    kind: str
    version: str
    index: str
    section_id: str
    chunk_id: str
    more: list["Passage"]
    copies: tuple[str, ...]
    explanation: dict[str, float]


class Body(msgspec.Struct, frozen=True):
    """The answer with the fields of schemas.SearchResponse in their order, but for the last, timings_s."""

    status: Literal["ok"]
    message: str
    snapshot: Mapping[str, str]
    confidence: float | None
    shards_ok: str
    results: list[Passage]
    facets: dict[str, dict[str, int]]


class Outcome(NamedTuple):
    """What is counted of an answer. top_score: cosine of the result of rank 1, if it is there and was looked at.
    is_partial: some shards were not looked at.
    """

    hits: int
    confidence: float | None = None
    top_score: float | None = None
    is_partial: bool = False

    @classmethod
    def of(cls, found: Found) -> Self:
        top = found.hits[0] if found.hits and found.hits[0].rank == 1 else None
        return cls(len(found.hits), found.confidence, top.scores.get("dense") if top else None, found.is_partial)


class Answer(msgspec.Struct, frozen=True, gc=False):
    """body: JSON, open at its end. best: URL of the first result. is_whole: another try gives no better one."""

    body: bytes
    outcome: Outcome
    best: str = ""
    is_whole: bool = True

    def with_timings(self, seconds: Mapping[str, float]) -> bytes:
        rounded = {stage: round(taken, 6) for stage, taken in seconds.items()}
        return b'%b,"timings_s":%b}' % (self.body, _encode(rounded))


def encode(found: Found, *, message: str, snapshot: Mapping[str, str]) -> Answer:
    body = Body("ok", message, snapshot, found.confidence, shards_ok(found), passages(found.hits), found.facets)
    best = found.hits[0].chunk.url if found.hits else ""
    return Answer(_encode(body)[:-1], Outcome.of(found), best, not (found.fell_through or found.is_partial))


def shards_ok(found: Found) -> str:
    return f"{found.shards[0]}/{found.shards[1]}"


def passages(hits: Sequence[Hit]) -> list[Passage]:
    return [
        Passage(
            rank=hit.rank,
            score=hit.score,
            scores=hit.scores,
            content=hit.chunk.text,
            highlights=hit.highlights,
            excerpt=hit.excerpt,
            source=hit.chunk.url,
            title=hit.chunk.title,
            headings=hit.chunk.headings,
            kind=hit.kind,
            version=hit.version,
            index=hit.index,
            section_id=hit.chunk.section_id,
            chunk_id=hit.chunk.chunk_id,
            more=passages(hit.more),
            copies=hit.copies,
            explanation=hit.explanation,
        )
        for hit in hits
    ]


class Answers:
    """Answers of this replica. A key names the snapshots, so that what is kept cannot outlive a swap.

    For one event loop: nothing here is locked.
    """

    def __init__(self, most_bytes: int) -> None:
        """most_bytes: of what is kept, the least lately asked goes first; 0 keeps nothing."""
        self._most_bytes, self.bytes_kept = most_bytes, 0
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()
        self._under_way: dict[Hashable, asyncio.Future[Answer | None]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Answer]]) -> tuple[Answer, Origin]:
        """Return the answer and where it came from; make is called when it is neither kept nor under way.

        Who waits for another's answer is not hurt by what befalls the other: one of those who wait then makes it.
        """
        while (answer := self._kept.get(key)) is None:
            if (awaited := self._under_way.get(key)) is None:
                return await self._make(key, make), "computed"
            if (answer := await asyncio.shield(awaited)) is not None:
                return answer, "shared"
        self._kept.move_to_end(key)
        return answer, "kept"

    async def _make(self, key: Hashable, make: Callable[[], Awaitable[Answer]]) -> Answer:
        awaited: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._under_way[key], answer = awaited, None
        try:
            answer = await make()
            if answer.is_whole:
                self._keep(key, answer)
            return answer
        finally:
            del self._under_way[key]
            awaited.set_result(answer)

    def give_up(self, is_lost: Callable[[Any], bool]) -> None:
        """Keep no longer what nobody can ask for any more. is_lost: of a key."""
        for key in [key for key in self._kept if is_lost(key)]:
            self.bytes_kept -= _size(self._kept.pop(key))

    def _keep(self, key: Hashable, answer: Answer) -> None:
        self._kept[key] = answer
        self.bytes_kept += _size(answer)
        while self.bytes_kept > self._most_bytes:
            self.bytes_kept -= _size(self._kept.popitem(last=False)[1])


def _size(answer: Answer) -> int:
    return len(answer.body) + ENTRY_BYTES
