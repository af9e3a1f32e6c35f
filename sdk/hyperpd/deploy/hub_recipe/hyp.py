"""What stock hyp 3.12.0 does with a recipe from a hub: which objects it can post, and how it names things.

Source: sagemaker-hyperpod 3.12.0, sagemaker/hyperpod/cli/recipe_utils.py (_submit_k8s_resources, _kind_to_plural,
_fetch_recipe_from_hub), and running it; tests/hyp runs it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from hyperpd.deploy.target import question
from hyperpd.recipe import Recipe

VERSION = "3.12.0"
_CORE = ("ConfigMap", "Secret", "Service")


def postable(body: Mapping[str, Any]) -> bool:
    """Whether hyp's path for an object is one that a server has.

    Of the group "" it posts three kinds; others, and everything in apps and extensions, go to /apis//…, which no
    server has. Every other object is posted as a namespaced one.
    """
    group, slash, _ = str(body["apiVersion"]).rpartition("/")
    if not slash:
        return body["kind"] in _CORE
    return group not in ("apps", "extensions") and "namespace" in body["metadata"]


def invoke(endpoint: str, recipe: Recipe) -> str:
    """What asks an endpoint that SageMaker knows; hyp has this one command for all of them."""
    return f"hyp invoke hyp-custom-endpoint --endpoint-name {endpoint} --body {shlex.quote(question(recipe))}"
