"""load(path) → ClusterSpec, checked whole; dump(spec) → the file's text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hyperpd.cluster import groups, rules
from hyperpd.cluster.spec import HOOKS, SPELLED, ClusterSpec, InstanceGroup, Lifecycle
from hyperpd.errors import RecipeError
from hyperpd.problems import problems
from hyperpd.recipe import read


def load(path: str | Path) -> ClusterSpec:
    """The cluster file at `path`; paths in it count from its folder, and are absolute in what is returned.

    Raises RecipeError with every problem of the file, CapacityError where its recipe does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(str(path), ["no such file; a cluster file begins with `version: 1` (hyperpd cluster schema)"])
    spec = _placed(parse(read(path.read_bytes(), str(path)), str(path)), path.resolve().parent)
    check(spec, str(path))
    return spec


def parse(document: Any, where: str) -> ClusterSpec:
    """Validate what was written in `where`, block by block. Raises RecipeError with every problem."""
    if not isinstance(document, dict):
        raise RecipeError(where, ["a cluster file is a mapping that begins with `version: 1`"])
    try:
        return ClusterSpec.model_validate(document)
    except ValidationError as error:
        raise RecipeError(where, problems(error, ClusterSpec, SPELLED)) from None


def check(spec: ClusterSpec, where: str = "") -> dict[str, InstanceGroup]:
    """The complete groups of `spec`. Raises RecipeError with every problem between blocks, CapacityError."""
    where = where or spec.name
    try:
        resolved = groups.resolve(spec)
    except ValidationError as error:
        raise RecipeError(
            where, [f"groups: {problem}" for problem in problems(error, InstanceGroup, SPELLED)]
        ) from None
    found = [*rules.problems(spec, resolved), *_folders(spec)]
    if found:
        raise RecipeError(where, found)
    return resolved


def dump(spec: ClusterSpec) -> str:
    """The file's text: what was set, and nothing else. load gives the same spec again."""
    document = spec.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _placed(spec: ClusterSpec, folder: Path) -> ClusterSpec:
    """The same with absolute paths."""
    update: dict[str, Any] = {}
    if spec.recipe and (folder / spec.recipe).is_file():
        update["recipe"] = str((folder / spec.recipe).resolve())
    if _is_folder(spec.lifecycle):
        update["lifecycle"] = _at(spec.lifecycle, folder)
    moved = {
        name: group.model_copy(update={"lifecycle": _at(group.lifecycle, folder)})
        for name, group in spec.groups.items()
        if group.lifecycle and _is_folder(group.lifecycle)
    }
    if moved:
        update["groups"] = {**spec.groups, **moved}
    return spec.model_copy(update=update)


def _at(lifecycle: Lifecycle, folder: Path) -> Lifecycle:
    return lifecycle.model_copy(update={"source": str((folder / Path(lifecycle.source).expanduser()).resolve())})


def _is_folder(lifecycle: Lifecycle) -> bool:
    return lifecycle.uploaded and lifecycle.source != "hyperpd"


def _folders(spec: ClusterSpec) -> list[str]:
    """Lifecycle folders that are not there, or lack the file that is to run."""
    places = {"lifecycle": spec.lifecycle} | {
        f"groups.{name}.lifecycle": group.lifecycle for name, group in spec.groups.items() if group.lifecycle
    }
    found = []
    for path, lifecycle in places.items():
        if not _is_folder(lifecycle):
            continue
        folder = Path(lifecycle.source).expanduser()
        if not folder.is_dir():
            found.append(f"{path}.source: {folder} is no folder; give one, or hyperpd, none or s3://…")
            continue
        named = [hook for hook in (lifecycle.on_create, lifecycle.on_init_complete) if hook]
        hooks = named or [HOOKS[spec.orchestrator.kind]]
        found += [f"{path}: there is no {hook} in {folder}" for hook in hooks if not (folder / hook).is_file()]
    return found
