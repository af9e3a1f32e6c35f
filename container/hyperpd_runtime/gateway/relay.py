"""What decode says, on its way to the client: the first event looked at, the rest relayed unparsed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from hyperpd.errors import DecodeFailed
from hyperpd.sse import Decoder
from hyperpd_runtime.gateway.apis import Api
from hyperpd_runtime.gateway.split import Joiner
from hyperpd_runtime.gateway.telemetry import Record, described
from hyperpd_runtime.gateway.usage import correct_events

NETWORK = (aiohttp.ClientError, TimeoutError, ConnectionError)
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)  # what was said is no answer of an API
_BY_FORM = (
    "Bad Request"  # vllm/entrypoints/serve/exception_handling, 0.32; what the engine refuses later has other names
)
_WHOLE_BYTES = 256 << 20  # of an answer: 100,000 tokens with 20 logprobs each
_EVENT_BYTES = 16 << 20  # of an event, which may hold the logprobs of a whole prompt
_KEPT = 64  # bytes that are looked at again with the next ones; longer than any marker


@dataclass(slots=True)
class Answer:
    """What goes back: a whole answer as `body`, a stream as `events`, of which the first was looked at.

    Whoever takes a stream calls `close`, also when it never began to read.
    """

    status: int
    content_type: str
    body: bytes = b""
    events: AsyncIterator[bytes] | None = None
    close: Callable[[], None] = lambda: None


def close_answer(ended: asyncio.Task[Answer]) -> None:
    """Close what a leg brought that nobody waits for any more."""
    if not ended.cancelled() and not ended.exception():
        ended.result().close()


class EngineRefused(Exception):
    """The engine said 4xx; its answer goes to the client as it is."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer

    @property
    def by_form(self) -> bool:
        """Whether the body was refused before anyone looked at its ticket, of which prefill is told nothing then.

        So it is where prefill was not shown what is wrong: a seed that is no number, messages without a limit.
        """
        try:
            return bool(json.loads(self.answer.body)["error"]["type"] == _BY_FORM)
        except (ValueError, LookupError, TypeError, RecursionError):
            return False


async def whole(response: aiohttp.ClientResponse) -> bytes:
    """A whole answer. Raises aiohttp's ClientPayloadError also where it has no end."""
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) > _WHOLE_BYTES:
            raise aiohttp.ClientPayloadError(f"an answer of more than {_WHOLE_BYTES} bytes")
    return bytes(read)


async def first_event(
    response: aiohttp.ClientResponse,
    api: Api,
    deadline: asyncio.Timeout | None,
    begun: Callable[[], None] = lambda: None,
) -> bytes:
    """Bytes up to the end of the first event that says something of the engine's work, or of the stream.

    deadline: is lifted as soon as that work has begun, and `begun` called. What follows may be held back long, by a
    tool parser.
    """
    read, decoder, events = b"", Decoder(), 0
    async for chunk in response.content.iter_any():
        read += chunk
        events += len(decoder.feed(chunk))
        if events > api.preamble:
            begun()
        if deadline and events > api.preamble:
            with contextlib.suppress(RuntimeError):  # it has just passed, or who waited left: that ends this leg
                deadline.reschedule(None)
            deadline = None
        if events > api.preamble + api.opening:
            break
        _check_event(read)
    return read


def is_error(begun: bytes, api: Api) -> bool:
    """Whether a stream that just began holds an error event, which comes with HTTP 200, or ended before its first."""
    return len(Decoder().feed(begun)) <= api.preamble + api.opening or api.error in begun


async def relay(
    response: aiohttp.ClientResponse,
    first: bytes,
    api: Api,
    record: Record,
    told: Mapping[str, Any],
    failed: Callable[[], None],
) -> AsyncIterator[bytes]:
    """A stream from its first event on, unparsed. One that ends without its last event is told as an error event.

    told: what prefill said of the prompt's tokens; where there is something, usage is put right.
    failed: is called when decode ended without having said all.
    """
    watch = _Watch(api)
    cut, held = "", b""
    try:
        if told:
            whole = first.rfind(b"\n\n") + 2
            first, held = correct_events(first[:whole], told), first[whole:]
        watch.see(first)
        record.events += first.count(b"\n\n")
        yield first
        async for chunk in _corrected(response, held, told) if told else response.content.iter_any():
            watch.see(chunk)
            record.events += chunk.count(b"\n\n")
            yield chunk
    except NETWORK as error:
        cut = described(error)
    if cut or not watch.ended:
        yield b"\n\n"  # ends whatever event was cut
        yield api.error_event(DecodeFailed("the stream was cut; ask again", code="stream_cut"))
        record.fault("error_event" if watch.error else "stream_cut", cut)
    elif watch.error:
        record.fault("error_event", "")
    if cut or watch.error or not watch.ended:
        failed()
        record.end("decode_failed")
    else:
        record.end("ok")


def _check_event(begun: bytes) -> None:
    if len(begun) > _EVENT_BYTES:
        raise aiohttp.ClientPayloadError(f"an event of more than {_EVENT_BYTES} bytes")


async def _corrected(response: aiohttp.ClientResponse, held: bytes, told: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Whole events, with usage put right; `held` has begun the first of them."""
    async for chunk in response.content.iter_any():
        held += chunk
        whole = held.rfind(b"\n\n") + 2
        if whole > 1:
            yield correct_events(held[:whole], told)
            held = held[whole:]
        _check_event(held)
    if held:
        yield held


class _Watch:
    """Looks for two markers in bytes that are cut anywhere."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tail = b""
        self._begun = False  # the last event
        self.error = False

    def see(self, chunk: bytes) -> None:
        seen = self._tail + chunk
        self._begun = self._begun or self._api.ends in seen
        self.error = self.error or self._api.error in seen
        self._tail = seen[-_KEPT:]

    @property
    def ended(self) -> bool:
        return self._begun and self._tail.endswith(b"\n\n")


async def joined(parts: Sequence[Answer], per_prompt: int, api: Api, record: Record) -> AsyncIterator[bytes]:
    """The streams of all parts as one. What ends one with an error ends all."""
    joiner = Joiner(len(parts), per_prompt)
    said: asyncio.Queue[tuple[int, bytes | None]] = asyncio.Queue()
    room = asyncio.Semaphore(len(parts))  # of the queue for bytes; that a part ended is always said

    async def listen(number: int, part: Answer) -> None:
        assert part.events is not None
        try:
            async for chunk in part.events:
                await room.acquire()
                said.put_nowait((number, chunk))
        except UNREADABLE as error:
            await room.acquire()
            said.put_nowait((number, broken(error)))
        finally:
            said.put_nowait((number, None))

    def broken(error: Exception) -> bytes:
        record.fault("answer_broken", described(error))
        return b"\n\n" + api.error_event(DecodeFailed("a part of the stream cannot be read", code="stream_broken"))

    listening = [asyncio.create_task(listen(number, part)) for number, part in enumerate(parts)]
    watch = _Watch(api)
    running = len(parts)
    try:
        while running:
            number, chunk = await said.get()
            if chunk is None:
                running -= 1
                await listening[number]  # raises what is a defect
                continue
            room.release()
            try:
                event = joiner.feed(number, chunk)
            except UNREADABLE as error:
                event = broken(error)
            if event:
                watch.see(event)
                yield event
            if watch.error:
                break
        if watch.error:  # the part counted it; nothing more may follow
            record.end("decode_failed")
        else:
            record.end("ok")
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        for part in parts:
            part.close()
