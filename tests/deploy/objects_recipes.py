"""The recipes that the targets' tests render: all that are shipped, and some that reach further."""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hyperpd import recipe
from hyperpd.recipe import RecipeFile

_HEAD = "version: 1\nname: {name}\n"
OWN = {
    "efa-2p2d": """
model: {huggingface: meta-llama/Llama-3.1-8B-Instruct, max_len_tokens: 8192}
prefill: {replicas: 2, instance_type: ml.p5en.48xlarge, autoscaling: {min: 1, max: 4}}
decode: {replicas: 2, instance_type: ml.p5en.48xlarge, parallel: {tensor: 4}, autoscaling: {min: 2, max: 3}}
slo: {ttft_ms: 500, itl_ms: 50}
""",
    "efa-full-nodes": """
model: {path: /fsx/model, claim: fsx-models}
prefill: {replicas: 2, instance_type: ml.p5.48xlarge, parallel: {tensor: 8}}
decode: {replicas: 1, instance_type: ml.p5.48xlarge, parallel: {tensor: 8}}
start_timeout_s: 3600
drain_s: 120
kv_transfer: {lease_s: 300}
gateway: {replicas: 3}
""",
    "efa-two-nodes": """
model: {s3: "s3://models-example/deepseek/v3", dtype: bfloat16}
prefill: {replicas: 2, instance_type: ml.p5en.48xlarge, parallel: {data: 8, expert: true}}
decode: {replicas: 2, instance_type: ml.p5en.48xlarge, parallel: {data: 16, expert: true, nodes: 2}}
""",
    "efa-two-kinds": """
model: {path: /opt/models/llama}
prefill: {replicas: 3, instance_type: ml.p5.4xlarge}
decode: {replicas: 1, instance_type: ml.p5en.48xlarge, parallel: {tensor: 2}}
""",
    "efa-aggregated-two-nodes": """
model: {huggingface: example/large}
aggregated: {replicas: 2, instance_type: ml.p5.48xlarge, parallel: {tensor: 8, pipeline: 2, nodes: 2}}
""",
    "efa-managed-tier": """
model: {huggingface: example/small, adapters: [{name: a, huggingface: example/adapter}]}
prefill: {replicas: 4, instance_type: ml.p5en.48xlarge, kv_tiers: {managed: true}}
decode: {replicas: 1, instance_type: ml.p5en.48xlarge}
""",
    "efa-own-tiers": """
model: {path: /opt/models/small}
prefill: {replicas: 8, instance_type: ml.p5.48xlarge, kv_tiers: {memory_gib: 64, disk: /opt/dlami/nvme/kv}}
decode: {replicas: 4, instance_type: ml.p5.48xlarge, parallel: {tensor: 2}}
""",
    "cpu-machines": """
accelerator: cpu
model: {generated: tiny-llama}
prefill: {instance_type: ml.m5.4xlarge}
decode: {instance_type: ml.m5.4xlarge}
""",
    "tcp-1p1d": """
model: {generated: tiny-llama}
prefill: {instance_type: ml.g6e.12xlarge}
decode: {instance_type: ml.g6e.12xlarge, parallel: {tensor: 2}}
kv_transfer: {fabric: tcp}
gateway: {auth: keys}
""",
}


def names() -> list[str]:
    """Shipped recipes, then those of this page."""
    return [*recipe.shipped(), *OWN]


@cache
def load(name: str) -> RecipeFile:
    """A recipe by name. Own ones get a file, because a target reads the recipe's bytes from there."""
    if name not in OWN:
        return recipe.load(name)
    text = _HEAD.format(name=name) + OWN[name]
    path = _folder() / f"{name}.yaml"
    path.write_text(text)
    return recipe.load(path)


@cache
def _folder() -> Path:
    folder = TemporaryDirectory(prefix="hyperpd-recipes-")
    atexit.register(folder.cleanup)
    return Path(folder.name)
