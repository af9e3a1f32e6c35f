"""Token ids → chain of block hashes, cheap ones of our own.

Only equality matters: a block's hash stands for its tokens and all before it. The engine's hashes (SHA-256 by default)
cost many times as much, and are needed by nobody: KV events carry the token ids, from which events.py computes ours.
Python's hash of ints is the same in every process and on every machine.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence


def chain(tokens: Sequence[int], block_tokens: int, salt: int = 0) -> array[int]:
    """Hashes of the full blocks of `block_tokens` tokens, as 64-bit signed ints.

    salt: what else a cache's blocks depend on, as a number: an adapter, a tenant.
    """
    ids = tuple(tokens)
    hashes = []
    parent = salt
    for start in range(0, len(ids) - block_tokens + 1, block_tokens):
        parent = hash((parent, ids[start : start + block_tokens]))
        hashes.append(parent)
    return array("q", hashes)
