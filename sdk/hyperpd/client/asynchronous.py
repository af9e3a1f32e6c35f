"""AsyncClient: one request at a time, opened, tried again where that repeats nothing, and read to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from hyperpd.client import answers
from hyperpd.client.gateway import Gateway
from hyperpd.client.patience import Deadline, Retries, Retry, Timeouts
from hyperpd.client.way import Opened, Request, Way
from hyperpd.errors import NotReady, RecipeError, Rejected, RequestError

Message = Mapping[str, Any]
_log = logging.getLogger("hyperpd.client")
_COMPLETIONS, _CHAT = "/v1/completions", "/v1/chat/completions"
_LAST_S = 1.0  # for the end of a stream that has said its last event


class AsyncClient:
    """One way in. A request whose tokens began to flow is never sent twice (see Retries).

    to:       a gateway's URL, or a way in with more to say: Gateway(…), Endpoint(…).
    model:    name to ask for; None asks the gateway once, and lets an endpoint take its own.
    api_key:  the gateway's, where it needs one.
    on_retry: is told of each request that will be sent again; default: a warning in the log "hyperpd.client".
              `retried` counts them. Nothing of a prompt is logged, or added to what the other side said.

    Streams are async generators: leaving one early needs `aclose`, as `contextlib.aclosing` does it, and ends the
    request upstream. An Endpoint is asked by boto3 in threads.
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
        if api_key is not None and not isinstance(to, str):
            what = "goes with a URL; Gateway(url, api_key=…) has its own, an Endpoint signs with AWS credentials"
            raise RecipeError("api_key", [what])
        self.way = Gateway(to, api_key=api_key) if isinstance(to, str) else to
        self.timeouts, self.retries = timeouts or Timeouts(), retries or Retries()
        self.retried = 0
        self._on_retry = on_retry or _warn
        self._model = model

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.way.close()

    async def models(self) -> list[str]:
        """Names of the models served. Raises RequestError."""
        return await self._names(self._deadline())

    async def complete(self, prompt: str | Sequence[str], **options: Any) -> dict[str, Any]:
        """A completion; `options` are the API's own (max_tokens, temperature, …). Raises RequestError."""
        return await self._ask(_COMPLETIONS, {"prompt": prompt, **options})

    async def chat(self, messages: Sequence[Message], **options: Any) -> dict[str, Any]:
        """A chat completion. Raises RequestError."""
        return await self._ask(_CHAT, {"messages": messages, **options})

    def stream(self, prompt: str | Sequence[int], **options: Any) -> AsyncGenerator[str, None]:
        """The text of a completion, piece by piece. Raises RequestError, also in the middle."""
        return self._stream(_COMPLETIONS, {"prompt": prompt, **options}, lambda choice: choice["text"])

    def stream_chat(self, messages: Sequence[Message], **options: Any) -> AsyncGenerator[str, None]:
        """The text of a chat answer, piece by piece. Raises RequestError, also in the middle."""
        return self._stream(_CHAT, {"messages": messages, **options}, lambda choice: choice["delta"].get("content"))

    def as_openai(self) -> Any:
        """An openai.AsyncOpenAI for the same gateway, with its key and timeouts; it sends nothing twice by itself.

        Raises NotReady without the package openai, RecipeError for a way in that is no URL.
        """
        return self.openai_client("AsyncOpenAI")

    def openai_client(self, kind: str) -> Any:
        """openai's client of that kind; see as_openai."""
        if not isinstance(self.way, Gateway):
            raise RecipeError(
                self.way.where, ["OpenAI's client needs a gateway's URL; here use complete, chat, stream"]
            )
        try:
            import openai
        except ImportError:
            raise NotReady("as_openai needs OpenAI's client: pip install openai") from None
        timeout = openai.Timeout(self.timeouts.idle_s, connect=self.timeouts.connect_s)
        # It sends again what took too long, too, which the engine then computes twice.
        key = self.way.api_key or "none"
        return getattr(openai, kind)(base_url=f"{self.way.where}/v1", api_key=key, timeout=timeout, max_retries=0)

    def _deadline(self) -> Deadline:
        return Deadline(self.timeouts, self.way.where, uuid.uuid4().hex)

    async def _names(self, deadline: Deadline) -> list[str]:
        said = await self._whole(Request("/v1/models", None, False, deadline.request_id), deadline)
        try:
            return [str(entry["id"]) for entry in said["data"]]
        except (KeyError, TypeError):
            raise answers.not_openai(f"{self.way.where}/v1/models", "no list of models") from None

    async def _request(self, path: str, body: Mapping[str, Any], stream: bool, deadline: Deadline) -> Request:
        if self._model is None and self.way.lists_models and "model" not in body:
            names = await self._names(deadline)
            if not names:
                raise answers.not_openai(f"{self.way.where}/v1/models", "an empty list; give the model's name")
            self._model = names[0]
        whole = {**({"model": self._model} if self._model else {}), **body, **({"stream": True} if stream else {})}
        return Request(path, json.dumps(whole).encode(), stream, deadline.request_id)

    async def _ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if body.get("stream"):
            use = "stream_chat" if path == _CHAT else "stream"
            raise Rejected(f"stream=True asks for a stream, and this gives a whole answer\ntry: {use}(…)")
        deadline = self._deadline()
        return await self._whole(await self._request(path, body, False, deadline), deadline)

    async def _whole(self, request: Request, deadline: Deadline) -> dict[str, Any]:
        opened = await self._opened(request, deadline)
        content = await _read(opened, deadline)
        return answers.document(f"{self.way.where}{request.path}", opened.headers.get("content-type", ""), content)

    async def _stream(self, path: str, body: Mapping[str, Any], piece: answers.Piece) -> AsyncGenerator[str, None]:
        if body.get("n") not in (None, 1) or _several(body.get("prompt")):
            raise Rejected("a stream of text is one prompt's one answer; without streaming, complete takes several")
        deadline = self._deadline()
        request = await self._request(path, body, True, deadline)
        opened = await self._opened(request, deadline)
        try:
            seen = opened.headers.get("x-hyperpd-request-id") or opened.headers.get("x-request-id") or request.id
            reader = answers.Reader(piece, f"{self.way.where}{path}", seen)
            wait = deadline.first_token
            while data := await wait(anext(opened.parts, b"")):
                for text in reader.feed(data):
                    yield text
                if reader.ended:
                    await _to_its_end(opened)
                    return
                if reader.begun:
                    wait = deadline.next
            reader.finish()
        finally:
            await opened.close()

    async def _opened(self, request: Request, deadline: Deadline) -> Opened:
        """The answer, 200, of the first attempt that has one. Raises RequestError."""
        attempt = 0
        while True:
            attempt += 1
            deadline.sent()
            wait = deadline.first_token if request.stream else deadline.next
            answered = False
            try:
                opened = await wait(self.way.open(request, self.timeouts))
                if opened.status == 200:
                    return opened
                said, step = await _read(opened, deadline), self.way.next_step(opened.status)
                error = answers.error(opened.status, opened.headers, said, step)
                answered = True
            except RequestError as raised:
                error = raised
            pause_s = self.retries.pause_s(attempt, error, answered)
            if pause_s is None:
                raise error
            self.retried += 1
            self._on_retry(Retry(attempt, pause_s, error))
            await deadline.pause(pause_s)


def _several(prompt: Any) -> bool:
    """Whether it is several prompts; one may be a list of tokens."""
    return isinstance(prompt, list | tuple) and not all(isinstance(token, int) for token in prompt)


def _warn(retry: Retry) -> None:
    error = retry.error
    _log.warning(
        "request=%s attempt=%d status=%d code=%s again_in_s=%.2f",
        *(error.request_id, retry.attempt, error.status, error.code, retry.pause_s),
    )


async def _read(opened: Opened, deadline: Deadline) -> bytes:
    """The whole answer; closes it. Raises RequestError."""
    content = bytearray()
    try:
        while data := await deadline.next(anext(opened.parts, b"")):
            content += data
    finally:
        await opened.close()
    return bytes(content)


async def _to_its_end(opened: Opened) -> None:
    """Nothing more is said; but who hangs up before the end loses the connection, and seems to have left."""
    with contextlib.suppress(RequestError, TimeoutError):
        async with asyncio.timeout(_LAST_S):
            while await anext(opened.parts, b""):
                """Whatever it is."""
