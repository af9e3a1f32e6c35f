"""Bytes → values that a JSON document can hold, so that a fuzzer's every byte decides something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from hyperpd_runtime.gateway.apis import Api
from hyperpd_runtime.gateway.guard import FORBIDDEN

T = TypeVar("T")
DEPTH = 5
_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, -1, 128, 129, 2048, 2049, 2**31, 2**63, -(2**63), 10**400, 10**4300 - 1),
    *(0.0, 1e-6, 0.5, 1.0, -0.0, -1.5, 1e308),
    *("", "x", "1", "auto", "disabled", "function", "text", "image_url", "é😀", "\ud800", "\x00", "a" * 300),
    *("tiny-llama", "law", "image", "input_image", "document", "data: [DONE]\n\n", 'data: {"error"', '"usage":'),
)
_KEYS = (
    *("type", "content", "text", "role", "output", "image_url", "function", "name", "url", "input", "include_usage"),
    *("", "\ud800", "error", "usage", "kv_transfer_params"),
)


class Source:
    """Choices, made by bytes; zeros when they have run out."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def value(self, depth: int = 0) -> Any:
        kind = self.byte()
        if depth < DEPTH and kind >= 192:
            return [self.value(depth + 1) for _ in range(kind % 5)]
        if depth < DEPTH and kind >= 144:
            return {self.pick(_KEYS): self.value(depth + 1) for _ in range(kind % 5)}
        return _SCALARS[kind % len(_SCALARS)]

    def body(self, api: Api) -> dict[str, Any]:
        """Mostly fields of `api`; now and then one that none has."""
        names = (*sorted(api.fields), *api.limits, *("prompt", "n", "seed", api.prompt) * 3, *FORBIDDEN, "max_token")
        body: dict[str, Any] = {api.prompt: self.value()} if self.byte() else {}
        while self.more and len(body) < 12:
            body[self.pick(names)] = self.value()
        return body

    def cut(self, data: bytes) -> list[bytes]:
        """`data` in pieces."""
        pieces = []
        while data and self.more:
            size = 1 + self.byte() % 24
            pieces.append(data[:size])
            data = data[size:]
        return [*pieces, data]
