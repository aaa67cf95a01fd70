"""The threads of a replica: what waits is embedded together, too many are refused, errors reach who they concern."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from raydex.errors import EmbedError, Overloaded
from raydex.records import Vectors
from raydex.serve.lane import EmbedItem, Lane

pytestmark = pytest.mark.asyncio


class Model:
    """Makes the length of a text its vector. Its first call waits until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.is_busy, self.may_go = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[EmbedItem]) -> list[Vectors]:
        self.calls.append([text for _, text in items])
        self.is_busy.set()
        self.may_go.wait()
        if any(text == "unreadable" for _, text in items):
            raise EmbedError("cannot be read")
        return [np.array([len(text)], np.float32) for _, text in items]


@pytest.fixture
def model() -> Model:
    return Model()


def length(vector: Vectors | None) -> int:
    assert vector is not None
    return int(vector[0])


async def queued(lane: Lane, model: Model, texts: Sequence[str]) -> "list[asyncio.Task[int]]":
    """Put texts in the queue while the model is busy with the first of them."""
    tasks = []
    for text in texts:
        tasks.append(asyncio.ensure_future(lane.run(("m", text), length)))
        await asyncio.sleep(0)
        await asyncio.to_thread(model.is_busy.wait)
    return tasks


async def test_how_long_each_has_waited_is_told_when_its_work_begins(model):
    waited: list[float] = []
    lane = Lane(model, threads=1, batch=3, most_waiting=10, begun=waited.append)
    tasks = await queued(lane, model, ["a", "bb", "ccc"])
    assert len(waited) == 1
    model.may_go.set()
    await asyncio.gather(*tasks)
    assert len(waited) == 3
    assert min(waited) >= 0


async def test_what_waits_is_embedded_in_one_call_and_each_gets_its_own(model):
    lane = Lane(model, threads=1, batch=3, most_waiting=10)
    tasks = await queued(lane, model, ["a", "bb", "ccc", "dddd", "eeeee"])
    model.may_go.set()
    assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]
    assert model.calls == [["a"], ["bb", "ccc", "dddd"], ["eeeee"]]


async def test_more_than_may_wait_are_refused_at_once_and_room_is_made_by_answers(model):
    lane = Lane(model, threads=1, batch=3, most_waiting=2)
    tasks = await queued(lane, model, ["a", "bb"])
    with pytest.raises(Overloaded, match="2 searches are waiting"):
        await lane.run(("m", "ccc"), length)
    assert lane.waiting == 2
    model.may_go.set()
    await asyncio.gather(*tasks)
    assert lane.waiting == 0
    assert await lane.run(("m", "ccc"), length) == 3


async def test_a_text_that_cannot_be_embedded_fails_and_the_lane_goes_on(model):
    lane = Lane(model, threads=1, batch=3, most_waiting=10)
    model.may_go.set()
    with pytest.raises(EmbedError, match="cannot be read"):
        await lane.run(("m", "unreadable"), length)
    assert await lane.run(("m", "aa"), length) == 2


async def test_work_that_fails_concerns_its_caller_alone(model):
    def broken(_: Vectors | None) -> int:
        raise ValueError("broken")

    lane = Lane(model, threads=1, batch=3, most_waiting=10)
    tasks = await queued(lane, model, ["a"])
    failing = asyncio.ensure_future(lane.run(("m", "bb"), broken))
    after = asyncio.ensure_future(lane.run(("m", "ccc"), length))
    await asyncio.sleep(0)
    model.may_go.set()
    with pytest.raises(ValueError, match="broken"):
        await failing
    assert [await tasks[0], await after] == [1, 3]


async def test_work_without_a_text_is_not_embedded(model):
    lane = Lane(model, threads=1, batch=3, most_waiting=10)
    assert await lane.run(None, lambda vector: vector is None)
    assert model.calls == []


async def test_work_whose_caller_has_gone_is_not_begun(model):
    lane = Lane(model, threads=1, batch=3, most_waiting=10)
    first, gone = await queued(lane, model, ["a", "bb"])
    gone.cancel()
    await asyncio.wait([gone])
    model.may_go.set()
    await first
    assert await lane.run(("m", "ccc"), length) == 3
    assert model.calls == [["a"], ["ccc"]]
