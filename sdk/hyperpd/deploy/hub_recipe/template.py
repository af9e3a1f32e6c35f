"""What hyp init downloads: the template of the objects, its parameters, and the hub's document that names both."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hyperpd import __version__
from hyperpd.deploy import yaml
from hyperpd.deploy.hub_recipe import hyp, objects
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

TEMPLATE, PARAMETERS, HUB_DOCUMENT = "k8s.jinja", "override-spec.json", "hub-document.json"
_MOST_WORKERS, _MOST_GATEWAYS = 1024, 64  # a recipe's own bounds


def parameters(recipe: Recipe, options: Options) -> dict[str, dict[str, Any]]:
    """What hyp configure may change, as hyp's override spec; the defaults are the recipe.

    Bounds are said twice: configure shows `min` and `max`, validate reads `minimum` and `maximum`.
    """
    form, types = objects.form(options), instance_types(recipe, options)
    found = {
        "namespace": _text(options.namespace, form.NAMESPACES),
        "image": _text(form.image(recipe, options), "Container image"),
        "instance_type": _text(
            types[0],
            "Of the recipe, and changes nothing in the objects: hyp asks for one, and warns if the cluster has none",
        )
        | {"enum": types},
    }
    changed = form.scaled(recipe, options)
    for role, spec in recipe.roles().items():
        if role in changed:
            low, high = (spec.autoscaling.min, spec.autoscaling.max) if spec.autoscaling else (1, _MOST_WORKERS)
            found[_count(role)] = _number(spec.replicas, low, high, f"How many {role} workers")
    if "gateway" in changed:
        found[_count("gateway")] = _number(recipe.gateway.replicas, 1, _MOST_GATEWAYS, "How many gateways")
    return found


def instance_types(recipe: Recipe, options: Options) -> list[str]:
    """What hyp init may be given as --instance-type."""
    return list(dict.fromkeys(objects.form(options).machines(recipe, options)))


def template(file: RecipeFile, options: Options, lost: Sequence[str]) -> str:
    """The objects as Jinja that gives YAML: with the parameters' defaults, exactly the rendered objects."""
    marks = {key: f"{key.replace('_', '-')}-{file.digest[:12]}" for key in parameters(file.recipe, options)}
    marked = options.model_copy(update={"namespace": marks["namespace"], "image": marks["image"]})
    _, documents = objects.documents(file, marked)
    form = objects.form(options)
    counts = {name: marks[_count(name)] for name in form.scaled(file.recipe, options)}
    documents = [replace(one, file=TEMPLATE, body=form.counted(_object(one), counts)) for one in documents]
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


def _object(document: Document) -> Mapping[str, Any]:
    assert not isinstance(document.body, str)
    return document.body


def _count(name: str) -> str:
    """The parameter that is a role's number."""
    return f"{name}_replicas"


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
