"""A request with several prompts or several answers: one request for each, and their answers joined again. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hyperpd.sse import Decoder, encode
from hyperpd_runtime.gateway.guard import Admitted, decide
from hyperpd_runtime.gateway.shapes import Ask

DONE = b"data: [DONE]\n\n"


def split(request: Admitted) -> list[Admitted]:
    """One request for each answer, in the engine's order: by prompt, then by `n`.

    The engine gives the nth answer the seed `seed + n` (vllm/v1/engine/parallel_sampling.py), and so does this.
    """
    body, ask = request.body, Ask(request.body, request.api)
    prompts = body["prompt"] if ask.prompts() > 1 else [None]
    parts = []
    for prompt in prompts:
        for number in range(int(ask.answers())):
            part = {key: value for key, value in body.items() if key not in ("n", "best_of")}
            if prompt is not None:
                part["prompt"] = prompt
            if number and body.get("seed") is not None:
                part["seed"] = body["seed"] + number
            shape = decide(Ask(part, request.api))
            parts.append(replace(request, body=part, shape=shape))
    return parts


def answers_per_prompt(request: Admitted) -> int:
    return int(Ask(request.body, request.api).answers())


def join(answers: Sequence[dict[str, Any]], per_prompt: int) -> dict[str, Any]:
    """The answer to the whole: choices numbered through, usage added up, a prompt's tokens counted once."""
    choices = [{**choice, "index": index} for index, answer in enumerate(answers) for choice in answer["choices"]]
    usages = [answer["usage"] for answer in answers]
    return {**answers[0], "choices": choices, "usage": add_usage(usages, per_prompt)}


def add_usage(usages: Sequence[dict[str, Any]], per_prompt: int) -> dict[str, Any]:
    """Usage of all parts together."""
    total = dict(usages[0])
    for key, parts in (("prompt", usages[::per_prompt]), ("completion", usages)):
        total[f"{key}_tokens"] = sum(part[f"{key}_tokens"] for part in parts)
        details = [part[f"{key}_tokens_details"] for part in parts if part.get(f"{key}_tokens_details")]
        if details:
            total[f"{key}_tokens_details"] = {
                name: sum(detail.get(name) or 0 for detail in details) if value is not None else None
                for name, value in details[0].items()
            }
    total["total_tokens"] = total["prompt_tokens"] + total["completion_tokens"]
    return total


@dataclass
class Joiner:
    """The streams of all parts as one: feed it what a part says, in any order, and relay what comes out."""

    parts: int
    per_prompt: int
    _decoders: list[Decoder] = field(init=False)
    _usages: dict[int, dict[str, Any]] = field(default_factory=dict)
    _frame: dict[str, Any] = field(default_factory=dict)  # the first part's id and time of creation
    _ended: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._decoders = [Decoder() for _ in range(self.parts)]

    def feed(self, part: int, data: bytes) -> bytes:
        """What may be said to the client after `part` has said `data`."""
        return b"".join(self._events(part, data))

    def _events(self, part: int, data: bytes) -> Iterator[bytes]:
        for payload in self._decoders[part].feed(data):
            if payload == "[DONE]":
                self._ended.add(part)
                if len(self._ended) == self.parts:
                    yield from self._last()
                continue
            try:
                event = json.loads(payload)
            except (ValueError, RecursionError):  # the stream was cut here; an error event follows
                continue
            if "error" in event:
                yield encode(payload)
                continue
            if not self._frame:
                self._frame = {key: event[key] for key in ("id", "created") if key in event}
            event |= self._frame
            if not event["choices"]:
                self._usages[part] = event
                continue
            for choice in event["choices"]:
                choice["index"] = part
            yield _event(event)

    def _last(self) -> Iterator[bytes]:
        if len(self._usages) == self.parts:
            usages = [self._usages[part]["usage"] for part in range(self.parts)]
            yield _event(self._usages[0] | {"usage": add_usage(usages, self.per_prompt)})
        yield DONE


def _event(event: dict[str, Any]) -> bytes:
    return encode(json.dumps(event, separators=(",", ":")))
