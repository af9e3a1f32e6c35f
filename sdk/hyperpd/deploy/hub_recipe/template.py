"""What hyp init downloads: the template of the objects, its parameters, and the hub's document that names both."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hyperpd import __version__
from hyperpd.deploy import yaml
from hyperpd.deploy.hub_recipe import hyp, objects
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

TEMPLATE, PARAMETERS, HUB_DOCUMENT = "k8s.jinja", "override-spec.json", "hub-document.json"
_MOST_WORKERS, _MOST_GATEWAYS = 1024, 64  # a recipe's own bounds


def parameters(recipe: Recipe, options: Options) -> dict[str, dict[str, Any]]:
    """What hyp configure may change, as hyp's override spec; the defaults are the recipe.

    Bounds are said twice: configure shows `min` and `max`, validate reads `minimum` and `maximum`.
    """
    found = {
        "namespace": _text(
            options.namespace,
            f"Namespace of the gateway; the engines' is <namespace>{ENGINES_SUFFIX}. Both have to be there",
        ),
        "image": _text(str(options.image or recipe.image), "Container image"),
        "instance_type": _text(
            instance_types(recipe, options)[0],
            "Of the recipe, and changes nothing in the objects: hyp asks for one, and warns if the cluster has none",
        )
        | {"enum": instance_types(recipe, options)},
    }
    if recipe.fabric == "local" and not recipe.aggregated:
        return found  # one pod for all
    for role, spec in recipe.roles().items():
        low, high = (spec.autoscaling.min, spec.autoscaling.max) if spec.autoscaling else (1, _MOST_WORKERS)
        found[f"{role}_replicas"] = _number(spec.replicas, low, high, f"How many {role} workers")
    found["gateway_replicas"] = _number(recipe.gateway.replicas, 1, _MOST_GATEWAYS, "How many gateways")
    return found


def instance_types(recipe: Recipe, options: Options) -> list[str]:
    """What hyp init may be given as --instance-type."""
    named = [spec.instance_type for spec in recipe.roles().values() if spec.instance_type]
    return list(dict.fromkeys(named)) or ([options.instance_type] if options.instance_type else [])


def template(file: RecipeFile, options: Options, lost: Sequence[str]) -> str:
    """The objects as Jinja that gives YAML: with the parameters' defaults, exactly the rendered objects."""
    marks = {key: f"{key.replace('_', '-')}-{file.digest[:12]}" for key in parameters(file.recipe, options)}
    marked = options.model_copy(update={"namespace": marks["namespace"], "image": marks["image"]})
    _, documents = objects.documents(file, marked)
    documents = [Document(TEMPLATE, d.comment, _counted(d.body, marks), d.notes) for d in documents]
    header = {
        "recipe": file.recipe.name,
        "recipe digest": f"sha256 {file.digest}",
        "target": f"hub_recipe, for hyp {hyp.VERSION}; changed by hyp configure, posted by hyp create",
        "rendered by": f"hyperpd {__version__}",
        "unverified": "no live cluster has run it; held to the API's schemas, and posted by hyp to a stand-in",
    }
    text = yaml.texts(documents, header, lost)[TEMPLATE]
    text = re.sub(r"\{(?=[{%#])", "{{ '{' }}", text)  # what the recipe and its comments say is no Jinja
    text = text.replace(f"image: {marks['image']}\n", "image: {{ image | tojson }}\n")
    text = re.sub(rf"(?m)(?<=[:-] ){marks['namespace']}\S*$", r'"\g<0>"', text)
    for key, mark in marks.items():
        text = text.replace(mark, f"{{{{ {key} }}}}")
    return text


def _counted(body: Mapping[str, Any] | str, marks: Mapping[str, str]) -> Mapping[str, Any] | str:
    """A workload whose replicas are a parameter's."""
    if isinstance(body, str) or body["kind"] != "LeaderWorkerSet":
        return body
    key = f"{body['metadata']['name'].removesuffix('-groups')}_replicas"
    return {**body, "spec": {**body["spec"], "replicas": marks[key]}} if key in marks else body


def hub_document(recipe: Recipe, options: Options, spec: str, text: str) -> dict[str, Any]:
    """What hyp init reads in HubContentDocument. The files' addresses change with what is in them."""
    folder = f"{options.bucket}/{recipe.name}/{hashlib.sha256((spec + text).encode()).hexdigest()[:12]}"
    entry = {
        "DisplayName": recipe.name,
        "Name": recipe.name,
        "CustomizationTechnique": options.technique.upper(),
        "SupportedInstanceTypes": instance_types(recipe, options),
        "HpEksOverrideParamsS3Uri": f"{folder}/{PARAMETERS}",
        "HpEksPayloadTemplateS3Uri": f"{folder}/{TEMPLATE}",
    }
    return {"RecipeCollection": [entry]}


def written(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _text(default: str, description: str) -> dict[str, Any]:
    return {"type": "string", "required": True, "default": default, "description": description}


def _number(default: int, low: int, high: int, description: str) -> dict[str, Any]:
    bounds = {"min": low, "max": high, "minimum": low, "maximum": high}
    return {"type": "integer", "required": True, "default": default, **bounds, "description": description}
