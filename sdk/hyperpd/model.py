"""Model facts read from a model's config.json: layers, KV heads, head size → KV bytes per token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hyperpd.errors import RecipeError

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class Model:
    """What the KV cache's size depends on."""

    layers: int
    kv_heads: int
    head_size: int
    dtype: str

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache for one token over all layers and heads (keys and values)."""
        return 2 * self.layers * self.kv_heads * self.head_size * _BYTES[self.dtype]

    def kv_bytes(self, tokens: int, block_size_tokens: int) -> int:
        """Bytes that a transfer of `tokens` moves: whole blocks, since blocks are what is read."""
        blocks = -(-tokens // block_size_tokens)
        return blocks * block_size_tokens * self.kv_bytes_per_token


def load(folder: Path, dtype: str) -> Model:
    """Read `folder`/config.json (Hugging Face's format); `dtype` is the dtype served, not stored.

    Raises RecipeError when the folder is not a model.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecipeError(str(folder), ["no config.json here; give the folder of a Hugging Face model"]) from None
    except (OSError, ValueError) as error:
        raise RecipeError(str(path), [f"cannot be read: {error}"]) from None
    heads = config["num_attention_heads"]
    return Model(
        layers=config["num_hidden_layers"],
        kv_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        dtype=dtype,
    )
