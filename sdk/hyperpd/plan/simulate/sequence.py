"""A request on one engine, and what an engine takes."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How vLLM was started: --max-num-batched-tokens, --max-num-seqs, and the tokens its KV cache holds."""

    chunk_tokens: int
    sequences: int
    cache_tokens: int


class Sequence:
    """A request on one engine. `leg`: both (prefill and decode), prefill (ends with its prompt, holds its blocks until
    they were fetched), or decode (its prompt is fetched)."""

    __slots__ = (
        "blocks",
        "cached_tokens",
        "done_tokens",
        "generated",
        "goal_tokens",
        "held_blocks",
        "input_tokens",
        "join",
        "joined_step",
        "leg",
        "output_tokens",
        "owner",
        "started",
        "taken_tokens",
    )

    def __init__(self, owner: object, leg: str, input_tokens: int, output_tokens: int, blocks: Items[int]) -> None:
        """blocks: of its prompt, whole ones only."""
        self.owner = owner
        self.leg = leg
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.blocks = blocks
        self.goal_tokens = input_tokens  # to be computed before the next token is there
        self.done_tokens = 0
        self.cached_tokens = 0  # found when it first began
        self.held_blocks = 0
        self.taken_tokens = 0  # held beside its blocks
        self.generated = 0  # tokens, up to when it last joined the decodes
        self.joined_step = -1
        self.join = -1  # number of its last joining, -1: no decode
        self.started = False  # its first token is out
