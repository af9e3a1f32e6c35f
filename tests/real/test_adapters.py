"""A LoRA adapter through prefill and decode: the text of one aggregated worker, and another than the base model's."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import yaml

from tests.real import answers
from tests.real.answers import read
from tests.real.fleet import Fleet
from tests.real.prompts import complete, differences, prompt
from tests.real.test_shapes import recipe

pytestmark = pytest.mark.real
_SHAPES = {"q_proj": 256, "k_proj": 128, "v_proj": 128, "o_proj": 256}  # outputs of tiny-llama's projections
_MESSAGES = [{"role": "user", "content": prompt(300, 8)}]
APIS = {
    "/v1/completions": {"prompt": prompt(300, 7), "max_tokens": 12, "temperature": 0},
    "/v1/chat/completions": {"messages": _MESSAGES, "max_tokens": 12, "temperature": 0},
    "/v1/responses": {"input": prompt(300, 7), "max_output_tokens": 12, "temperature": 0},
    "/v1/messages": {"messages": _MESSAGES, "max_tokens": 12, "temperature": 0},
}


def adapter(folder: Path) -> None:
    """An adapter of random weights, large enough to change what is said."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer in range(4):
        for name, outputs in _SHAPES.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = torch.randn(8, 256, generator=generator) * 0.1
            weights[f"{at}.lora_B.weight"] = torch.randn(outputs, 8, generator=generator) * 0.1
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": list(_SHAPES), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_an_adapter_on_both_roles(tmp_path: Path, http: httpx.Client) -> None:
    adapter(tmp_path / "law")
    files = []
    for name, roles in {"pd": {"prefill": {}, "decode": {}}, "one": {"aggregated": {}}}.items():
        path = Path(recipe(tmp_path, name, "tiny-llama", **roles))
        document = yaml.safe_load(path.read_text())
        document["model"]["adapters"] = [{"name": "law", "path": str(tmp_path / "law")}]
        path.write_text(yaml.safe_dump(document))
        files.append(str(path))
    fleets = [Fleet(file, tmp_path / f"state{port}", port) for file, port in zip(files, (11000, 12000), strict=True)]
    try:
        pd, one = (fleet.wait() for fleet in fleets)
        listed = http.get(f"{pd.url}/v1/models").json()["data"]
        assert [(entry["id"], entry.get("parent")) for entry in listed] == [("tiny-llama", None), ("law", "tiny-llama")]
        moved = pd.metric(pd.worker("decode-0"), "vllm:nixl_bytes_transferred_sum")
        for seed, length in enumerate((60, 300, 700, 1200)):
            text = prompt(length, seed)
            base, law = (complete(http, pd.url, text, model=name, logprobs=5) for name in ("tiny-llama", "law"))
            assert differences(law, complete(http, one.url, text, model="law", logprobs=5)) == []
            assert differences(base, complete(http, one.url, text, logprobs=5)) == []
            assert differences(base, law) != []
            after = pd.metric(pd.worker("decode-0"), "vllm:nixl_bytes_transferred_sum")
            assert after > moved  # both prompts' blocks: the adapter's are not those of the base model
            moved = after
        for path, body in APIS.items():
            for stream in (False, True):
                asked = {**body, "stream": stream}
                said = [
                    read(http.post(fleet.url + path, json={**asked, "model": name}))
                    for fleet, name in ((pd, "law"), (one, "law"), (pd, "tiny-llama"))
                ]
                assert answers.differences(said[0], said[1]) == []
                assert answers.differences(said[0], said[2]) != []
        component = {"X-Amzn-SageMaker-Adapter-Identifier": "law"}
        asked = {"prompt": prompt(300, 9), "max_tokens": 12, "temperature": 0}
        answer = http.post(f"{pd.url}/invocations", json=asked, headers=component).json()
        assert answer["choices"] == complete(http, pd.url, prompt(300, 9), model="law", max_tokens=12)["choices"]
        unknown = http.post(f"{pd.url}/v1/completions", json={"model": "medicine", "prompt": "x"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    finally:
        codes = [fleet.stop() for fleet in fleets]
    assert codes == [0, 0]
