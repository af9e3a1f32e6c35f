"""Bytes of answers → text, or the error that says the same. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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

Piece = Callable[[dict[str, Any]], str | None]  # the text of a chunk's choice
_BAD_GATEWAY = {error.code: error for error in (PrefillFailed, HandoffFailed, DecodeFailed)}
_TOKENS = ("text", "content", "reasoning", "reasoning_content", "tool_calls")  # what a model says its tokens in
_LONGEST = 200  # characters quoted of an answer that is no error object


class Reader:
    """One stream: feed it its bytes, get the text of every event that is complete."""

    def __init__(self, piece: Piece, where: str, request_id: str) -> None:
        self._piece, self._where, self._request_id = piece, where, request_id
        self._decoder = Decoder()
        self._broken = False  # an event that is none: where the next one is an error, it was cut
        self.begun = False  # tokens of any kind came, be they no text
        self.ended = False

    def feed(self, data: bytes) -> Iterator[str]:
        """Raises RequestError where the stream says one, or is none of completion chunks."""
        for event in self._decoder.feed(data):
            if event == "[DONE]":
                if self._broken:
                    self._not_chunks()
                self.ended = True
                return
            try:
                said = json.loads(event)
            except ValueError:
                self._broken = True
                continue
            if isinstance(said, dict) and "error" in said:
                raise failed(said["error"], self._request_id)
            if self._broken:
                self._not_chunks()
            try:
                pieces = [self._piece(choice) for choice in said["choices"]]
                self.begun = self.begun or any(map(_begins, said["choices"]))
            except (KeyError, TypeError, AttributeError):
                self._not_chunks()
            yield from filter(None, pieces)

    def finish(self) -> None:
        """The stream is over. Raises RequestError where it has not said so."""
        if self._broken:
            self._not_chunks()
        if not self.ended:
            raise DecodeFailed(
                f"the stream ended before its last event; ask again (request {self._request_id})",
                code="stream_cut",
                request_id=self._request_id,
            )

    def _not_chunks(self) -> None:
        raise not_openai(self._where, "an event that is no completion chunk")


def document(where: str, content_type: str, content: bytes) -> dict[str, Any]:
    """A whole answer. Raises RequestError where it is no JSON object."""
    try:
        said = json.loads(content)
    except ValueError:  # also bytes that are not text
        said = None
    if not isinstance(said, dict):
        raise not_openai(where, f"{content_type or 'no content type'}, no JSON object")
    return said


def error(status: int, headers: Mapping[str, str], content: bytes, next_step: str) -> RequestError:
    """An answer with another status than 200 as an error. next_step: what to try, or ""."""
    try:
        said = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        said = content.decode(errors="replace")[:_LONGEST] or f"HTTP {status}, without a word"
    code = str(said.get("code") or "") if isinstance(said, dict) else ""
    kind: type[RequestError] = RequestError
    if status == 429:
        kind = Overloaded
    elif 400 <= status < 500:
        kind = Rejected
    elif status == 503:
        kind = NoWorkerAvailable
    elif status == 502:
        kind = _BAD_GATEWAY.get(code, DecodeFailed)
    told = headers.get("retry-after", "")
    retry_after_s = int(told) if told.isdigit() else None
    request_id = _id(said) or headers.get("x-hyperpd-request-id") or headers.get("x-request-id")
    named = f" (request {request_id})" if request_id else ""
    if status == 429:
        next_step = f"again in {retry_after_s} s" if retry_after_s else "again later, or less at once"
    return kind(
        f"{_message(said)}{named}" + (f"\ntry: {next_step}" if next_step else ""),
        status=status,
        code=code or None,
        request_id=request_id,
        retry_after_s=retry_after_s,
    )


def failed(said: Any, request_id: str) -> RequestError:
    """An error event, which ends a stream that began with 200."""
    code = said.get("code") if isinstance(said, dict) else None
    kind = _BAD_GATEWAY.get(str(code), DecodeFailed)
    request_id = _id(said) or request_id
    named = f" (request {request_id})" if request_id else ""
    return kind(f"{_message(said)}{named}", code=str(code) if code else None, request_id=request_id)


def not_openai(where: str, found: str) -> RequestError:
    """What came is not of this API."""
    return RequestError(f"{where} does not speak OpenAI's API: {found}", code="not_openai")


def _begins(choice: dict[str, Any]) -> bool:
    said = choice.get("delta") or choice
    return any(said.get(name) for name in _TOKENS)


def _id(said: Any) -> str | None:
    found = said.get("request_id") if isinstance(said, dict) else None
    return str(found) if found else None


def _message(said: Any) -> str:
    return str(said.get("message") or said) if isinstance(said, dict) else str(said)
