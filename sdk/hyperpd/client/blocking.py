"""Client: AsyncClient for who does not await, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from hyperpd.client.asynchronous import AsyncClient, Message
from hyperpd.client.patience import Retries, Retry, Timeouts
from hyperpd.client.way import Way
from hyperpd.errors import RequestError

T = TypeVar("T")


class Client:
    """One way in; see AsyncClient for what the arguments mean. Threads may share it.

    A stream is a generator: leaving it early (`break` and `close`, or its end of life) ends the request upstream.
    """

    def __init__(
        self,
        to: str | Way = "http://127.0.0.1:8080",
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        on_retry: Callable[[Retry], None] | None = None,
    ) -> None:
        self._client = AsyncClient(
            to, model=model, api_key=api_key, timeouts=timeouts, retries=retries, on_retry=on_retry
        )
        self._loop = _Loop(self._client.way.close)
        self._finalize = weakref.finalize(self, self._loop.stop)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def retried(self) -> int:
        """How many requests were sent again."""
        return self._client.retried

    def close(self) -> None:
        """End what runs, and close the connections."""
        self._finalize()

    def models(self) -> list[str]:
        """Names of the models served. Raises RequestError."""
        return self._loop.run(self._client.models())

    def complete(self, prompt: str | Sequence[str], **options: Any) -> dict[str, Any]:
        """A completion; `options` are the API's own (max_tokens, temperature, …). Raises RequestError."""
        return self._loop.run(self._client.complete(prompt, **options))

    def chat(self, messages: Sequence[Message], **options: Any) -> dict[str, Any]:
        """A chat completion. Raises RequestError."""
        return self._loop.run(self._client.chat(messages, **options))

    def stream(self, prompt: str | Sequence[int], **options: Any) -> Generator[str, None, None]:
        """The text of a completion, piece by piece. Raises RequestError, also in the middle."""
        return self._iterate(self._client.stream(prompt, **options))

    def stream_chat(self, messages: Sequence[Message], **options: Any) -> Generator[str, None, None]:
        """The text of a chat answer, piece by piece. Raises RequestError, also in the middle."""
        return self._iterate(self._client.stream_chat(messages, **options))

    def as_openai(self) -> Any:
        """An openai.OpenAI for the same gateway, with its key and timeouts; it sends nothing twice by itself.

        Raises NotReady without the package openai, RecipeError for a way in that is no URL.
        """
        return self._client.openai_client("OpenAI")

    def _iterate(self, pieces: Any) -> Generator[str, None, None]:
        """What an async generator yields; closes it. Holds the client, which nobody else may, to its end."""

        async def piece() -> str | None:
            return await anext(pieces, None)

        try:
            while (found := self._loop.run(piece())) is not None:
                yield found
        finally:
            self._loop.leave(pieces)


class _Loop:
    """An event loop in a thread. Once it is stopping, nothing begins: it might come after the last turn."""

    def __init__(self, last: Callable[[], Awaitable[None]]) -> None:
        """last: what it does when all else has ended."""
        self._last = last
        self._loop = asyncio.new_event_loop()
        self._stopping = False
        self._lock = threading.RLock()  # again by the same thread where that collects garbage
        self._thread = threading.Thread(target=self._serve, name="hyperpd-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Its result. Who is interrupted meanwhile (Ctrl-C) cancels it, and waits for what it has to close."""
        ended: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(coroutine))
            tasks[0].add_done_callback(lambda task: _hand_over(task, ended))

        with self._lock:
            if self._stopping:
                coroutine.close()
                raise RuntimeError("the client is closed")
            self._loop.call_soon_threadsafe(start)
        try:
            return ended.result()
        except BaseException:
            if not ended.done():
                with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the task
                    self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
                ended.exception()
            raise

    def leave(self, pieces: Any) -> None:
        """Close an async generator. One that stopping finds open, it closes."""
        if threading.current_thread() is self._thread:  # garbage, collected there
            if not self._loop.is_closed():
                self._loop.create_task(pieces.aclose())
            return
        try:
            self.run(pieces.aclose())
        except RuntimeError:
            if not self._stopping:
                raise

    def stop(self) -> None:
        """Cancel what runs, do what is last, and end the thread."""
        with self._lock:
            self._stopping = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self) -> None:
        self._loop.run_forever()
        try:
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    async def _end(self) -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._last()


def _hand_over(task: asyncio.Task[T], ended: Future[T]) -> None:
    if task.cancelled():
        ended.set_exception(RequestError("the client was closed before the answer came", code="closed"))
    elif error := task.exception():
        ended.set_exception(error)
    else:
        ended.set_result(task.result())
