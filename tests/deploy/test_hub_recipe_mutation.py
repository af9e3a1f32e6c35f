"""Strictness, proven for hub_recipe: its objects, parameters and hub document made wrong in one place each."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

from hyperpd.deploy.hub_recipe import template
from tests.deploy import mutation, objects_recipes, schema, test_hub_recipe_endpoint
from tests.deploy.mutation import misspelt
from tests.deploy.operator_rendered import cases
from tests.deploy.test_hub_recipe import files, rendered

# What hyp 3.12.0 reads of a parameter, and of the hub's document (cli/recipe_utils.py, cli/init_utils.py).
NUMBER, TEXT = {"type": "integer"}, {"type": "string", "minLength": 1}
PARAMETER = {
    "type": "object",
    "properties": {
        "type": {"enum": ["string", "integer"]},
        "required": {"const": True},
        "default": {"type": ["string", "integer"]},
        "description": TEXT,
        "enum": {"type": "array", "items": TEXT, "minItems": 1},
        **dict.fromkeys(("min", "max", "minimum", "maximum"), NUMBER),
    },
    "required": ["type", "required", "default", "description"],
    "dependentRequired": {key: ["min", "max", "minimum", "maximum"] for key in ("min", "max", "minimum", "maximum")},
    "if": {"properties": {"type": {"const": "integer"}}},
    "then": {"required": ["min", "max", "minimum", "maximum"]},
    "additionalProperties": False,
}
ENTRY = {
    "type": "object",
    "properties": {
        "Name": TEXT,
        "DisplayName": TEXT,
        "CustomizationTechnique": {"type": "string", "pattern": "^[A-Z0-9]+$"},  # hyp compares in capitals
        "SupportedInstanceTypes": {"type": "array", "items": {"type": "string", "pattern": r"^ml\."}, "minItems": 1},
        "HpEksOverrideParamsS3Uri": {"type": "string", "pattern": "^s3://.+/override-spec.json$"},
        "HpEksPayloadTemplateS3Uri": {"type": "string", "pattern": "^s3://.+/k8s.jinja$"},
    },
    "additionalProperties": False,
}
ENTRY["required"] = [*ENTRY["properties"]]  # type: ignore[misc]


def wrong(body: dict[str, Any], required: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One level of an object, every key misspelt and every required one dropped."""
    for key in body:
        yield f"misspell {key}", {misspelt(k) if k == key else k: v for k, v in body.items()}
        if key in required:
            yield f"drop {key}", {k: v for k, v in body.items() if k != key}


def test_parameters_and_hub_document(record_property, capsys) -> None:
    tried: Counter[str] = Counter()
    missed = []
    every = [(name, files(objects_recipes.load(name))) for name in objects_recipes.names()]
    every += [(f"{name} {given}", test_hub_recipe_endpoint.files(name, *given)) for name, given in cases()]
    for name, texts in every:
        (entry,) = json.loads(texts[template.HUB_DOCUMENT])["RecipeCollection"]
        parts = [("document", entry, ENTRY)]
        parts += [(key, one, PARAMETER) for key, one in json.loads(texts[template.PARAMETERS]).items()]
        for where, body, declared in parts:
            checker = Draft202012Validator(declared)
            assert checker.is_valid(body), f"{name}: {where}: {body}"
            needed = [*declared["required"], *(declared["then"]["required"] if body.get("type") == "integer" else [])]
            for what, changed in wrong(copy.deepcopy(body), needed):
                tried[what.split()[0]] += 1
                if checker.is_valid(changed):
                    missed.append(f"{name}: {where}: {what}")
    with capsys.disabled():
        print(f"\nhub_recipe, its JSON: mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["drop"] > 500


def test_every_mutation_of_every_object_is_noticed(record_property, capsys) -> None:
    """Of the objects that are not the target kubernetes' own; test_mutation.py has those."""
    tried: Counter[str] = Counter()
    seen: set[str] = set()
    missed = []
    for name in [*objects_recipes.OWN, "tiny-cpu-1p1d", "tiny-gpu-1p1d"]:
        for body in rendered(objects_recipes.load(name))[1]:
            if body["kind"] not in ("LeaderWorkerSet", "ScaledObject"):
                continue
            if (text := json.dumps(body, sort_keys=True)) in seen:
                continue
            seen.add(text)
            for each in mutation.mutations(body):
                tried[each.what] += 1
                if not schema.problems(each.body):
                    missed.append(f"{name}, {body['kind']}: {each}")
    with capsys.disabled():
        print(f"\nhub_recipe: {len(seen)} objects, mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["misspell"] > 1000
    assert tried["drop"] > 100
