"""The fleets' recipes: the shipped ones, with what more a client's request can make use of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from hyperpd.environment import model_path
from hyperpd.recipe import load
from hyperpd_runtime import tiny_model

ADAPTER = "law"
THINK_END = 260  # the token id of </think>, which the model says only of a request that favours it
_PROJECTIONS = {"q_proj": 256, "k_proj": 128, "v_proj": 128, "o_proj": 256}  # tiny-llama's, with their outputs
# tiny-llama's tokenizer has no tokens of its own for tools: hermes reads text. Of a model that was not told to
# think deepseek_v3 lets the answer be; else all of it up to </think> is reasoning.
OPTIONS = {
    "enable-auto-tool-choice": True,
    "tool-call-parser": "hermes",
    "reasoning-parser": "deepseek_v3",
    "enable-prompt-tokens-details": True,
    "max-lora-rank": 8,
    # Not lm_head: with an adapter there, vLLM 0.32 on a CPU dies of prompt_logprobs.
    "lora-target-modules": list(_PROJECTIONS),
    # No prompt is computed in chunks: vLLM 0.32 on a CPU dies of a sampled request with a seed that is
    # (gpu_model_runner.py, _bookkeeping_sync: "CPU Generator does not use offset").
    "max-num-batched-tokens": 32768,
}


def full(name: str, folder: Path) -> str:
    """The shipped recipe `name` as a file in `folder`: with an adapter, parsers, and cached tokens in `usage`."""
    folder.mkdir()
    document = yaml.safe_load(load(name).path.read_text())
    document["model"]["adapters"] = [{"name": ADAPTER, "path": str(_adapter(folder / ADAPTER))}]
    options = {**OPTIONS, "tokenizer": str(_thinking(folder / "tokenizer", name))}
    for role in ("prefill", "decode", "aggregated"):
        if role in document:
            document[role]["engine"] = {**document[role]["engine"], **options}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


def _adapter(folder: Path) -> Path:
    """An adapter of random weights, large enough to change what is said."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(4):
        for name, outputs in _PROJECTIONS.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = torch.randn(8, 256, generator=generator) * 0.1
            weights[f"{at}.lora_B.weight"] = torch.randn(outputs, 8, generator=generator) * 0.1
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": list(_PROJECTIONS), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _thinking(folder: Path, name: str) -> Path:
    """The tokenizer of a shipped recipe's model, with the two tokens that reasoning stands between."""
    from tokenizers import AddedToken, Tokenizer

    generated = Path(model_path(load(name).recipe))
    if not (generated / "config.json").is_file():
        tiny_model.generate(generated.name, generated)
    shutil.copytree(generated, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("<think>", "</think>")])
    assert tokenizer.token_to_id("</think>") == THINK_END
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
