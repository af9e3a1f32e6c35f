"""A batch of vLLM's KV events, as bytes → routing's events. Pure; what it does not know it passes over.

The bytes are msgpack: [stamp, [event...], data-parallel rank], each event a mapping with its type. Nothing of them is
logged: they hold the tokens of prompts, and the tenants' salts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from hyperpd.routing.events import AllBlocksCleared, BlockRemoved, BlockStored, Event
from hyperpd_runtime.gateway.prompts import salt

# Of vLLM's kinds of layers those that attend to all tokens: others drop a prompt's first blocks.
_WHOLE = (None, "full_attention", "mla_attention", "sink_full_attention")
_DEVICE = (None, "GPU")  # what vLLM calls the engine's own memory, on a CPU too; other media are tiers behind it


class _Batch(msgspec.Struct, array_like=True, gc=False):
    ts: float
    events: list[msgspec.Raw]


class _Stored(msgspec.Struct, tag="BlockStored", gc=False):
    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None
    token_ids: list[int]
    block_size: int
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[tuple[Any, ...] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None


class _Removed(msgspec.Struct, tag="BlockRemoved", gc=False):
    block_hashes: list[int | bytes]
    medium: str | None = None
    group_idx: int | None = None


class _Cleared(msgspec.Struct, tag="AllBlocksCleared", gc=False):
    pass


class _Tag(msgspec.Struct, gc=False):
    type: str


_batch = msgspec.msgpack.Decoder(_Batch)
_event = msgspec.msgpack.Decoder(_Stored | _Removed | _Cleared)
_tag = msgspec.msgpack.Decoder(_Tag)
_KNOWN = ("BlockStored", "BlockRemoved", "AllBlocksCleared")


class Reader:
    """Reads one worker's batches.

    Of several groups of layers it follows the first that attends to all tokens. What blocks depend on beside tokens:

    - the adapter and the cache salt begin their chain, as in `prompts.salt`; a salt of the worker's own is taken off;
    - a block that holds an image or embeddings, of which tokens say nothing, is left out, and so is all after it;
    - so is all of an engine that does not tell what else its blocks depend on (before vLLM 0.32, unless it says so).
    """

    def __init__(self, block_tokens: int) -> None:
        """block_tokens: of the blocks that are followed, the recipe's."""
        self._block_tokens = block_tokens
        self._group: int | None = None
        self._grouped = False
        self.other_block_tokens = 0  # the size of blocks that were left out for it

    def read(self, payload: bytes, own_salt: str = "") -> tuple[float, list[Event]]:
        """(the engine's stamp in seconds since 1970, events). own_salt: what the gateway puts behind every salt of
        this worker. Raises ValueError when it is no batch, or a known event lacks something."""
        batch = _batch.decode(payload)
        return batch.ts, [event for raw in batch.events for event in self._read(raw, own_salt)]

    def _read(self, raw: msgspec.Raw, own_salt: str) -> Iterator[Event]:
        try:
            event = _event.decode(raw)
        except msgspec.ValidationError:
            if _tag.decode(raw).type in _KNOWN:
                raise
            return
        if isinstance(event, _Cleared):
            yield AllBlocksCleared()
        elif event.medium not in _DEVICE:
            return
        elif isinstance(event, _Removed):
            if event.group_idx == self._group:
                yield BlockRemoved(event.block_hashes)
        elif self._follows(event):
            yield from self._stored(event, own_salt)

    def _follows(self, event: _Stored) -> bool:
        if event.kv_cache_spec_kind not in _WHOLE:
            return False
        if event.block_size != self._block_tokens:
            self.other_block_tokens = event.block_size
            return False
        if not self._grouped:
            self._grouped, self._group = True, event.group_idx
        return event.group_idx == self._group

    def _stored(self, event: _Stored, own_salt: str) -> Iterator[BlockStored]:
        hashes, keys = event.block_hashes, event.extra_keys
        if keys is None:
            return
        if len(keys) != len(hashes) or len(event.token_ids) != len(hashes) * self._block_tokens:
            raise ValueError(f"{len(hashes)} blocks with {len(keys)} keys and {len(event.token_ids)} tokens")
        told = [list(key or ())[bool(event.lora_name) :] for key in keys]  # an adapter's name comes first
        plain = next((n for n, key in enumerate(told) if not all(isinstance(part, str) for part in key)), len(told))
        begins = event.parent_block_hash is None
        cache_salt = _without("".join(told[0]) if plain and begins else "", own_salt if begins else "")
        if not plain or cache_salt is None:
            return
        yield BlockStored(
            hashes[:plain],
            event.parent_block_hash,
            event.token_ids[: plain * self._block_tokens],
            self._block_tokens,
            salt(event.lora_name or "", cache_salt) if begins else 0,
        )


def _without(cache_salt: str, own: str) -> str | None:
    """A salt without the worker's own at its end (handoff.decode_body puts it there); None where it is missing."""
    if not own:
        return cache_salt
    return cache_salt.removesuffix(own).removesuffix("-") if cache_salt.endswith(own) else None
