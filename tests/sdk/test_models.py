"""The table of known models against the models' own config.json: shapes, parameters and bytes computed again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hyperpd import model
from hyperpd.models import MODELS, KnownModel, find

# From the published config.json files (copies of 2026-08-21): what shapes and sizes follow from.
GPT_OSS: dict[str, Any] = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "vocab_size": 201088,
    "max_position_embeddings": 131072,
    "attention_bias": True,
}
QWEN3: dict[str, Any] = {
    "head_dim": 128,
    "num_attention_heads": 64,
    "sliding_window": None,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "qk_norm": True,
}
QWEN3_32B = QWEN3 | {
    "hidden_size": 5120,
    "intermediate_size": 25600,
    "num_key_value_heads": 8,
    "num_hidden_layers": 64,
}
QWEN3_235B = QWEN3 | {
    "hidden_size": 4096,
    "moe_intermediate_size": 1536,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 94,
}
LLAMA_70B: dict[str, Any] = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
DEEPSEEK: dict[str, Any] = {
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
LAYERS = ["sliding_attention", "full_attention"]
CONFIGS = {
    "openai/gpt-oss-120b": GPT_OSS | {"num_hidden_layers": 36, "num_local_experts": 128, "layer_types": LAYERS * 18},
    "openai/gpt-oss-20b": GPT_OSS | {"num_hidden_layers": 24, "num_local_experts": 32, "layer_types": LAYERS * 12},
    "meta-llama/Llama-3.3-70B-Instruct": LLAMA_70B,
    "Qwen/Qwen3-32B": QWEN3_32B,
    "Qwen/Qwen3-32B-FP8": QWEN3_32B,
    "Qwen/Qwen3-235B-A22B": QWEN3_235B,
    "Qwen/Qwen3-235B-A22B-FP8": QWEN3_235B,
    "Qwen/Qwen3-235B-A22B-Instruct-2507": QWEN3_235B | {"max_position_embeddings": 262144},
    "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8": QWEN3_235B | {"max_position_embeddings": 262144},
    "deepseek-ai/DeepSeek-R1": DEEPSEEK,
    "deepseek-ai/DeepSeek-V3": DEEPSEEK,
}


@dataclass
class Count:
    """Parameters of a model by kind."""

    embedding: int  # input and output, each
    experts: int  # routed
    other: int  # attention, dense and shared feed-forward, norms, routers
    matrices: int  # of `other`, those in weight matrices of layers, which FP8 checkpoints quantise
    expert_biases: int = 0
    second_token: int = 0  # DeepSeek's layer for a second token, not part of the published count

    @property
    def total(self) -> int:
        return 2 * self.embedding + self.experts + self.expert_biases + self.other


def count(config: dict[str, Any]) -> Count:
    """Count the parameters that `config` describes."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    experts = config.get("num_local_experts") or config.get("num_experts") or config.get("n_routed_experts") or 0
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    norms = 2 * hidden
    if rank := config.get("kv_lora_rank"):
        nope, rope, value, q_rank = (
            config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank")
        )
        attention = hidden * q_rank + q_rank * heads * (nope + rope) + hidden * (rank + rope)
        attention += rank * heads * (nope + value) + heads * value * hidden
        norms += q_rank + rank
    else:
        size = config.get("head_dim") or hidden // heads
        kv = config["num_key_value_heads"] * size
        attention = hidden * (heads * size + 2 * kv) + heads * size * hidden
        if config.get("attention_bias"):  # and gpt-oss's attention sinks
            norms += heads * size + 2 * kv + hidden + heads
        if config.get("qk_norm"):
            norms += 2 * size
    dense = config.get("first_k_dense_replace", 0 if experts else layers)
    mixed = layers - dense
    shared = config.get("n_shared_experts", 0) * 3 * hidden * width
    router = experts * hidden + (experts if config.get("kv_lora_rank") or config.get("attention_bias") else 0)
    matrices = layers * attention + dense * 3 * hidden * config.get("intermediate_size", 0) + mixed * shared
    embedding = config["vocab_size"] * hidden
    second = attention + shared + experts * 3 * hidden * width + 2 * hidden * hidden + 2 * embedding
    return Count(
        embedding=embedding,
        experts=mixed * experts * 3 * hidden * width,
        other=matrices + layers * norms + mixed * router + hidden,
        matrices=matrices,
        expert_biases=mixed * experts * (2 * width + hidden) if config.get("attention_bias") else 0,
        second_token=second if config.get("num_nextn_predict_layers") else 0,
    )


KNOWN = pytest.mark.parametrize("known", MODELS, ids=lambda known: known.name)


def test_every_model_has_its_config() -> None:
    assert {known.name for known in MODELS} == set(CONFIGS)
    assert find("openai/gpt-oss-20b") is MODELS[1]
    assert find("someone/else") is None
    assert find(None) is None


@KNOWN
def test_shapes_are_those_of_config_json(known: KnownModel, tmp_path: Path) -> None:
    config = CONFIGS[known.name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model.load(tmp_path, "bfloat16") == known.kv
    experts = next(
        (config[key] for key in ("num_local_experts", "num_experts", "n_routed_experts") if key in config), 0
    )
    assert (
        known.attention_heads,
        known.hidden_size,
        known.vocabulary,
        known.context_tokens,
        known.experts,
        known.experts_per_token,
    ) == (
        config["num_attention_heads"],
        config["hidden_size"],
        config["vocab_size"],
        config["max_position_embeddings"],
        experts,
        config.get("num_experts_per_tok", 0),
    )
    assert known.source
    assert known.date


@KNOWN
def test_parameters_computed_again_are_the_published_ones(known: KnownModel) -> None:
    parts = count(CONFIGS[known.name])
    assert parts.total == pytest.approx(known.parameters, rel=0.005)
    # What one token runs through: all but the other experts. The input embedding is a look-up, where it matters.
    active = parts.total
    if known.experts:
        used = (parts.experts + parts.expert_biases) * known.experts_per_token // known.experts
        active = parts.other + parts.embedding + used
    assert active == pytest.approx(known.active_parameters, rel=0.03)


@KNOWN
def test_bytes_computed_again_are_those_of_the_checkpoint(known: KnownModel) -> None:
    parts = count(CONFIGS[known.name])
    plain = 2 * parts.embedding + parts.other
    if "gpt-oss" in known.name:  # MXFP4: 4 bits, and 8 bits of scale for 32 weights; biases are bfloat16
        experts = parts.experts * 17 // 32 + parts.expert_biases * 2
        total = experts + plain * 2
    elif known.name.endswith("FP8"):  # a bfloat16 scale for each block of 128 x 128
        experts = parts.experts + parts.experts // 128**2 * 2
        total = experts + parts.matrices + parts.matrices // 128**2 * 2 + (plain - parts.matrices) * 2
    elif "deepseek" in known.name:  # the same with float32 scales; and the layer for a second token
        layers = 61 - 3
        experts = (parts.experts + parts.experts // 128**2 * 4) * (layers + 1) // layers
        total = parts.total + parts.second_token + (4 * parts.embedding)
        assert known.weights_bytes == pytest.approx(total, rel=0.001)
        total = known.weights_bytes
    else:
        experts = parts.experts * 2
        total = parts.total * 2
    assert known.weights_bytes == total
    assert known.expert_bytes == experts
    assert known.expert_share == experts / total


def test_parts_of_experts_are_whole_blocks() -> None:
    """Where an expert's rows are quantised by 128, no more ranks may cut it than leave whole blocks."""
    for known in MODELS:
        rows = CONFIGS[known.name].get("moe_intermediate_size", 0)
        if known.expert_shards:
            assert rows // 128 % known.expert_shards == 0
            assert rows // 128 % (2 * known.expert_shards)


def test_those_that_hugging_face_asks_a_token_for() -> None:
    """Meta's licence is accepted by name; the others' cards ask for nothing."""
    assert {known.name for known in MODELS if known.gated} == {"meta-llama/Llama-3.3-70B-Instruct"}
