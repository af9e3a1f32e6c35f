"""Which prefill and decode workers may exchange KV: Fingerprint, engine digest, compatible().

The same rules decide when a recipe is read and, by what workers say of themselves, in the gateway.
Source of the rules: the handshake of vLLM 0.32's NIXL connector; P TP > D TP crashes the engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Identity:
    """What two engines must have in common; but for adapters, the connector's handshake compares a hash of the like."""

    engine: str  # distribution and version; "" where nothing is installed yet
    model: str
    revision: str
    dtype: str
    kv_shape: str  # layers, KV heads and head size; "" where the model's files are not there
    connector: str
    kv_cache_dtype: str
    attention_backend: str
    hybrid_kv_cache: str
    speculative: str
    adapters: str  # names and sources: of one name with other weights, decode would go on from the wrong KV

    @property
    def digest(self) -> str:
        """The engine digest: SHA-256, hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a worker says of itself."""

    identity: Identity
    direction: Literal["producer", "consumer"]
    tensor: int
    block_size_tokens: int
    kv_layout: str
    lease_s: int

    def document(self) -> dict[str, Any]:
        """As JSON, with the engine digest."""
        return {"engine_digest": self.identity.digest, **asdict(self)}


def read(document: Mapping[str, Any]) -> Fingerprint:
    """A fingerprint from its JSON. Raises ValueError when it is none of ours."""
    try:
        identity = Identity(**{field.name: str(document["identity"][field.name]) for field in fields(Identity)})
        return Fingerprint(
            identity=identity,
            direction=document["direction"],
            tensor=int(document["tensor"]),
            block_size_tokens=int(document["block_size_tokens"]),
            kv_layout=str(document["kv_layout"]),
            lease_s=int(document["lease_s"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a fingerprint: {error!r}") from None


def compatible(prefill: Fingerprint, decode: Fingerprint) -> list[str]:
    """Every rule that forbids this pair, as "rule: what differs"; empty when it may be tried."""
    broken = []
    for field in fields(Identity):
        left, right = getattr(prefill.identity, field.name), getattr(decode.identity, field.name)
        if left != right:
            broken.append(f"engine_digest: {field.name} is {left!r} on prefill, {right!r} on decode")
    if (prefill.direction, decode.direction) != ("producer", "consumer"):
        broken.append(f"direction: prefill is a {prefill.direction}, decode a {decode.direction}")
    if prefill.tensor > decode.tensor:
        broken.append(f"tensor_fan_in: prefill TP{prefill.tensor} is above decode TP{decode.tensor}")
    elif decode.tensor % prefill.tensor:
        broken.append(f"tensor_divides: prefill TP{prefill.tensor} does not divide decode TP{decode.tensor}")
    if decode.block_size_tokens % prefill.block_size_tokens:
        broken.append(
            f"block_size_multiple: decode's {decode.block_size_tokens} tokens are no multiple of prefill's"
            f" {prefill.block_size_tokens}"
        )
    if prefill.kv_layout != decode.kv_layout:
        broken.append(f"kv_layout: {prefill.kv_layout} on prefill, {decode.kv_layout} on decode")
    # Decode renews a lease every sixth of its own; each time prefill adds two thirds of its own.
    if decode.lease_s / 6 >= prefill.lease_s * 2 / 3:
        broken.append(f"lease: decode renews every {decode.lease_s / 6:.0f} s, prefill keeps {prefill.lease_s} s")
    return broken
