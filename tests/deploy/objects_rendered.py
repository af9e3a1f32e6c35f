"""Every recipe, rendered for Kubernetes on both platforms."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hyperpd import deploy
from tests.deploy import objects_recipes

PLATFORMS = ("hyperpod", "eks")
REFUSED: dict[str, str] = {}  # recipe → a word of why the target refuses it


def cases() -> list[tuple[str, str]]:
    """(recipe, platform) of all that the target renders."""
    return [(name, platform) for name in objects_recipes.names() if name not in REFUSED for platform in PLATFORMS]


def rendered(name: str, platform: str) -> list[dict[str, Any]]:
    """The objects, a copy to break."""
    return copy.deepcopy(_rendered(name, platform))


@cache
def _rendered(name: str, platform: str) -> list[dict[str, Any]]:
    rendering = deploy.render(objects_recipes.load(name), "kubernetes", [f"platform={platform}"])
    return [dict(document.body) for document in rendering.documents if not isinstance(document.body, str)]
