"""Threads that do the work of a replica: what waits is embedded in one call, then searched one after another.

    lane = Lane(embed, threads=1, batch=16, most_waiting=256)
    found = await lane.run((model_id, text), lambda vector: engine.find(…))

Nobody waits for a batch to fill: while one is worked on, the next gathers, so a single client never waits, and under
load the model reads several queries at once. One hop to a thread and back for each request, not one for each stage.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from raydex.errors import Overloaded
from raydex.records import Vectors

Result = TypeVar("Result")

EmbedItem = tuple[str, str]
"""(id of the model, text)"""

Embed = Callable[[Sequence[EmbedItem]], Sequence[Vectors]]


@dataclass(frozen=True, slots=True)
class _Job:
    item: EmbedItem | None
    work: Callable[[Vectors | None], Any]
    context: Context
    future: "asyncio.Future[Any]"
    queued_at: float


class Lane:
    """threads: how many work at once. most_waiting: more are refused, so that nobody waits in vain.

    begun: told the seconds that each job has waited when a thread takes it, in that thread.
    """

    def __init__(
        self,
        embed: Embed,
        *,
        threads: int,
        batch: int,
        most_waiting: int,
        begun: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._embed, self._threads, self._batch, self._most = embed, threads, batch, most_waiting
        self._begun = begun
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._admitted = 0
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"search-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many were let in and have no answer yet."""
        return self._admitted

    async def run(self, item: EmbedItem | None, work: Callable[[Vectors | None], Result]) -> Result:
        """Return what work makes of the item's vector (None without an item), done in a thread of this lane.

        Raises Overloaded when too many wait, and whatever the model or the work raises. Work that has not begun when
        its caller is cancelled is left out. The work sees the caller's context variables.
        """
        if self._admitted >= self._most:
            raise Overloaded(self._most)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._admitted += 1
        try:
            self._jobs.put(_Job(item, work, copy_context(), future, time.monotonic()))
            return await future
        finally:
            self._admitted -= 1

    def _serve(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            wanted = min(self._batch, -(-(self._jobs.qsize() + 1) // self._threads))
            try:
                while len(jobs) < wanted:
                    jobs.append(self._jobs.get_nowait())
            except Empty:
                pass
            self._work_on([job for job in jobs if not job.future.cancelled()])
            jobs.clear()  # or the last request would keep its snapshot open until the next one comes

    def _work_on(self, jobs: Sequence[_Job]) -> None:
        now = time.monotonic()
        for job in jobs:
            self._begun(now - job.queued_at)
        items = [job.item for job in jobs if job.item is not None]
        try:
            vectors = iter(self._embed(items) if items else ())
        except Exception as error:  # noqa: BLE001 - handed to everybody who waits for it
            for job in jobs:
                _hand_over(job.future, error=error)
            return
        for job in jobs:
            vector = next(vectors) if job.item is not None else None
            if not job.future.cancelled():
                _do(job, vector)


def _do(job: _Job, vector: Vectors | None) -> None:
    try:
        result = job.context.run(job.work, vector)
    except Exception as error:  # noqa: BLE001 - handed to the one who waits for it
        _hand_over(job.future, error=error)
    else:
        _hand_over(job.future, result)


def _hand_over(future: "asyncio.Future[Any]", result: object = None, *, error: Exception | None = None) -> None:
    def settle() -> None:
        if future.done():  # its caller has gone
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    future.get_loop().call_soon_threadsafe(settle)
