"""Facts of published models, committed: nothing is downloaded to check whether a model fits.

Where they come from, for every row:
- shapes: the model's own config.json, as of 2026-08-21 (public copies in ai-dynamo/aiconfigurator);
- parameters: the model card;
- weights_bytes: the tensors of the published checkpoint, without file headers. `source` says whether the
  checkpoint's index states the number or it follows from the shapes. The tests compute all of them again
  from config.json, so a slip of the pen is found.
- expert_bytes: from the shapes, at the checkpoint's own width.
- gated: the model card; its files are handed out with a token of somebody who accepted its licence, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hyperpd.model import Model


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One checkpoint. `kv` is in the dtype the model is served in unless a recipe says otherwise."""

    name: str  # Hugging Face id
    kv: Model
    attention_heads: int
    hidden_size: int
    vocabulary: int
    parameters: int  # published, rounded as published
    active_parameters: int  # for one token, published, rounded as published
    weights_bytes: int  # as stored
    context_tokens: int  # config.json's max_position_embeddings: vLLM refuses more
    source: str  # of weights_bytes
    date: str  # of the checkpoint's publication, or of the day the count was read
    experts: int = 0  # routed, in a layer; 0: a dense model
    experts_per_token: int = 0
    expert_bytes: int = 0  # of weights_bytes, those of routed experts
    expert_shards: int = 0  # most ranks one expert may be cut into (the blocks of its scales); 0: any number
    gated: bool = False  # Hugging Face asks for a token before it hands the files out

    @property
    def expert_share(self) -> float:
        """Share of the weights that is routed experts, 0 to 1."""
        return self.expert_bytes / self.weights_bytes


_GPT_OSS_120B = KnownModel(
    name="openai/gpt-oss-120b",
    kv=Model(36, 8, 64, "bfloat16", sliding_layers=18, window_tokens=128),
    attention_heads=64,
    hidden_size=2880,
    vocabulary=201_088,
    parameters=116_830_000_000,
    active_parameters=5_130_000_000,
    weights_bytes=65_248_815_744,
    context_tokens=131_072,
    source="index of the checkpoint; MXFP4 experts (4 bits and a scale of 8 for 32 weights), the rest bfloat16",
    date="2025-08-05",
    experts=128,
    experts_per_token=4,
    expert_bytes=60_993_699_840,
)
_QWEN3_235B = KnownModel(
    name="Qwen/Qwen3-235B-A22B",
    kv=Model(94, 4, 128, "bfloat16"),
    attention_heads=64,
    hidden_size=4096,
    vocabulary=151_936,
    parameters=235_000_000_000,
    active_parameters=22_000_000_000,
    weights_bytes=470_187_269_120,
    context_tokens=40_960,
    source="index of the checkpoint; bfloat16",
    date="2025-04-29",
    experts=128,
    experts_per_token=8,
    expert_bytes=454_192_791_552,
)
_QWEN3_235B_FP8 = replace(
    _QWEN3_235B,
    name="Qwen/Qwen3-235B-A22B-FP8",
    weights_bytes=236_416_915_456,
    source="computed from config.json: FP8, a bfloat16 scale for 128 x 128; embeddings and routers bfloat16",
    expert_bytes=227_124_117_504,
    expert_shards=4,  # 1536 rows cut in more than 4 leave no whole blocks of 128: vLLM refuses that
)
_QWEN3_32B = KnownModel(
    name="Qwen/Qwen3-32B",
    kv=Model(64, 8, 128, "bfloat16"),
    attention_heads=64,
    hidden_size=5120,
    vocabulary=151_936,
    parameters=32_800_000_000,
    active_parameters=32_800_000_000,
    weights_bytes=65_524_246_528,
    context_tokens=40_960,
    source="index of the checkpoint; bfloat16",
    date="2025-04-29",
)
_DEEPSEEK_R1 = KnownModel(
    name="deepseek-ai/DeepSeek-R1",
    kv=Model(61, 1, 576, "bfloat16", latent=True),
    attention_heads=128,
    hidden_size=7168,
    vocabulary=129_280,
    parameters=671_000_000_000,
    active_parameters=37_000_000_000,
    # With the layer that predicts a second token (about 2 %), which vLLM loads for speculative decoding only.
    weights_bytes=688_574_839_360,
    context_tokens=163_840,
    source="Hugging Face's count of the tensors (BF16 3,918,786,560; F8_E4M3 680,571,043,840; F32 41,555,600)",
    date="2026-09-04",
    experts=256,
    experts_per_token=8,
    expert_bytes=665_345_458_176,
    expert_shards=16,  # 2048 rows in blocks of 128
)

MODELS = (
    _GPT_OSS_120B,
    replace(
        _GPT_OSS_120B,
        name="openai/gpt-oss-20b",
        kv=Model(24, 8, 64, "bfloat16", sliding_layers=12, window_tokens=128),
        parameters=20_910_000_000,
        active_parameters=3_610_000_000,
        weights_bytes=13_761_264_768,
        experts=32,
        expert_bytes=10_165_616_640,
    ),
    KnownModel(
        name="meta-llama/Llama-3.3-70B-Instruct",
        kv=Model(80, 8, 128, "bfloat16"),
        attention_heads=64,
        hidden_size=8192,
        vocabulary=128_256,
        parameters=70_600_000_000,
        active_parameters=70_600_000_000,
        weights_bytes=141_107_412_992,
        context_tokens=131_072,
        source="computed from config.json: bfloat16; the index of Llama-3.1-70B-Instruct, the same shape, says it too",
        date="2024-12-06",
        gated=True,
    ),
    _QWEN3_32B,
    replace(
        _QWEN3_32B,
        name="Qwen/Qwen3-32B-FP8",
        weights_bytes=34_322_434_048,
        source="Hugging Face's count of the tensors (BF16 1,558,406,144; F8_E4M3 31,205,621,760)",
    ),
    _QWEN3_235B,
    _QWEN3_235B_FP8,
    # Instruct-2507: the same shapes, a longer context.
    replace(_QWEN3_235B, name="Qwen/Qwen3-235B-A22B-Instruct-2507", context_tokens=262_144, date="2025-07-21"),
    replace(_QWEN3_235B_FP8, name="Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", context_tokens=262_144, date="2025-07-21"),
    _DEEPSEEK_R1,
    replace(_DEEPSEEK_R1, name="deepseek-ai/DeepSeek-V3"),
)
_BY_NAME = {known.name: known for known in MODELS}


def find(name: str | None) -> KnownModel | None:
    """The facts of a Hugging Face id, or None where nothing is known of it."""
    return _BY_NAME.get(name or "")
