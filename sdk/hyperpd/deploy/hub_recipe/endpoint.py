"""The objects of the target inference_operator, as they are: hyp can post them, pdSpec and all.

hyp's own commands for endpoints drop pdSpec; a recipe's objects go through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperpd.deploy import inference_operator
from hyperpd.deploy.hub_recipe import hyp
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.inference_operator.endpoint import Endpoint
from hyperpd.deploy.inference_operator.options import ENDPOINT_SUFFIX
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX
from hyperpd.deploy.target import Document, fate, written
from hyperpd.recipe import Recipe, RecipeFile

NEEDS = "HyperPod's inference operator, 3.2 or later for pdSpec, and for a front the namespace of its engines"
NAMESPACES = (
    f"The endpoint is in <namespace>{ENDPOINT_SUFFIX}, which has to be there, and a front's engines in"
    f" <namespace>{ENGINES_SUFFIX}; the operator makes longer names of it: keep it short"
)
KUBECTLS = "Namespace"
_ROLES = {"prefillSpec": "prefill", "decodingSpec": "decode"}


def problems(recipe: Recipe, options: Options) -> list[str]:
    """What that target refuses, by its fields, too."""
    paths = {path: fate(inference_operator.FIELDS, path) for path in written(recipe)}
    refused = [f"{path}: {field.how}" for path, field in paths.items() if field and field.fate == "refused"]
    if options.instance_type:
        refused.append("instance_type: this object names its machines itself; remove it")
    return refused + inference_operator.problems(recipe, options)


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What that target loses, by its fields, too."""
    paths = {path: fate(inference_operator.FIELDS, path) for path in written(recipe)}
    lost = [f"{path}: {field.how}" for path, field in paths.items() if field and field.fate == "not expressed"]
    return lost + inference_operator.losses(recipe, options)


def documents(file: RecipeFile, options: Options) -> list[Document]:
    return inference_operator.documents(file, options)


def image(recipe: Recipe, options: Options) -> str:
    return _endpoint(recipe, options).image


def machines(recipe: Recipe, options: Options) -> list[str]:
    if options.front:
        return [str(options.front_instance_type)]
    return [str(spec.instance_type) for spec in recipe.roles().values()]


def asking(recipe: Recipe, options: Options) -> list[str]:
    """By hyp, where SageMaker knows the endpoint. What the operator calls its load balancer is not published."""
    endpoint = _endpoint(recipe, options)
    return [hyp.invoke(endpoint.name, recipe)] if options.sagemaker_endpoint else []


def scaled(recipe: Recipe, options: Options) -> list[str]:
    return ["gateway"] if options.front else list(recipe.roles())


def counted(body: Mapping[str, Any], counts: Mapping[str, Any]) -> Mapping[str, Any]:
    if body["kind"] != "InferenceEndpointConfig":
        return body
    spec = dict(body["spec"])
    if "pdSpec" in spec:
        numbered = {key: {**spec["pdSpec"][key], "replicas": counts[role]} for key, role in _ROLES.items()}
        spec["pdSpec"] = {**spec["pdSpec"], **numbered}
    else:
        (spec["replicas"],) = counts.values()
    return {**body, "spec": spec}


def _endpoint(recipe: Recipe, options: Options) -> Endpoint:
    return Endpoint(RecipeFile(recipe, Path(), ""), options)
