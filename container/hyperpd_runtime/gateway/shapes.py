"""What a body asks for, as far as it matters to a handoff. Pure; wrong types are the engine's to refuse."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hyperpd_runtime.gateway.apis import RESPONSES, Api

_SEEDS = 1 << 62  # the engine takes 64 bits; there is room to count on from these
_GREEDY_BELOW = 1e-5  # vLLM's own bound
# Parts of a message that are no text, by their type, or by the field that the engine guesses it from.
MEDIA = {"image_pil", "document"} | {
    form.format(kind)
    for kind in ("image", "audio", "video", "file")
    for form in ("{}", "{}_url", "{}_embeds", "input_{}")
}
_BESIDE = ("system", "instructions", "tools", "documents")  # what a chat's prompt is made of, beside its messages
_STATE = ("store", "background", "previous_response_id")


@dataclass(frozen=True, slots=True)
class Ask:
    """A body and the API it is meant for.

    length_tokens: the model's, prompt and output.
    """

    body: Mapping[str, Any]
    api: Api
    length_tokens: float = math.inf

    def prompts(self) -> int:
        """How many prompts a completion has: a text is one, and so is a list of token ids."""
        prompt = self.body.get("prompt")
        return len(prompt) if isinstance(prompt, list) and prompt and not _token_ids(prompt) else 1

    def mixed_prompts(self) -> bool:
        """Whether there may be several, and which they are is the engine's to say: it reads numbers in texts."""
        prompt: Any = self.body.get("prompt")
        return self.prompts() > 1 and not (all(map(_text, prompt)) or all(map(_token_ids, prompt)))

    def answers(self) -> float:
        """How many answers to each prompt. Infinite where `n` or the seed it counts from is no integer of 64 bits."""
        n, seed = self.body.get("n"), self.body.get("seed")
        if n is None:
            return 1
        return n if _integer(n) and (seed is None or (_integer(seed) and abs(seed) < _SEEDS)) else math.inf

    def greedy(self) -> bool:
        """Whether the next token is always the likeliest one, by the request's own word."""
        temperature = self.body.get("temperature")
        return temperature is not None and not (_number(temperature) and temperature >= _GREEDY_BELOW)

    def one_token(self) -> bool:
        """Whether at most one token is asked for."""
        return any(not _number(limit) or limit <= 1 for limit in self._limits())

    def beyond_length(self) -> bool:
        """Whether more tokens are asked for than the model has room for, were there no prompt.

        The engine refuses that much; less it cuts to what the prompt leaves (0.32: vllm/renderers/params.py).
        """
        limits = self._limits()
        return bool(limits) and _number(limits[-1]) and limits[-1] > self.length_tokens

    def _limits(self) -> list[Any]:
        """What is said of the output's length. The last one counts."""
        return [self.body[key] for key in self.api.limits if self.body.get(key) is not None]

    def prompt_logprobs(self) -> bool:
        echoed = self.body.get("echo") and self.body.get("logprobs") is not None
        return bool(self.body.get("prompt_logprobs") is not None or echoed)

    def truncated(self) -> bool:
        """Whether a prompt that is too long would be cut."""
        return (
            self.body.get("truncate_prompt_tokens") is not None
            or self.body.get("truncation", "disabled") not in (None, "disabled")
        )  # fmt: skip

    def builtin_tools(self) -> bool:
        """Whether the engine itself could run a tool, and ask the model again."""
        tools = self.body.get("tools") or []
        if self.api is not RESPONSES:
            return False
        return not isinstance(tools, list) or any(not _function(tool) for tool in tools)

    def media(self) -> bool:
        """Whether a message holds an image, sound, video or file."""
        within = [self.body.get(self.api.prompt) if self.api.prompt != "prompt" else None]
        while within:
            part = within.pop()
            if isinstance(part, list):
                within += part
            elif isinstance(part, dict):
                if str(part.get("type")) in MEDIA or part.keys() & MEDIA:
                    return True
                within += [part.get("content"), part.get("output")]
        return False

    def stored(self) -> bool:
        """Whether the answer is to be kept, or follows one that was."""
        return any(self.body.get(key) for key in _STATE)

    def longest_prompt(self) -> tuple[int, bool]:
        """Tokens of the longest prompt, and whether that is exact. Of a chat all that is text counts, tools too."""
        if self.api.prompt == "prompt":
            longest = max(self._completion_prompts(), key=_tokens)
            return _tokens(longest), not isinstance(longest, str)
        parts = [self.body.get(field) for field in (self.api.prompt, *_BESIDE)]
        return math.ceil(sum(map(len, texts(parts))) / 4), False

    def _completion_prompts(self) -> list[Any]:
        prompt = self.body.get("prompt")
        return prompt if isinstance(prompt, list) and not _token_ids(prompt) else [prompt]


def _tokens(prompt: Any) -> int:
    """Of one prompt of a completion: each member of a list is one."""
    if isinstance(prompt, str):
        return math.ceil(len(prompt) / 4)
    return len(prompt) if isinstance(prompt, list) else 1


def texts(values: list[Any], but: Collection[str] = MEDIA) -> Iterator[str]:
    """Every text within, but for what is of these types or under these names. Takes `values` apart."""
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            values += value
        elif isinstance(value, dict) and str(value.get("type")) not in but:
            values += [inner for key, inner in value.items() if key not in but]


def _function(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "function"


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _token_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(_integer, value))


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _integer(value) or (isinstance(value, float) and math.isfinite(value))
