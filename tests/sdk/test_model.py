"""Model facts from config.json: what the KV cache of a token takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperpd.errors import RecipeError
from hyperpd.model import Model, load

# The parts of DeepSeek-R1's config.json that say how large its KV cache is. It names 128 KV heads, and a
# cache of those would be 57 times as large as what vLLM keeps.
DEEPSEEK = {
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}


def read(folder: Path, config: dict[str, Any], dtype: str = "bfloat16") -> Model:
    (folder / "config.json").write_text(json.dumps(config))
    return load(folder, dtype)


def test_a_latent_is_one_vector_for_each_token_and_layer(tmp_path: Path) -> None:
    model = read(tmp_path, DEEPSEEK)
    assert model == Model(61, 1, 576, "bfloat16", latent=True)
    assert model.kv_bytes_per_token == 61 * 576 * 2
    assert model.kv_bytes(1000, 128) == 1024 * 61 * 576 * 2
    assert model.kv_shape == "61 layers, one latent of 576"


def test_keys_and_values_are_two(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 8192}
    model = read(tmp_path, config)
    assert model.kv_bytes_per_token == 320 * 1024
    assert replace(model, dtype="fp8").kv_bytes_per_token == 160 * 1024
    assert model.kv_shape == "80 layers, 8 KV heads of 128"


def test_of_a_sliding_layer_only_the_window_moves(tmp_path: Path) -> None:
    config = {
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "hidden_size": 512,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    model = read(tmp_path, config)
    layer_block = 2 * 2 * 64 * 2 * 128
    assert model.kv_bytes(100 * 128, 128) == (2 * 100 + 2 * 2) * layer_block


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="num_attention_heads: missing"):
        read(tmp_path, {"num_hidden_layers": 2})
    with pytest.raises(RecipeError, match=r"no config\.json here"):
        load(tmp_path / "nowhere", "bfloat16")
