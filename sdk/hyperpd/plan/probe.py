"""Prompts of made-up token ids, which no cache holds, sent through the serving path one by one, and their times."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hyperpd.client import answers
from hyperpd.client.gateway import Gateway
from hyperpd.client.patience import Timeouts
from hyperpd.client.way import Opened, Request
from hyperpd.errors import DecodeFailed, PrefillFailed, RecipeError
from hyperpd.sse import Decoder

Mode = Literal["aggregated", "pd"]
_MODE, _EXPLAIN, _DECISION = "x-hyperpd-mode", "x-hyperpd-explain", "x-hyperpd-decision"
_TIMEOUTS = Timeouts(connect_s=10)


@dataclass(frozen=True, slots=True)
class Times:
    """Of one request, from sending it, on the client's clock: to its first and to its last token, of which it had
    `tokens`."""

    first_s: float
    last_s: float
    tokens: int

    @property
    def gap_s(self) -> float:
        """Mean time between two tokens."""
        return (self.last_s - self.first_s) / (self.tokens - 1)


class Probe:
    """One gateway, asked as an operator asks, who may say by which path a request is served."""

    def __init__(
        self,
        url: str,
        vocabulary: int,
        *,
        api_key: str | None = None,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """vocabulary: of the model; tokens are drawn from its middle, since special ones stand at either end.

        Raises RecipeError for a URL, or a key, that is none.
        """
        self._ways = {
            mode: Gateway(url, api_key=api_key, headers={_MODE: mode, _EXPLAIN: "1"}) for mode in ("aggregated", "pd")
        }
        self._ids = range(max(3, vocabulary // 100), vocabulary * 3 // 4)
        self._random = random.Random(seed)
        self._clock = clock
        self._model = ""

    async def close(self) -> None:
        """Close the connections."""
        for way in self._ways.values():
            await way.close()

    async def check(self, model: str, longest_tokens: int) -> None:
        """Raises RecipeError where the gateway serves another model than this, or for shorter prompts and answers."""
        way = self._ways["aggregated"]
        opened = await self._opened(way, Request("/v1/models", None, False, uuid.uuid4().hex))
        said = answers.document(f"{way.where}/v1/models", opened.headers.get("content-type", ""), await _read(opened))
        try:
            served = {str(entry["id"]): entry.get("max_model_len") for entry in said["data"]}
        except (KeyError, TypeError, AttributeError):
            raise answers.not_openai(f"{way.where}/v1/models", "no list of models") from None
        if model not in served:
            what = f"serves {', '.join(served) or 'nothing'}, the recipe {model}: give the recipe that it runs"
            raise RecipeError(way.where, [what])
        most = served[model]
        if not isinstance(most, int | None):
            raise answers.not_openai(f"{way.where}/v1/models", "a max_model_len that is no whole number")
        if most is not None and most < longest_tokens:
            what = f"takes {most} tokens, the recipe says more: give the recipe that it runs"
            raise RecipeError(way.where, [what])
        self._model = model

    async def ask(self, prompt_tokens: int, output_tokens: int, mode: Mode) -> Times:
        """Send a new prompt and stream exactly so many tokens, at least two.

        Raises RequestError; PrefillFailed where a prompt for pd was served in another way.
        """
        body = {
            "model": self._model,
            "prompt": self._random.choices(self._ids, k=prompt_tokens),
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        way, request_id = self._ways[mode], uuid.uuid4().hex
        sent_s = self._clock()
        opened = await self._opened(way, Request("/v1/completions", json.dumps(body).encode(), True, request_id))
        try:
            served = re.search(r"served=(\w+)", opened.headers.get(_DECISION, ""))
            if mode == "pd" and served and served[1] != "pd":
                raise PrefillFailed(f"{way.where}: a prompt that was to be prefilled remotely was {served[1]}")
            return await self._times(opened, sent_s, way.where)
        finally:
            await opened.close()

    async def _times(self, opened: Opened, sent_s: float, where: str) -> Times:
        decoder, first_s, last_s, tokens = Decoder(), None, 0.0, 0
        async for data in opened.parts:
            at_s = self._clock() - sent_s
            for event in decoder.feed(data):
                if event == "[DONE]":
                    continue
                said = _chunk(event, where)
                if said.get("choices"):  # without text, too: a token may be half a character
                    first_s, last_s = at_s if first_s is None else first_s, at_s
                tokens = (said.get("usage") or {}).get("completion_tokens", tokens)
        if first_s is None or tokens < 2:
            raise DecodeFailed(f"{where}: a stream of {tokens} tokens, where at least two were asked for")
        return Times(first_s, last_s, tokens)

    @staticmethod
    async def _opened(way: Gateway, request: Request) -> Opened:
        opened = await way.open(request, _TIMEOUTS)
        if opened.status == 200:
            return opened
        content = await _read(opened)
        raise answers.error(opened.status, opened.headers, content, way.next_step(opened.status))


def _chunk(event: str, where: str) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(event)
        failed = said.get("error")
    except (ValueError, AttributeError):
        raise answers.not_openai(where, "an event that is no completion chunk") from None
    if failed:
        raise answers.failed(failed, "")
    return said


async def _read(opened: Opened) -> bytes:
    try:
        return b"".join([part async for part in opened.parts])
    finally:
        await opened.close()
