"""What a request's prompt looks like to routing: how long it is, and which blocks it begins with.

`Approximate` reads the body and asks nobody: 4 bytes of the prompt's text are held to be a token, and its blocks are
stretches of that text. They stand for what was sent, so they go with the view that remembers what was sent. `Exact` has
an engine render the prompt to its token ids, for the view that knows engines' blocks by their KV events. Of 32k tokens
the first takes 0.1 ms (0.26 in messages of 1 KiB), the second 700 times as long: tests/bench/tokenising.py.

Two prompts share a block where they and all before it are equal, for the same adapter and tenant. A prompt that goes
on a conversation shares all blocks of the one before.
"""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from struct import Struct
from typing import Any, Protocol

from prometheus_client import Counter

from hyperpd.errors import RequestError
from hyperpd.routing.blocks import chain
from hyperpd.routing.request import Request
from hyperpd_runtime.gateway import telemetry
from hyperpd_runtime.gateway.apis import COMPLETIONS, MESSAGES, Api
from hyperpd_runtime.gateway.guard import Admitted
from hyperpd_runtime.gateway.relay import Answer
from hyperpd_runtime.gateway.shapes import MEDIA, Ask, texts

UNKNOWN = Counter(
    "hyperpd_unknown_prompts",
    "Prompts whose token ids no engine told (gateway.prefix_view: exact): routed as if nothing of them was cached",
    ["why"],
    registry=telemetry.registry,
)
_TOKEN_BYTES = 4
_RENDER_TIMEOUT_S = 2.0  # 32k tokens take 76 ms of an engine that does nothing else
# What stands before the messages in what engines render, whatever its place in the body.
_FIRST = ("chat_template_kwargs", "reasoning_effort", "reasoning", "documents", "tools")
_MARK = "\x1e"  # begins what is no text; nothing ends it, since the next turn may go on there
_INNER = ("content", "output")  # of a message, of a part of it: what it holds
_APART = frozenset({"role", "cache_control", "id", "status", "annotations", *_INNER})  # written elsewhere, or nowhere
# Claude Code's, different in every request. Engines drop it for that (0.32: vllm/entrypoints/anthropic/serving.py).
_BILLING = "x-anthropic-billing-header"
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Prompts(Protocol):
    """Makes of a request what routing decides by."""

    async def request(self, admitted: Admitted, *, adapter: str = "", session: str = "") -> Request:
        """adapter: the one asked for, or "". session: see steering.Caller. What it cannot read, it guesses."""


def salt(adapter: str, cache_salt: str) -> int:
    """What a chain of blocks begins with: another adapter's or tenant's are other blocks. For this process only."""
    return hash((adapter, cache_salt)) if adapter or cache_salt else 0


class Approximate:
    """By the body alone. Of a list of prompts all count, and the first one's blocks stand for it.

    Media are told apart, and count for nothing. Hashes are for this process only, as Python's of bytes are.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._cut = Struct(f"{block_tokens * _TOKEN_BYTES}s")

    async def request(self, admitted: Admitted, *, adapter: str = "", session: str = "") -> Request:
        """See Prompts."""
        if admitted.api is COMPLETIONS:
            first, *others = _prompts(admitted.body)
        else:
            first, others = written(admitted.body, admitted.api), []
        seed = salt(adapter, admitted.body.get("cache_salt") or "")
        if isinstance(first, str):
            first = first.encode()
            blocks: Sequence[int] = self._blocks(first, seed)
        else:
            blocks = _chain(first, self._block_tokens, seed)
        return Request(sum(map(_tokens, (first, *others))), blocks, session)

    def _blocks(self, text: bytes, seed: int) -> array[int]:
        """As blocks.chain, of bytes."""
        hashes = array("q")
        keep, parent = hashes.append, seed
        for block in self._cut.iter_unpack(memoryview(text)[: len(text) // self._cut.size * self._cut.size]):
            parent = hash((parent, block))
            keep(parent)
        return hashes


class Exact:
    """By the token ids an engine makes of it, which are those it computes: templates, tools and all.

    Prompts of token ids are taken as they are. Where no engine says them (media, or it refuses, fails or is late), the
    length is Approximate's, there are no blocks, and it is counted.
    """

    def __init__(self, block_tokens: int, ask: Callable[[str, dict[str, Any]], Awaitable[Answer]]) -> None:
        """ask: path and body → a worker's answer; raises RequestError where there is none."""
        self._block_tokens = block_tokens
        self._ask = ask
        self._approximate = Approximate(block_tokens)

    async def request(self, admitted: Admitted, *, adapter: str = "", session: str = "") -> Request:
        """See Prompts."""
        known = await self._approximate.request(admitted, adapter=adapter, session=session)
        if admitted.api is COMPLETIONS and isinstance(_prompts(admitted.body)[0], list):
            return known
        why = "media"
        if not Ask(admitted.body, admitted.api).media():
            try:
                prompts = await self._rendered(admitted)
                seed = salt(adapter, admitted.body.get("cache_salt") or "")
                return Request(sum(map(len, prompts)), chain(prompts[0], self._block_tokens, seed), session)
            except TimeoutError:
                why = "late"
            except RequestError:
                why = "no_answer"
            except (ValueError, LookupError, TypeError):  # no answer of that form
                why = "refused"
        UNKNOWN.labels(why).inc()
        return replace(known, blocks=())

    async def _rendered(self, admitted: Admitted) -> list[list[int]]:
        """Token ids of each prompt. Raises what `ask` does, TimeoutError, or what an answer of another form leads to.

        Not by /tokenize: it renders another prompt where a model's chats have no template (gpt-oss) or a body has
        reasoning_effort or documents, and it knows neither Responses nor Messages.
        """
        async with asyncio.timeout(_RENDER_TIMEOUT_S):
            answer = await self._ask(f"{admitted.api.path}/render", admitted.body)
        if answer.status != 200:
            raise ValueError(answer.status)
        told = json.loads(answer.body)
        return [one["token_ids"] for one in (told if admitted.api is COMPLETIONS else [told])]


def written(body: dict[str, Any], api: Api) -> str:
    """A conversation as one text, which is never shown to anybody: roles, texts, and all else as JSON.

    What is first in engines' prompts is first here. Nothing closes what a prompt ends with, so the next turn's begins
    with all of it. Wrong types are the engine's to refuse.
    """
    pieces: list[str] = []
    for field in _FIRST:
        if body.get(field):
            pieces += [_MARK, field]
            _write(body[field], pieces)
    if aside := body.get("system" if api is MESSAGES else "instructions"):
        _write({"role": "system", "content": aside}, pieces)
    messages = body[api.prompt]
    _write(messages if isinstance(messages, list) else {"role": "user", "content": messages}, pieces)
    return "".join(pieces)


def _write(value: Any, pieces: list[str]) -> None:
    """Add a message, a part of one, or what either holds. A text and a list of it are the same, as to engines."""
    if isinstance(value, str):
        if not value.startswith(_BILLING):
            pieces.append(value)
    elif isinstance(value, list):
        for one in value:
            _write(one, pieces)
    elif not isinstance(value, dict):
        pieces.append(_json(value))
    elif isinstance(value.get("text"), str):
        _write(value["text"], pieces)
    elif str(value.get("type")) in MEDIA or not value.keys().isdisjoint(MEDIA):
        pieces.append(f"{_MARK}{hash(tuple(texts([value], but=())))}")
    else:
        pieces.append(f"{_MARK}{value.get('role')}\n")
        more = {key: one for key, one in value.items() if key not in _APART and one not in (None, "message")}
        if more:
            pieces.append(_json(more))
        for inner in _INNER:
            if value.get(inner) is not None:
                _write(value[inner], pieces)


def _prompts(body: dict[str, Any]) -> list[Any]:
    """Of a completion: texts, lists of token ids, or what is neither and the engine's to refuse."""
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return list(prompt) if several else [prompt]  # type: ignore[arg-type]


def _tokens(prompt: Any) -> int:
    """At least one: an engine always computes the last."""
    if isinstance(prompt, str):
        prompt = prompt.encode()
    if isinstance(prompt, bytes):
        return max(1, -(-len(prompt) // _TOKEN_BYTES))
    return max(1, len(prompt)) if isinstance(prompt, list) else 1


def _chain(ids: Any, block_tokens: int, seed: int) -> Sequence[int]:
    try:
        return chain(ids, block_tokens, seed) if isinstance(ids, list) else ()
    except TypeError:  # no token ids
        return ()
