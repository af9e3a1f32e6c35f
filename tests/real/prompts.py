"""Prompts of a known length, and what it means that two answers are equal."""

from __future__ import annotations

import random
from typing import Any

import httpx

# Both engines compute in float32, in batches of other shapes, with the prompt cut at other places and
# the sums of ranks in another order; rounding moved log-probabilities by less than 2e-3 where another
# prompt moves them by more than 1.
LOGPROB_TOLERANCE = 0.02
LENGTHS = [50 + round(index * 1450 / 19) for index in range(20)]


def prompt(tokens: int, seed: int) -> str:
    """Text of exactly `tokens` tokens: the tiny models' tokenizer has one per byte."""
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz     ,.", k=tokens))


def complete(http: httpx.Client, url: str, text: Any, **options: Any) -> dict[str, Any]:
    """A greedy completion of 16 tokens."""
    body = {"model": "tiny-llama", "prompt": text, "max_tokens": 16, "temperature": 0, **options}
    answer = http.post(f"{url}/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Where two completions differ: text, or a top-5 log-probability beyond the tolerance."""
    a, b = left["choices"][0], right["choices"][0]
    found = [] if a["text"] == b["text"] else [f"text {a['text']!r} != {b['text']!r}"]
    for position, (x, y) in enumerate(zip(a["logprobs"]["top_logprobs"], b["logprobs"]["top_logprobs"], strict=True)):
        common = x.keys() & y.keys()
        if len(common) < min(len(x), len(y)) - 1:  # the fifth may change places with the sixth
            found.append(f"top-5 at {position}: {sorted(x)} != {sorted(y)}")
        found += [
            f"{token!r} at {position}: {x[token]} != {y[token]}"
            for token in common
            if abs(x[token] - y[token]) > LOGPROB_TOLERANCE
        ]
    return found
