"""What is simulated: workers by role, with step times, limits and links, from a recipe or a layout's name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from hyperpd import capacity, models
from hyperpd.errors import RecipeError
from hyperpd.model import Model
from hyperpd.plan.simulate.sequence import Limits
from hyperpd.plan.steptime import Efficiency, StepTime, gpu_of, step_time
from hyperpd.recipe import Recipe, parse

MODEL = "meta-llama/Llama-3.3-70B-Instruct"
INSTANCE = "ml.p5.48xlarge"
TENSOR = 4
# vLLM 0.32's default of --max-num-seqs for a server on a GPU of 70 GiB and more, arg_utils.get_batch_defaults.
_SEQUENCES = 1024


@dataclass(frozen=True, slots=True)
class Role:
    """The workers of a role. `link_bytes_s`: each worker's share of its node's network, one direction."""

    name: str  # prefill, decode or aggregated
    workers: int
    step: StepTime
    limits: Limits
    link_bytes_s: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers of one role, aggregated, or of two. `handoff_s`: from prefill's answer to decode's scheduler, a plain
    assumption; `max_len_tokens`: of a prompt and its output."""

    name: str
    roles: tuple[Role, ...]
    kv: Model
    block_size_tokens: int
    max_len_tokens: int
    handoff_s: float = 0.005

    def role(self, name: str) -> Role | None:
        """The workers of a role, if there are any."""
        return next((role for role in self.roles if role.name == name), None)

    def chunked(self, chunk_tokens: int, *roles: str) -> Fleet:
        """The same with another --max-num-batched-tokens for `roles`."""
        changed = tuple(
            replace(role, limits=replace(role.limits, chunk_tokens=chunk_tokens)) if role.name in roles else role
            for role in self.roles
        )
        return replace(self, roles=changed)


def recipe_of(layout: str, model: str = MODEL, instance: str = INSTANCE, max_len_tokens: int | None = None) -> Recipe:
    """The recipe of `layout`: 2p2d (TP 4), 4p2d-tp2, or 4xtp4 for the aggregated baseline.

    max_len_tokens: default: what the model takes. Raises RecipeError.
    """
    known = models.find(model)
    if not known:
        there = ", ".join(one.name for one in models.MODELS)
        raise RecipeError("model", [f"nothing is known of {model}; there are {there}"])
    split = re.fullmatch(r"([1-9]\d*)p([1-9]\d*)d(?:-tp(\d+))?", layout)
    whole = re.fullmatch(r"([1-9]\d*)xtp(\d+)", layout)
    if not split and not whole:
        raise RecipeError("layout", [f"{layout!r} is none; as in 2p2d, 4p2d-tp2, or 4xtp4 for aggregated workers"])

    def role(replicas: str, tensor: str | None) -> dict[str, Any]:
        parallel = {"tensor": int(tensor or TENSOR)}
        return {"replicas": int(replicas), "instance_type": instance, "parallel": parallel}

    roles = (
        {"prefill": role(split[1], split[3]), "decode": role(split[2], split[3])}
        if split
        else {"aggregated": role(whole[1], whole[2])}
        if whole
        else {}
    )
    document = {
        "version": 1,
        "name": layout,
        "model": {"huggingface": model, "max_len_tokens": max_len_tokens or known.context_tokens},
        **roles,
    }
    return parse(document, layout)


def fleet_of(recipe: Recipe, efficiency: Efficiency = Efficiency()) -> Fleet:
    """The workers of `recipe` on the machines it names.

    Raises CapacityError where it does not fit them, RecipeError with everything that cannot be simulated.
    """
    known = models.find(recipe.model.huggingface)
    if not known:
        raise RecipeError("model", [f"nothing is known of {recipe.model.name}: no step times"])
    roles, problems = [], []
    for part in capacity.check(recipe).roles:
        spec = recipe.role(part.role)
        if spec.parallel.data > 1 or spec.parallel.pipeline > 1:
            problems.append(f"{part.role}.parallel: only tensor parallelism is simulated")
            continue
        try:
            gpu = gpu_of(part.instance.gpu, part.instance.gpu_gib)
        except RecipeError as error:
            problems.append(f"{part.role}: {error}")
            continue
        assert part.memory  # the model is known
        # Every rank beyond the KV heads holds a copy.
        kv_bytes = part.memory.kv_bytes_per_token * spec.parallel.tensor
        limits = Limits(
            chunk_tokens=capacity.batched_tokens(spec, part.instance),
            sequences=int(capacity.number(spec.engine.get("max-num-seqs")) or _SEQUENCES),
            cache_tokens=part.memory.rank_tokens,
        )
        roles.append(
            Role(
                part.role,
                part.workers,
                step_time(known, gpu, spec.parallel.tensor, kv_bytes, efficiency),
                limits,
                part.instance.gbit_s_per_gpu * spec.parallel.tensor * 1e9 / 8,
            )
        )
    if problems:
        raise RecipeError(recipe.name, problems)
    if not roles:
        raise RecipeError(recipe.name, ["no role names an instance type: no step times"])
    return Fleet(recipe.name, tuple(roles), known.kv, recipe.kv_transfer.block_size_tokens, recipe.model.max_len_tokens)
