"""Wanted: what is to run: the objects of a recipe, checked as far as that goes without a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hyperpd import capacity
from hyperpd.deploy import render, target
from hyperpd.deploy.target import question
from hyperpd.engine import launch
from hyperpd.environment import model_path
from hyperpd.errors import RecipeError
from hyperpd.placement import place
from hyperpd.recipe import Recipe, RecipeFile, parse

Object = dict[str, Any]

APPLIED = ("kubernetes", "inference_operator")
# What to do with a rendering that is no set of objects for one API server.
_OTHERWISE = {
    "hub_recipe": "hyperpd hub publish {recipe}, then hyp create, as it says",
    "custom_endpoint": "hyperpd render {recipe} --target custom_endpoint -o FOLDER, then hyp create in FOLDER",
    "llm_d": "hyperpd render {recipe} --target llm_d -o FOLDER, then kubectl apply -f FOLDER and helmfile apply there",
    "sagemaker_endpoint": "hyperpd render {recipe} --target sagemaker_endpoint -o FOLDER, then python FOLDER/deploy.py",
    "console": "hyperpd render {recipe} --target console -o FOLDER, then the clicks of FOLDER/console.md",
    "slurm": "hyperpd render {recipe} --target slurm -o FOLDER, then sbatch FOLDER/job.sh on the cluster",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Objects in the order in which they are applied, and what they came from.

    replicas: by role (`gateway` among them), where `hyperpd scale` said other numbers than the recipe.
    """

    name: str
    target: str
    settings: tuple[str, ...]
    replicas: Mapping[str, int]
    parsed: Recipe
    recipe: str  # verbatim
    digest: str
    question: str  # the body of a first request
    keyed: bool  # whether the gateway asks for an API key
    objects: tuple[Object, ...]
    not_expressed: tuple[str, ...]

    @property
    def home(self) -> str:
        """The namespace that keeps the revisions: of the engines, which every form has, or of the endpoint."""
        return next(str(one["metadata"]["name"]) for one in self.objects if one["kind"] == "Namespace")


def want(
    file: RecipeFile, name: str, settings: Iterable[str] = (), replicas: Mapping[str, int] | None = None
) -> Wanted:
    """The objects of `file` for the target `name`, with the commands of all workers validated.

    Raises RecipeError, also for a target that is not applied, with the command that does it; CapacityError.
    """
    target(name)
    if name not in APPLIED:
        instead = _OTHERWISE[name].format(recipe=file.path.stem)
        raise RecipeError(f"target {name}", [f"hyperpd deploy does not apply it; try: {instead}"])
    settings = tuple(settings)
    scaled = file if not replicas else _scaled(file, replicas)
    rendering = render(scaled, name, settings)
    for worker in place(scaled.recipe, capacity.machines(scaled.recipe)).workers:
        launch(scaled.recipe, worker, model_path=model_path(scaled.recipe))
    return Wanted(
        name=file.recipe.name,
        target=name,
        settings=settings,
        replicas=dict(replicas or {}),
        parsed=file.recipe,
        recipe=file.path.read_bytes().decode(),
        digest=file.digest,
        question=question(file.recipe),
        keyed=file.recipe.gateway.auth == "keys",
        # As JSON has them, so that they equal those that a revision keeps.
        objects=tuple(json.loads(json.dumps([one.body for one in rendering.documents]))),
        not_expressed=rendering.not_expressed,
    )


def counts(recipe: Recipe) -> dict[str, int]:
    """How many workers each role has, and gateways."""
    return {role: spec.replicas for role, spec in recipe.roles().items()} | {"gateway": recipe.gateway.replicas}


def _scaled(file: RecipeFile, replicas: Mapping[str, int]) -> RecipeFile:
    """The same file with other numbers of workers; its digest, and so its pods, stay."""
    known = counts(file.recipe)
    if odd := [role for role in replicas if role not in known]:
        raise RecipeError(
            file.recipe.name, [f"{role}: there is no such role; it has {', '.join(known)}" for role in odd]
        )
    document = file.recipe.model_dump(exclude_unset=True)
    for role, count in replicas.items():
        document.setdefault(role, {})["replicas"] = count
    return RecipeFile(parse(document, f"{file.recipe.name} with other replicas"), file.path, file.digest)
