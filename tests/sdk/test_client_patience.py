"""What a client's time counts: a stream's tokens of any kind, pauses, and the question for the model's name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from hyperpd import errors
from hyperpd.client import AsyncClient, Gateway, Timeouts, patience
from hyperpd.sse import encode


class Clock:
    """Stands until it is advanced; step_s: goes on by so much with every look."""

    def __init__(self) -> None:
        self.now_s = self.step_s = 0.0

    def monotonic(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


async def passing(clock: Clock, pause_s: float, *parts: bytes) -> AsyncIterator[bytes]:
    """Parts of an answer with time before each."""
    for part in parts:
        await asyncio.sleep(0)  # a turn of the loop, for what is over by now
        clock.now_s += pause_s
        yield part


@pytest.mark.parametrize(
    "delta", ['"content": "a"', '"reasoning": "a"', '"reasoning_content": "a"', '"tool_calls": [{"index": 0}]']
)
async def test_tokens_that_are_no_text_are_tokens(clock: Clock, delta: str) -> None:
    chunks = [encode(f'{{"choices": [{{"delta": {{{told}}}}}]}}') for told in (delta, delta, '"content": "b"')]
    answer = httpx.Response(200, content=passing(clock, 6, *chunks, encode("[DONE]")))
    way = Gateway("http://gateway", transport=httpx.MockTransport(lambda _: answer))
    async with AsyncClient(way, model="m", timeouts=Timeouts(first_token_s=10)) as client:
        assert [text async for text in client.stream_chat([])][-1] == "b"


async def test_a_delta_without_tokens_begins_nothing(clock: Clock) -> None:
    role = encode('{"choices": [{"delta": {"role": "assistant", "content": ""}}]}')
    answer = httpx.Response(200, content=passing(clock, 6, role, role, role))
    way = Gateway("http://gateway", transport=httpx.MockTransport(lambda _: answer))
    async with AsyncClient(way, model="m", timeouts=Timeouts(first_token_s=10)) as client:
        with pytest.raises(errors.RequestError, match="longer than first_token_s"):
            _ = [text async for text in client.stream_chat([])]


async def test_a_pause_has_no_limit_of_its_own(clock: Clock) -> None:
    """As where the machine slept meanwhile."""
    clock.step_s = 5
    await patience.Deadline(Timeouts(), "http://gateway", "r1").pause(0)
    with pytest.raises(errors.RequestError, match="longer than total_s, 4 s"):
        await patience.Deadline(Timeouts(total_s=4), "http://gateway", "r1").pause(0)


async def test_the_question_for_the_model_is_part_of_the_total(clock: Clock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        clock.now_s += 6
        said = b'{"data": [{"id": "m"}]}' if request.url.path == "/v1/models" else b"{}"
        return httpx.Response(200, content=passing(clock, 0, said))

    way = Gateway("http://gateway", transport=httpx.MockTransport(answer))
    async with AsyncClient(way, timeouts=Timeouts(total_s=10)) as client:
        with pytest.raises(errors.RequestError, match="longer than total_s, 10 s"):
            await client.complete("x")
