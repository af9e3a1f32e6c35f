"""A scripted multi-turn workload: who says how much when, one script for each seed; to be played, and as a trace.

Prompts are token ids. A turn's prompt is the whole conversation so far, the engine's own answers included, and what
is said anew. It is a whole number of a trace's blocks (512 tokens), since a trace knows what prompts share no finer.
What the script cannot know of an answer before it is given are its tokens; its length is forced.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from hyperpd.plan.trace import BLOCK_TOKENS, Request
from hyperpd.routing.blocks import chain
from hyperpd.sse import Decoder

MOST_TOKENS = 6144  # of a prompt and its answer
_TALKS = 6  # conversations that go on at a time
_SYSTEMS = (2, 1, 0)  # blocks of the system prompts; each conversation has one of them, or its own beginning
_NEW_BLOCKS = (1, 1, 2, 2)  # of a turn: what the last answer added, and what is said
_OUTPUT_TOKENS = (140, 220)
# Waves of turns, each over before the next: the first ones find idle workers, the others come while those are being
# answered. Nothing that is decided hangs on milliseconds that two runs, or a run and a model, do not share.
_WAVE_S = 5.0
_FOLLOWING_S = 0.35
# With each further worker, which the machine's cores are shared with, all takes longer: the followers come later, and
# the answers that they are to meet are longer, as are the waves.
_SHARED_S = 0.8
_SHARED_TOKENS = 120
_SHARED_WAVE_S = 4.0
_APART_S = 0.08
_JITTER_S = 0.03


@dataclass(frozen=True, slots=True)
class Turn:
    """One request. `talk`: whose, an index of Script.talks; `blocks` by which its prompt is longer than the last."""

    at_s: float
    talk: int
    blocks: int
    output_tokens: int


class Talk:
    """One conversation as it goes on: all its tokens so far."""

    def __init__(self, system: Sequence[int], seed: int) -> None:
        self.tokens = list(system)
        self._lots = random.Random(seed)

    def ask(self, turn: Turn) -> list[int]:
        """The prompt of its next turn."""
        self.tokens += _words(self._lots, turn.blocks * BLOCK_TOKENS - len(self.tokens) % BLOCK_TOKENS)
        return list(self.tokens)

    def hear(self, answer: Sequence[int]) -> None:
        """What it was answered, in tokens."""
        self.tokens += answer


@dataclass(frozen=True, slots=True)
class Answered:
    """A turn that was played. Times of time.monotonic; prompt and output in tokens; `request_id` is the gateway's.

    cached_tokens: of the prompt, as its usage says.
    """

    sent_s: float
    first_s: float
    end_s: float
    prompt: Sequence[int]
    output: Sequence[int]
    cached_tokens: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Script:
    """`turns` in order of their times; `talks` that have not begun."""

    turns: tuple[Turn, ...]
    talks: tuple[Talk, ...]


def script(seed: int, waves: int, workers: int = 1) -> Script:
    """Waves of a turn for each of `workers` and up to two more that follow. A conversation that gets too long for the
    model gives way to a new one."""
    lots = random.Random(seed)
    systems = [_words(lots, blocks * BLOCK_TOKENS) for blocks in _SYSTEMS]
    talks: list[Talk] = []
    lengths: list[int] = []  # blocks of each talk's last prompt
    going: list[int] = []
    turns = []
    wave_s = _WAVE_S + _SHARED_WAVE_S * (workers - 1)
    for wave in range(waves):
        while len(going) < _TALKS:
            system = systems[len(talks) % len(systems)]
            going.append(len(talks))
            talks.append(Talk(system, lots.randrange(1 << 30)))
            lengths.append(len(system) // BLOCK_TOKENS)
        following_s = _FOLLOWING_S + _SHARED_S * (workers - 1)
        for place, talk in enumerate(lots.sample(going, workers + lots.choice((0, 1, 2)))):
            blocks = lots.choice(_NEW_BLOCKS)
            output_tokens = lots.randint(*_OUTPUT_TOKENS) + _SHARED_TOKENS * (workers - 1)
            lengths[talk] += blocks
            offset_s = place * _APART_S + (following_s if place >= workers else 0) + lots.uniform(0, _JITTER_S)
            turns.append(Turn(wave * wave_s + offset_s, talk, blocks, output_tokens))
        most = MOST_TOKENS // BLOCK_TOKENS - max(_NEW_BLOCKS) - 1  # the next turn and its answer are to fit
        going = [talk for talk in going if lengths[talk] <= most]
    return Script(tuple(turns), tuple(talks))


async def ask(http: httpx.AsyncClient, url: str, prompt: list[int], output_tokens: int) -> Answered:
    """Send a prompt, and read the stream it is answered with."""
    exact = {"max_tokens": output_tokens, "min_tokens": output_tokens, "ignore_eos": True, "temperature": 0}
    shown = {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
    decoder, output, usage = Decoder(), list[int](), dict[str, Any]()
    sent_s, first_s = time.monotonic(), 0.0
    headers = {"x-hyperpd-explain": "1"}
    body = {"prompt": prompt, **exact, **shown}
    async with http.stream("POST", f"{url}/v1/completions", json=body, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for data in answer.aiter_bytes():
            for event in decoder.feed(data):
                said = json.loads(event) if event != "[DONE]" else {"choices": []}
                first_s = first_s or time.monotonic()
                usage = said.get("usage") or usage
                for choice in said["choices"]:
                    output += choice["token_ids"]
    assert (usage["prompt_tokens"], len(output)) == (len(prompt), output_tokens)
    cached_tokens = usage["prompt_tokens_details"]["cached_tokens"]
    request_id = answer.headers["x-hyperpd-request-id"]
    return Answered(sent_s, first_s, time.monotonic(), prompt, output, cached_tokens, request_id)


async def play(script: Script, ask: Callable[[list[int], int], Awaitable[Answered]]) -> list[Answered]:
    """Every turn at its time, or when the one before it in its conversation is answered, if that is later.

    ask: sends a prompt and the length its answer is to have. The answers, in the order in which they were asked for.
    """
    began_s = time.monotonic()
    answered: list[Answered] = []
    free = {turn.talk: asyncio.Lock() for turn in script.turns}

    async def take(turn: Turn) -> None:
        await asyncio.sleep(began_s + turn.at_s - time.monotonic())
        async with free[turn.talk]:
            talk = script.talks[turn.talk]
            answer = await ask(talk.ask(turn), turn.output_tokens)
            talk.hear(answer.output)
            answered.append(answer)

    async with asyncio.TaskGroup() as turns:
        for turn in script.turns:
            turns.create_task(take(turn))
    return sorted(answered, key=lambda one: one.sent_s)


def request(at_s: float, prompt: Sequence[int], output_tokens: int) -> Request:
    """A prompt that was sent as a trace has it: what begins with the same tokens, begins with the same blocks."""
    return Request(at_s, len(prompt), output_tokens, tuple(chain(prompt, BLOCK_TOKENS)))


def _words(lots: random.Random, tokens: int) -> list[int]:
    return lots.choices(range(3, 250), k=tokens)  # plain bytes of the tiny models' tokenizer
