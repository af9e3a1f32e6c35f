"""How much one request may ask for: the recipe's limits on its prompts, its output and its answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hyperpd.recipe import Limits
from hyperpd_runtime.gateway.shapes import Ask


@dataclass(frozen=True, slots=True)
class Excess:
    """What is asked for too much; `code` and `param` are OpenAI's for it."""

    message: str
    code: str
    param: str


def excess(ask: Ask, limits: Limits) -> Excess | None:
    """What of `ask` is above `limits`, or None. Its numbers are numbers: `fields` has seen to that."""
    count = ask.prompts() * (ask.body.get("n") or 1)
    if count > limits.choices:
        several = ask.prompts() > 1
        return Excess(
            f"{count} answers are asked for (prompts times n), {limits.choices} are allowed"
            " (gateway.limits.choices); send them as several requests",
            "array_above_max_length" if several else "integer_above_max_value",
            "prompt" if several else "n",
        )
    if limits.output_tokens is not None:
        for field in ask.api.limits:
            if (asked := ask.body.get(field) or 0) > limits.output_tokens:
                return Excess(
                    f"{field} is too large: {_shown(asked)}; at most {limits.output_tokens} output tokens are allowed"
                    " (gateway.limits.output_tokens); ask for fewer",
                    "invalid_value",
                    field,
                )
    if limits.prompt_tokens is not None:
        tokens, exact = ask.longest_prompt()
        if tokens > limits.prompt_tokens:
            return Excess(
                f"{ask.api.prompt}: {tokens} tokens{'' if exact else ' (estimated: characters / 4)'},"
                f" {limits.prompt_tokens} are allowed (gateway.limits.prompt_tokens); shorten it",
                "context_length_exceeded",
                ask.api.prompt,
            )
    return None


def output_limit(ask: Ask, limits: Limits) -> dict[str, int]:
    """What to add to a body that does not say how long its output may be, so that it is bounded all the same."""
    if limits.output_tokens is None or any(ask.body.get(field) is not None for field in ask.api.limits):
        return {}
    field = ask.api.limits[-1]
    if ask.api.unsaid_output_tokens and field not in ask.body:  # null: as much as the model has left
        return {field: min(limits.output_tokens, ask.api.unsaid_output_tokens)}
    return {field: limits.output_tokens}


def _shown(number: int) -> str:
    return str(number) if number < 10**18 else "a number of more than 18 digits"
