"""Every recipe, rendered for Kubernetes on both platforms."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hyperpd import deploy
from tests.deploy import objects_recipes

PLATFORMS = ("hyperpod", "eks")
IMAGE = "registry.example/hyperpd@sha256:" + "0" * 64
# Options that add objects or fields, each on a recipe of its own.
EXTRA = {
    "efa-full-nodes": ("queue=inference", "priority_class=serving"),
    "efa-two-kinds": ("privileged=true", "cache_folder=/opt/hyperpd/data/models"),
    "efa-aggregated-two-nodes": ("hf_token_secret=hub", "clients_namespace=shop"),
    "tcp-1p1d": ("keys_secret=keys",),
}
REFUSED: dict[str, str] = {}  # recipe → a word of why the target refuses it


def cases() -> list[tuple[str, str]]:
    """(recipe, platform) of all that the target renders."""
    return [(name, platform) for name in objects_recipes.names() if name not in REFUSED for platform in PLATFORMS]


def rendered(name: str, platform: str) -> list[dict[str, Any]]:
    """The objects, a copy to break."""
    return copy.deepcopy(_rendered(name, platform))


@cache
def _rendered(name: str, platform: str) -> list[dict[str, Any]]:
    file = objects_recipes.load(name)
    settings = [f"platform={platform}", f"image={IMAGE}", *EXTRA.get(name, ())]
    if any(spec.autoscaling for spec in file.recipe.roles().values()):
        settings.append("prometheus=http://prometheus.monitoring:9090")
    rendering = deploy.render(file, "kubernetes", settings)
    return [dict(document.body) for document in rendering.documents if not isinstance(document.body, str)]
