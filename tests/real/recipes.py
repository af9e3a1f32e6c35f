"""The fleets' recipes: the shipped ones, with what more a client's request can make use of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hyperpd.recipe import load

# tiny-llama's tokenizer has no tokens of its own for tools or reasoning: hermes reads text, and deepseek_v3
# lets a model be that was not told to think. (granite's reads text, but then the engine enforces no grammar.)
# No adapters: with them, vLLM 0.32 on a CPU dies of prompt_logprobs. tests/real/test_adapters.py has its own.
OPTIONS = {
    "enable-auto-tool-choice": True,
    "tool-call-parser": "hermes",
    "reasoning-parser": "deepseek_v3",
    "enable-prompt-tokens-details": True,
    # No prompt is computed in chunks: vLLM 0.32 on a CPU dies of a sampled request with a seed that is
    # (gpu_model_runner.py, _bookkeeping_sync: "CPU Generator does not use offset").
    "max-num-batched-tokens": 32768,
}


def full(name: str, folder: Path, **transfer: Any) -> str:
    """The shipped recipe `name` with parsers, and cached tokens in `usage`, as a file in `folder`."""
    document = yaml.safe_load(load(name).path.read_text())
    for role in ("prefill", "decode", "aggregated"):
        if role in document:
            document[role]["engine"] = {**document[role]["engine"], **OPTIONS}
    document.setdefault("kv_transfer", {}).update(transfer)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)
