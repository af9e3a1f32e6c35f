"""render(recipe, target) → documents. One file or package per target; none of them applies anything."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from hyperpd import __version__, capacity
from hyperpd.deploy.target import Document, Target, fate, written
from hyperpd.errors import RecipeError
from hyperpd.problems import nearest, problems
from hyperpd.recipe import RecipeFile, shipped

TARGETS = (
    "kubernetes",
    "inference_operator",
    "hub_recipe",
    "custom_endpoint",
    "llm_d",
    "sagemaker_endpoint",
    "console",
    "slurm",
)


@dataclass(frozen=True, slots=True)
class Rendering:
    """What a target made of a recipe. `not_expressed`: "path: why", for fields the author wrote."""

    target: str
    documents: tuple[Document, ...]
    not_expressed: tuple[str, ...]


def target(name: str) -> Target:
    """A target by name. Raises RecipeError for an unknown one."""
    if name not in TARGETS:
        raise RecipeError(f"target {name}", [f"unknown{nearest(name, list(TARGETS))}"])
    return cast(Target, importlib.import_module(f"hyperpd.deploy.{name}"))


def options(chosen: Target, settings: Iterable[str]) -> Any:
    """A target's options from "key=value" texts. Raises RecipeError with every problem."""
    values: dict[str, str] = {}
    found = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            found.append(f"{setting}: give it as key=value")
        elif key in values:
            found.append(f"{key}: given twice; remove one")
        else:
            values[key] = value
    try:
        given = chosen.Options.model_validate(values)
    except ValidationError as error:
        found += problems(error, chosen.Options)
    if found:
        raise RecipeError(f"options of target {chosen.NAME}", found)
    return given


def render(file: RecipeFile, name: str, settings: Iterable[str] = ()) -> Rendering:
    """The documents of `file` for the target `name`; a pure function, so that two renderings can be compared.

    Raises RecipeError with every field the target refuses, CapacityError where it does not fit its machines.
    """
    chosen = target(name)
    given = options(chosen, settings)
    paths = list(written(file.recipe))
    fates = {path: fate(chosen.FIELDS, path) for path in paths}
    refused = [f"{path}: target {name} refuses it: {f.how}" for path, f in fates.items() if f and f.fate == "refused"]
    refused += chosen.problems(file.recipe, given)
    if refused:
        raise RecipeError(str(file.path), refused)
    capacity.check(file.recipe)
    lost = [f"{path}: {f.how}" for path, f in fates.items() if f and f.fate == "not expressed"]
    lost += chosen.losses(file.recipe, given)
    return Rendering(name, tuple(chosen.documents(file, given)), tuple(lost))


def texts(rendering: Rendering, file: RecipeFile, settings: Iterable[str] = ()) -> dict[str, str]:
    """File name → text, in the order of the documents; each file begins with where it comes from."""
    from hyperpd.deploy import yaml

    given = "".join(f" --set {shlex.quote(setting)}" for setting in settings)
    recipe = file.path.stem if file.path.stem in shipped() else file.path.name
    command = f"hyperpd render {shlex.quote(recipe)} --target {rendering.target}{given}"
    header = {
        "recipe": file.recipe.name,
        "recipe digest": f"sha256 {file.digest}",
        "target": rendering.target,
        "rendered by": f"hyperpd {__version__}: {command}",
    }
    return yaml.texts(rendering.documents, header, rendering.not_expressed)
