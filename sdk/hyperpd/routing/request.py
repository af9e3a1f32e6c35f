"""What a request looks like to routing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt on its way.

    tokens: length of the prompt. blocks: chain hashes of its full blocks of the router's `block_tokens` tokens, each
    standing for its block and all before it (blocks.chain). session: what requests of one conversation share, or "".
    output_tokens: how many it will generate, where known; else the running mean is used.
    """

    tokens: int
    blocks: Sequence[int] = ()
    session: str = ""
    output_tokens: int | None = None
