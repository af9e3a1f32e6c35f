"""Recipes as the target inference_operator renders them: every one that it takes, in each form."""

from __future__ import annotations

from functools import cache
from typing import Any

from hyperpd import deploy, models
from tests.deploy import objects_recipes

IMAGE = "registry.example/hyperpd@sha256:" + "0" * 64
AMP = "prometheus=https://aps-workspaces.us-east-2.amazonaws.com/workspaces/ws-1a2b"
TOKEN = "hf_token_secret=hub"
FRONT = ("front=true", "front_instance_type=ml.m5.2xlarge", f"image={IMAGE}")
# Of the recipes for GPUs, those that pdSpec and the aggregated form refuse, each with a word of why.
REFUSED = {
    "deepseek-r1-p5en-1p1d": "prefill.parallel.nodes: 2",
    "deepseek-r1-p5en-2xdp16": "aggregated.parallel.nodes: 2",
    "deepseek-v3-p6-b200-2p1d": "decode.parallel.nodes: 2",
    "gpt-oss-120b-p6-b200-4p1d": "kv_transfer.fabric: local",
    "gpt-oss-20b-g6e-1p1d": "prefill.instance_type: ml.g6e.8xlarge",
    "qwen3-32b-fp8-g7e-4p4d": "prefill.instance_type: ml.g7e.48xlarge",
    "tiny-gpu-1p1d": "model.generated: AWS's image",
    "efa-two-nodes": "decode.parallel.nodes: 2",
    "efa-two-kinds": "prefill.instance_type: ml.p5.4xlarge",
    "efa-aggregated-two-nodes": "aggregated.parallel.nodes: 2",
    "efa-managed-tier": "model.adapters",
    "tcp-1p1d": "gateway.auth",
}
# Recipes whose front is refused.
NO_FRONT = {
    "gpt-oss-120b-p6-b200-4p1d": "kv_transfer.fabric: local",
    "tiny-gpu-1p1d": "kv_transfer.fabric: local",
    "tcp-1p1d": "gateway.auth",
}


def gpu() -> list[str]:
    """Every recipe for GPUs: those that are shipped, and the tests' own."""
    return [name for name in objects_recipes.names() if objects_recipes.load(name).recipe.accelerator == "gpu"]


def taken() -> list[str]:
    return [name for name in gpu() if name not in REFUSED]


def fronts() -> list[str]:
    """Every recipe that may have a front, the ones for CPUs among them."""
    return [name for name in objects_recipes.names() if name not in NO_FRONT]


def settings(name: str) -> tuple[str, ...]:
    """The options that a recipe needs."""
    spec = objects_recipes.load(name).recipe
    scaled = any(role.autoscaling for role in spec.roles().values())
    known = models.find(spec.model.huggingface)
    gated = bool(known and known.gated)
    needed = {AMP: scaled, TOKEN: gated, "region=us-east-2": spec.model.s3}
    return tuple(option for option, wanted in needed.items() if wanted)


def cases() -> list[tuple[str, tuple[str, ...]]]:
    """(recipe, options) of all renderings."""
    return [
        *((name, settings(name)) for name in taken()),
        *((name, FRONT) for name in fronts()),
        *((name, (*settings(name), "own_image=true", f"image={IMAGE}")) for name in ours()),
    ]


def ours() -> list[str]:
    """Those that hyperpd's own image may serve in the operator's pods."""
    models = ((name, objects_recipes.load(name).recipe.model) for name in taken())
    tiered = ("efa-own-tiers",)
    return [name for name, model in models if model.huggingface and name not in tiered]


@cache
def bodies(name: str, given: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """The objects of one rendering; not to be changed."""
    rendering = deploy.render(objects_recipes.load(name), "inference_operator", given)
    return tuple(dict(one.body) for one in rendering.documents if not isinstance(one.body, str))


def endpoint(name: str, given: tuple[str, ...]) -> dict[str, Any]:
    """The InferenceEndpointConfig of one rendering; not to be changed."""
    (found,) = (body for body in bodies(name, given) if body["kind"] == "InferenceEndpointConfig")
    return found
