"""Client: AsyncClient for who does not await, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
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
        self._loop = _Loop()
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
        if self._finalize.alive:
            self._loop.run(_cancel_others())
            self._loop.run(self._client.close())
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
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hyperpd-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Its result. Who is interrupted meanwhile (Ctrl-C) cancels it, and waits for what it has to close."""
        ended: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(coroutine))
            tasks[0].add_done_callback(lambda task: _hand_over(task, ended))

        try:
            self._loop.call_soon_threadsafe(start)
        except RuntimeError:
            coroutine.close()
            raise RuntimeError("the client is closed") from None
        try:
            return ended.result()
        except BaseException:
            if not ended.done():
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
                ended.exception()
            raise

    def leave(self, pieces: Any) -> None:
        """Close an async generator."""
        if self._loop.is_closed():
            return
        if threading.current_thread() is self._thread:  # garbage, collected there
            self._loop.create_task(pieces.aclose())
        else:
            self.run(pieces.aclose())

    def stop(self) -> None:
        """Cancel what runs, and end the thread."""
        if threading.current_thread() is self._thread:
            self._loop.call_soon(self._loop.stop)
            return
        self.run(_cancel_others())
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _hand_over(task: asyncio.Task[T], ended: Future[T]) -> None:
    if task.cancelled():
        ended.set_exception(RequestError("the client was closed before the answer came", code="closed"))
    elif error := task.exception():
        ended.set_exception(error)
    else:
        ended.set_result(task.result())
