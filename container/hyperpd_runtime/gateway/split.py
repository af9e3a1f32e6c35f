"""A completion with a list of prompts: one request per prompt, and their answers joined again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hyperpd_runtime.gateway.guard import Admitted, decide


def split(request: Admitted) -> list[Admitted]:
    """One request for each prompt, in order."""
    parts = [{**request.body, "prompt": prompt} for prompt in request.body["prompt"]]
    return [replace(request, body=part, how=decide(part, request.threshold_tokens)[0]) for part in parts]


def join(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The answer to the whole list: choices numbered through, usage added up."""
    choices = [choice for answer in answers for choice in answer["choices"]]
    usage: dict[str, Any] = dict(answers[0].get("usage") or {})
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        usage[key] = sum(answer["usage"][key] for answer in answers)
    numbered = [{**choice, "index": index} for index, choice in enumerate(choices)]
    return {**answers[0], "choices": numbered, "usage": usage}
