"""The fleets' recipes: the shipped ones, with what more a client's request can make use of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from hyperpd.recipe import load

# tiny-llama's tokenizer has no tokens of its own for tools or reasoning; these parsers read text.
OPTIONS = {
    "enable-auto-tool-choice": True,
    "tool-call-parser": "hermes",
    "reasoning-parser": "granite",
    "enable-prompt-tokens-details": True,
    # No prompt is computed in chunks: vLLM 0.32 on a CPU dies of a sampled request with a seed that is
    # (gpu_model_runner.py, _bookkeeping_sync: "CPU Generator does not use offset").
    "max-num-batched-tokens": 32768,
}
_SHAPES = {"q_proj": 256, "k_proj": 128, "v_proj": 128, "o_proj": 256}  # outputs of tiny-llama's projections


def full(name: str, folder: Path, **transfer: Any) -> str:
    """The shipped recipe `name` with parsers, an adapter and cached tokens in `usage`, as a file in `folder`."""
    adapter(folder / "law")
    document = yaml.safe_load(load(name).path.read_text())
    document["model"]["adapters"] = [{"name": "law", "path": str(folder / "law")}]
    for role in ("prefill", "decode", "aggregated"):
        if role in document:
            document[role]["engine"] = {**document[role]["engine"], **OPTIONS}
    document.setdefault("kv_transfer", {}).update(transfer)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


def adapter(folder: Path) -> None:
    """An adapter of random weights, large enough to change what is said."""
    if folder.is_dir():
        return
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(4):
        for name, outputs in _SHAPES.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = torch.randn(8, 256, generator=generator) * 0.1
            weights[f"{at}.lora_B.weight"] = torch.randn(outputs, 8, generator=generator) * 0.1
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": list(_SHAPES), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
