"""Every recipe, rendered for Kubernetes on both platforms."""

from __future__ import annotations

import copy
import shlex
from functools import cache
from typing import Any

from hyperpd import deploy, models
from tests.deploy import objects_recipes

PLATFORMS = ("hyperpod", "eks")
IMAGE = "registry.example/hyperpd@sha256:" + "0" * 64
TLS = ("tls_secret=tls", "workers_tls_secret=workers-tls")
# Options that add objects or fields, each on a recipe of its own.
EXTRA = {
    "efa-full-nodes": ("queue=inference", "priority_class=serving"),
    "efa-two-kinds": ("privileged=true", "cache_folder=/opt/hyperpd/data/models"),
    "efa-aggregated-two-nodes": ("hf_token_secret=hub", "clients_namespace=shop"),
    "tcp-1p1d": ("keys_secret=keys", "monitoring_pods=app.kubernetes.io/name=prometheus", *TLS),
}
FOLDER = "cache_folder=/opt/hyperpd/data/models"
# What these download from the hub is too large for a root volume, once or for each pod of a machine.
LARGE = {
    "deepseek-r1-p5en-1p1d",
    "deepseek-r1-p5en-2xdp16",
    "deepseek-v3-p6-b200-2p1d",
    "deepseek-v3-p6-b200-4xdp8",
    "gpt-oss-120b-p5en-4xtp4",
    "gpt-oss-120b-p5en-8p2d",
    "gpt-oss-120b-p6-b200-2xtp4",
    "gpt-oss-120b-p6-b200-8xtp1",
    "llama-3.3-70b-p5en-4p2d",
    "llama-3.3-70b-p5en-8xtp2",
    "qwen3-235b-p5en-4p2d",
    "qwen3-235b-p5en-4xtp4",
    "qwen3-32b-fp8-g7e-4p4d",
    "qwen3-32b-fp8-g7e-8xtp2",
    "qwen3-32b-p5-4p2d",
    "qwen3-32b-p5-8xtp2",
}
# (recipe, platform) → a part of why the target refuses it.
REFUSED = {("efa-managed-tier", "eks"): "HyperPod's nodes have that storage, plain EKS has not"}


def cases() -> list[tuple[str, str]]:
    """(recipe, platform) of all that the target renders."""
    every = [(name, platform) for name in objects_recipes.names() for platform in PLATFORMS]
    return [case for case in every if case not in REFUSED]


def rendered(name: str, platform: str) -> list[dict[str, Any]]:
    """The objects, a copy to break."""
    return copy.deepcopy(_rendered(name, platform))


def settings(name: str, platform: str) -> list[str]:
    """The options that a recipe is rendered with."""
    found = [f"platform={platform}", f"image={IMAGE}", *EXTRA.get(name, ()), *([FOLDER] if name in LARGE else [])]
    if any(spec.autoscaling for spec in objects_recipes.load(name).recipe.roles().values()):
        found.append("prometheus=http://prometheus.monitoring:9090")
    if (known := models.find(objects_recipes.load(name).recipe.model.huggingface)) and known.gated:
        found.append("hf_token_secret=hub")
    return found


def asked(text: str, command: str) -> list[str]:
    """The words of a command that a rendered file's comment has, over however many lines."""
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    _, found, rest = "\n".join(lines).replace("\\\n", " ").partition(command)
    return shlex.split((found + rest).split("\n")[0])


def option(name: str, key: str) -> str:
    """What a recipe is rendered with for one option; empty where that is not given."""
    return next((each.removeprefix(f"{key}=") for each in EXTRA.get(name, ()) if each.startswith(f"{key}=")), "")


@cache
def _rendered(name: str, platform: str) -> list[dict[str, Any]]:
    rendering = deploy.render(objects_recipes.load(name), "kubernetes", settings(name, platform))
    return [dict(document.body) for document in rendering.documents if not isinstance(document.body, str)]
