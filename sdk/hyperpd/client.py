"""Client: completions and chat over HTTP, whole or as an iterator of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from hyperpd.errors import (
    DecodeFailed,
    HandoffFailed,
    NoWorkerAvailable,
    Overloaded,
    PrefillFailed,
    Rejected,
    RequestError,
)
from hyperpd.sse import Decoder

Message = Mapping[str, Any]
_BAD_GATEWAY = {error.code: error for error in (PrefillFailed, HandoffFailed, DecodeFailed)}


class Client:
    """One endpoint. Nothing is retried: a request whose tokens began to flow is never sent twice.

    url:       the gateway, as in http://127.0.0.1:8080
    model:     name to ask for; None asks the endpoint once.
    timeout_s: longest silence between two reads.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 600,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, transport=transport)
        self._model = model

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[str]:
        """Names of the models served. Raises RequestError."""
        answer = self._send("GET", "/v1/models")
        try:
            return [str(entry["id"]) for entry in answer["data"]]
        except (KeyError, TypeError):
            raise self._not_openai("/v1/models", "no list of models") from None

    def complete(self, prompt: str | Sequence[str], **options: Any) -> dict[str, Any]:
        """A completion; `options` are the API's own (max_tokens, temperature, …). Raises RequestError."""
        return self._send("POST", "/v1/completions", {"prompt": prompt, **options})

    def chat(self, messages: Sequence[Message], **options: Any) -> dict[str, Any]:
        """A chat completion. Raises RequestError."""
        return self._send("POST", "/v1/chat/completions", {"messages": messages, **options})

    def stream(self, prompt: str, **options: Any) -> Iterator[str]:
        """The text of a completion, piece by piece. Raises RequestError, also in the middle."""
        return self._stream("/v1/completions", {"prompt": prompt, **options}, lambda choice: choice["text"])

    def stream_chat(self, messages: Sequence[Message], **options: Any) -> Iterator[str]:
        """The text of a chat answer, piece by piece. Raises RequestError, also in the middle."""
        body = {"messages": messages, **options}
        return self._stream("/v1/chat/completions", body, lambda choice: choice["delta"].get("content"))

    def _body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if self._model is None:
            names = self.models()
            if not names:
                raise self._not_openai("/v1/models", "an empty list; give the model's name")
            self._model = names[0]
        return {"model": self._model, **body}

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        content = self._body(body) if body is not None else None
        try:
            answer = self._http.request(method, path, json=content)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.status_code != 200:
            raise _error(answer)
        try:
            result = answer.json()
        except ValueError:  # also bytes that are not text
            result = None
        if not isinstance(result, dict):
            raise self._not_openai(path, f"{answer.headers.get('content-type', 'no content type')}, no JSON object")
        return result

    def _stream(
        self, path: str, body: Mapping[str, Any], text: Callable[[dict[str, Any]], str | None]
    ) -> Iterator[str]:
        try:
            with self._http.stream("POST", path, json={**self._body(body), "stream": True}) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise _error(answer)
                decoder = Decoder()
                for chunk in answer.iter_bytes():
                    for data in decoder.feed(chunk):
                        if data == "[DONE]":
                            return
                        event = json.loads(data)
                        if "error" in event:
                            raise DecodeFailed(_message(event["error"]))
                        for choice in event["choices"]:
                            if piece := text(choice):
                                yield piece
        except (ValueError, KeyError, TypeError):  # also bytes that are not text
            raise self._not_openai(path, "an event that is no completion chunk") from None
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        raise DecodeFailed("the stream ended before its last event; ask again", code="stream_cut")

    def _not_openai(self, path: str, found: str) -> RequestError:
        return RequestError(f"{self.url}{path} does not speak OpenAI's API: {found}", code="not_openai")

    def _unreachable(self, error: httpx.HTTPError) -> RequestError:
        reason = str(error) or type(error).__name__
        return RequestError(f"{self.url}: {reason}; is it running? try: hyperpd status", code="unreachable")


def _error(answer: httpx.Response) -> RequestError:
    """An error answer as the exception that says the same."""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        error = answer.text[:200] or answer.reason_phrase
    status = answer.status_code
    code = str(error.get("code") or "") if isinstance(error, dict) else ""
    kind: type[RequestError] = RequestError
    if status == 429:
        kind = Overloaded
    elif 400 <= status < 500:
        kind = Rejected
    elif status == 503:
        kind = NoWorkerAvailable
    elif status == 502:
        kind = _BAD_GATEWAY.get(code, DecodeFailed)
    retry_after = answer.headers.get("retry-after", "")
    return kind(
        _message(error),
        status=status,
        code=code or None,
        request_id=answer.headers.get("x-request-id"),
        retry_after_s=int(retry_after) if retry_after.isdigit() else None,
    )


def _message(error: Any) -> str:
    return str(error.get("message") or error) if isinstance(error, dict) else str(error)
