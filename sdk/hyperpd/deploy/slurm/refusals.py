"""Why a recipe cannot be rendered with these options, beyond fields that are always refused; and what is lost."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd import models
from hyperpd.deploy.kubernetes import lifetimes
from hyperpd.deploy.kubernetes.fleet import GATED
from hyperpd.deploy.slurm import layout
from hyperpd.deploy.slurm.fields import FIELDS
from hyperpd.deploy.slurm.options import Options
from hyperpd.deploy.target import fate, written
from hyperpd.engine import hub_names
from hyperpd.errors import CapacityError, RecipeError
from hyperpd.placement import Machine, Ports, place
from hyperpd.recipe import Recipe

_PORTS = Ports()
_SIGNAL_AT_MOST_S = 65535  # sbatch --signal
_EARLY_S = 60  # Slurm may send it as much earlier


def problems(recipe: Recipe, options: Options) -> Iterator[str]:
    """Every problem, each with the field or option it is about."""
    yield from _options(recipe, options)
    yield from _paths(recipe, options)
    yield from _machines(recipe)


def not_expressed(recipe: Recipe) -> Iterator[str]:
    """Fields the author wrote that FIELDS gives up, as in "path: why"."""
    for path in written(recipe):
        found = fate(FIELDS, path)
        if found and found.fate == "not expressed":
            yield f"{path}: {found.how}"


def losses(recipe: Recipe, options: Options) -> Iterator[str]:
    """What a job with these options does not do."""
    if recipe.gateway.auth == "keys":
        yield (
            f"gateway.auth: the gateway alone asks for keys; who reaches the nodes reaches engines ({_PORTS.worker_api}"
            f" and up) and their admin ports ({_PORTS.worker_admin} and up) without; close their security group"
        )
    if options.mode == "bare" and recipe.image:
        yield f"image: mode bare runs {options.python} of the nodes, whatever it has installed"
    for role, spec in recipe.roles().items():
        own = getattr(options, f"{role}_partition", None)
        if spec.instance_type and not (own or options.partition):
            yield f"{role}.instance_type: no partition is given, so its nodes may be any of the cluster's default"


def ending_s(recipe: Recipe) -> int:
    """Seconds that an orderly end takes at most: the gateway, and then all workers at once."""
    if layout.local(recipe):
        return lifetimes.ending_s(recipe, "node")
    workers = max(
        lifetimes.ending_s(recipe, role, leads=spec.parallel.nodes == 1) for role, spec in recipe.roles().items()
    )
    return lifetimes.ending_s(recipe, "gateway") + workers


def _options(recipe: Recipe, options: Options) -> Iterator[str]:
    if not options.folder:
        yield "folder: missing; give --set folder=/fsx/…, which every node of the job has"
    image = options.image or recipe.image
    if options.mode == "container" and not image:
        yield "image: the recipe names none; give --set image=…, or mode=bare with python=…"
    elif options.mode == "container" and "@" in str(image) and not str(image).startswith("/"):
        yield (
            "image: Enroot takes a tag, no digest; import it to a file and give that (--set image=/fsx/…/hyperpd.sqsh),"
            f" or a tag of {image}"
        )
    if options.mode == "bare" and not options.python:
        yield "python: missing; mode bare needs it, as in --set python=/fsx/hyperpd/.venv/bin/python"
    cached = recipe.model.generated or recipe.model.huggingface or hub_names(recipe)
    if options.mode == "container" and cached and not options.cache_folder:
        yield (
            "cache_folder: missing; a container is gone with its step, and the model with it; give --set"
            " cache_folder=/fsx/…"
        )
    keys = recipe.gateway.auth == "keys"
    if keys and not options.keys_file:
        yield "gateway.auth: keys needs the key file; give --set keys_file=/fsx/…"
    if options.keys_file and not keys:
        yield "keys_file: the recipe says gateway.auth: none, so nobody would need a key"
    if options.hf_token_file and not (recipe.model.huggingface or hub_names(recipe)):
        yield "hf_token_file: nothing of this recipe comes from Hugging Face"
    known = models.find(recipe.model.huggingface)
    if known and known.gated and not options.hf_token_file:
        yield f"model.huggingface: {GATED}; give --set hf_token_file=/fsx/…"
    for role in ("prefill", "decode"):
        if getattr(options, f"{role}_partition") and (layout.local(recipe) or recipe.aggregated):
            yield f"{role}_partition: this job has no component of {role} alone; give partition"
    if recipe.fabric == "infiniband" and not recipe.aggregated:
        yield "kv_transfer.fabric: HyperPod machines have no InfiniBand; try efa"
    if options.gres and recipe.accelerator == "cpu":
        yield "gres: it asks for GPUs, and the recipe says accelerator: cpu"
    end_s = ending_s(recipe) + _EARLY_S
    if ending_s(recipe) > _SIGNAL_AT_MOST_S:
        yield f"drain_s: an orderly end takes up to {ending_s(recipe)} s, sbatch --signal at most {_SIGNAL_AT_MOST_S}"
    elif options.time_s is not None and options.time_s <= end_s:
        yield f"time: {options.time} is {options.time_s} s, of which an orderly end takes up to {end_s} s; give more"


def _paths(recipe: Recipe, options: Options) -> Iterator[str]:
    paths = {"model.path": recipe.model.path}
    paths |= {f"model.adapters.{n}.path": adapter.path for n, adapter in enumerate(recipe.model.adapters)}
    paths |= {f"{role}.kv_tiers.disk": spec.kv_tiers.disk for role, spec in recipe.roles().items() if spec.kv_tiers}
    for field, path in paths.items():
        if path and not path.startswith("/"):
            yield f"{field}: {path} is not absolute, and steps begin in the run's folder"
        elif path and options.mode == "container" and any(mark in path for mark in ",:"):
            yield f"{field}: {path} has a ',' or ':', which a list of mounts would read as its own"


def _machines(recipe: Recipe) -> Iterator[str]:
    if recipe.accelerator == "cpu":
        return
    known = True
    for role, spec in recipe.roles().items():
        try:
            found = layout.machine(recipe, role)
        except RecipeError as error:
            yield from (f"{role}.instance_type: {problem}" for problem in error.problems)
            known = False
            continue
        if layout.local(recipe):
            continue
        if not found:
            yield f"{role}.instance_type: missing; it says how many GPUs a node has, so how many nodes the job takes"
        elif spec.parallel.per_node > found.gpus:
            yield f"{role}.parallel: {spec.parallel.per_node} GPUs on one node, {found.name} has {found.gpus}"
        elif recipe.fabric == "efa" and recipe.on_fabric(role) and not found.efa and not recipe.kv_transfer.allow_tcp:
            yield f"{role}.instance_type: {found.name} has no EFA; try another, or kv_transfer.fabric: tcp"
    if known and layout.local(recipe):
        yield from _local(recipe)


def _local(recipe: Recipe) -> Iterator[str]:
    if len({spec.instance_type for spec in recipe.roles().values()}) > 1:
        yield "decode.instance_type: with kv_transfer.fabric: local all workers are on one node; give one type"
        return
    for role, spec in recipe.roles().items():
        if spec.parallel.nodes > 1:
            yield f"{role}.parallel.nodes: with kv_transfer.fabric: local all workers are on one node"
            return
    found = layout.machine(recipe, "prefill")
    try:
        place(recipe, (Machine(gpus=found.gpus if found else None),))
    except CapacityError as error:
        yield f"kv_transfer.fabric: local, but {error}"
