"""check(recipe) → Capacity: does it fit the machines it names? Offline, before anything is started or paid.

What is counted, for one GPU:

    memory the driver leaves × gpu-memory-utilization
      = weights + reserve (activations, CUDA graphs, libraries) + KV cache

Weights as published; the reserve is an estimate (below), and vLLM measures its own at start. Layers are
taken as split evenly by PP, all other weights by TP; experts by all ranks, since vLLM spreads them over
data-parallel ranks too, with expert parallelism or without. What is not counted is said in
`Capacity.notes`, and what could not be checked in `Capacity.unchecked`, never silently.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hyperpd import models
from hyperpd.errors import CapacityError, RecipeError
from hyperpd.instances import INSTANCES, InstanceType, find
from hyperpd.model import Model
from hyperpd.models import KnownModel
from hyperpd.placement import Machine, place
from hyperpd.recipe import Recipe, Role, RoleSpec

GIB = 2**30
UTILIZATION = 0.92  # vLLM 0.32's default, config/cache.py
# An 80 GiB H100 shows 79.22 GiB (vLLM pull request 10511); the same share is assumed of all GPUs.
_LEFT_BY_DRIVER = 0.99
# Estimates. Llama-3-8B on an H100, 8,192 batched tokens (vLLM pull request 10511): activations 1.26 GiB with
# one GPU and with two, so 40 bytes for each token and hidden unit; CUDA and NCCL 1.79 GiB and 3.58 GiB.
_ACTIVATION_BYTES = 40
_LIBRARIES_GIB = 2.0
_LIBRARIES_MANY_GIB = 4.0
_CUDA_GRAPHS_GIB = 1.0  # a round figure, unverified
# vLLM's --kv-cache-dtype by the name our Model has for it; others cannot be counted.
_KV_DTYPES = {"fp8": "fp8", "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "bfloat16": "bfloat16", "float16": "float16"}
_NOT_COUNTED = {
    "quantization": "weights are counted as published",
    "speculative-config": "a draft model and its KV cache are not counted",
    "eplb-config": "copies of experts are not counted",
    "cpu-offload-gb": "weights moved to host memory are counted as if they stayed",
    "hf-overrides": "the model is counted as published",
}


@dataclass(frozen=True, slots=True)
class Memory:
    """One GPU's memory in GiB and what its KV cache holds. `weights`, `reserve` and `kv` fill the `budget`."""

    budget_gib: float
    weights_gib: float
    reserve_gib: float  # an estimate
    kv_gib: float  # below zero: weights and reserve alone are too much
    kv_bytes_per_token: int  # on this GPU: its share of layers and heads
    rank_tokens: int  # in sequences of max_len_tokens, for one data-parallel rank
    sequences: int  # of max_len_tokens, for one data-parallel rank


@dataclass(frozen=True, slots=True)
class RoleCapacity:
    """What the workers of one role take. `memory` is None where the model is not known."""

    role: Role
    instance: InstanceType
    workers: int
    gpus_per_worker: int
    gpus_per_node: int  # of one worker on one node
    efa_per_node: int  # EFA devices of one worker on one node: its share by GPUs, whole ones
    nodes: int  # if the role has its nodes alone
    ranks: int  # data-parallel ranks of a worker
    memory: Memory | None

    @property
    def worker_tokens(self) -> int | None:
        """Tokens of KV cache that one worker holds, over its data-parallel ranks."""
        return self.memory.rank_tokens * self.ranks if self.memory else None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a recipe takes. `unchecked` and `notes` are for people, and always shown."""

    roles: tuple[RoleCapacity, ...]
    gpus: int  # allocated; `nodes` are what is billed
    nodes: int
    kv_bytes_per_token: int | None  # all layers and heads, once
    s_per_1000_tokens: float | None  # a handoff of 1,000 tokens at line rate; None: no network, or not known
    unchecked: tuple[str, ...]
    notes: tuple[str, ...]

    def role(self, role: Role) -> RoleCapacity:
        """One role's part."""
        return next(part for part in self.roles if part.role == role)


def check(recipe: Recipe, known: KnownModel | None = None) -> Capacity:
    """What `recipe` takes of the machines it names.

    known: the model's facts; default: models.find of its Hugging Face id. A role without an instance type,
    an instance type or a model nothing is known of are left out of the sums and named in `unchecked`.
    Raises CapacityError with every problem, each with needed and available, and the nearest change that fits.
    """
    known = known or models.find(recipe.model.huggingface)
    capacity, problems = _examine(recipe, known)
    if not problems and recipe.fabric in ("tcp", "infiniband") and len(capacity.roles) > 1:
        rooms = [part.instance.gpus for part in capacity.roles for _ in range(part.nodes)]
        placed = place(recipe, [Machine(gpus=room) for room in rooms])  # roles may share a machine
        capacity = replace(capacity, nodes=len({worker.node for worker in placed.workers}))
    if problems:
        near = _nearest(recipe, known)
        hints = [f"the nearest that fits: {near}"] if near else []
        raise CapacityError("\n  - ".join([f"{recipe.name} does not fit:", *problems, *hints]))
    return capacity


def machines(recipe: Recipe) -> tuple[Machine, ...]:
    """The machines to plan on where nobody has named any: those of the instance types, else as few as may be.

    Raises CapacityError, as check does.
    """
    parts = {part.role: part for part in check(recipe).roles}
    gpus: list[int | None] = []
    for role, spec in recipe.roles().items():
        if part := parts.get(role):
            gpus += [part.instance.gpus] * part.nodes
        elif recipe.fabric == "efa" or spec.parallel.nodes > len(gpus):
            gpus += [None] * (spec.parallel.nodes if recipe.fabric == "efa" else spec.parallel.nodes - len(gpus))
    if recipe.fabric == "local":
        gpus = gpus[:1]
    if len(gpus) == 1:
        return (Machine(gpus=gpus[0]),)
    return tuple(Machine(f"node-{number}", gpus=room) for number, room in enumerate(gpus))


def instances(taken: Capacity) -> dict[str, int]:
    """How many nodes of which type that is."""
    found: dict[str, int] = {}
    for part in taken.roles:
        found[part.instance.name] = found.get(part.instance.name, 0) + part.nodes
    return dict.fromkeys(found, taken.nodes) if len(found) == 1 else found


def _examine(recipe: Recipe, known: KnownModel | None) -> tuple[Capacity, list[str]]:
    problems: list[str] = []
    unchecked = [] if known else [f"memory and KV cache: nothing is known of {recipe.model.name}{_like(recipe)}"]
    parts = []
    if recipe.accelerator == "cpu":
        unchecked = ["everything: the recipe runs on CPUs"]
    for role, spec in recipe.roles().items() if recipe.accelerator == "gpu" else ():
        if not spec.instance_type:
            unchecked.append(f"{role}: no instance_type")
            continue
        try:
            instance = find(spec.instance_type)
        except RecipeError as error:
            problems += [f"{role}.instance_type: {problem}" for problem in error.problems]
            continue
        part = _role(recipe, role, spec, instance, known)
        parts.append(part)
        problems += [f"{role}: {problem}" for problem in _role_problems(recipe, part, spec, known)]
    nodes = sum(part.nodes for part in parts)
    gpus = sum(part.workers * part.gpus_per_worker for part in parts)
    if recipe.fabric == "local" and parts:
        nodes = 1
        have = min(part.instance.gpus for part in parts)
        if len({part.instance.name for part in parts}) > 1:
            names = " and ".join(part.instance.name for part in parts)
            problems.append(f"kv_transfer.fabric local is one machine, but the roles name {names}")
        elif gpus > have or any(spec.parallel.nodes > 1 for spec in recipe.roles().values()):
            problems.append(f"kv_transfer.fabric local is one machine: needs {gpus} GPUs, {have} available")
    if known and recipe.model.max_len_tokens > known.context_tokens:
        need = f"needs a context of {recipe.model.max_len_tokens} tokens, {known.context_tokens} available"
        problems.append(f"model.max_len_tokens: {need} in {known.name}")
    shape = served(recipe, known.kv, next(iter(recipe.roles().values()))) if known else None
    return (
        Capacity(
            roles=tuple(parts),
            gpus=gpus,
            nodes=nodes,
            kv_bytes_per_token=shape.kv_bytes_per_token if shape else None,
            s_per_1000_tokens=_transfer_s(recipe, shape, parts) if shape else None,
            unchecked=tuple(unchecked),
            notes=tuple(_notes(recipe, parts)),
        ),
        problems,
    )


def _like(recipe: Recipe) -> str:
    """The known model that was perhaps meant."""
    near = difflib.get_close_matches(recipe.model.huggingface or "", [one.name for one in models.MODELS], 1, 0.8)
    return f"; did you mean {near[0]}?" if near else ""


def _role(recipe: Recipe, role: Role, spec: RoleSpec, instance: InstanceType, known: KnownModel | None) -> RoleCapacity:
    parallel = spec.parallel
    if parallel.nodes > 1:
        nodes = spec.replicas * parallel.nodes
    else:
        nodes = -(-spec.replicas // max(1, instance.gpus // parallel.size))
    return RoleCapacity(
        role=role,
        instance=instance,
        workers=spec.replicas,
        gpus_per_worker=parallel.size,
        gpus_per_node=parallel.per_node,
        efa_per_node=instance.efa_with(parallel.per_node),
        nodes=nodes,
        ranks=parallel.data,
        memory=_memory(recipe, role, instance, known) if known else None,
    )


def served(recipe: Recipe, kv: Model, spec: RoleSpec) -> Model:
    """A model's KV cache in the dtype of the recipe; one whose width is not known counts as full width."""
    dtype = _KV_DTYPES.get(str(spec.engine.get("kv-cache-dtype", "auto")), recipe.model.dtype)
    return replace(kv, dtype=dtype)


def _memory(recipe: Recipe, role: Role, instance: InstanceType, known: KnownModel) -> Memory:
    spec = recipe.role(role)
    parallel, engine = spec.parallel, spec.engine
    utilization = number(engine.get("gpu-memory-utilization")) or UTILIZATION
    budget = instance.gpu_gib * _LEFT_BY_DRIVER * utilization
    dense = (known.weights_bytes - known.expert_bytes) / (parallel.tensor * parallel.pipeline)
    weights = (dense + known.expert_bytes / parallel.size) / GIB
    reserve = _LIBRARIES_MANY_GIB if parallel.size > 1 else _LIBRARIES_GIB
    reserve += _ACTIVATION_BYTES * known.hidden_size * batched_tokens(spec, instance) / GIB
    reserve += 0 if engine.get("enforce-eager") else _CUDA_GRAPHS_GIB
    if given := number(engine.get("kv-cache-memory-bytes")):
        kv, budget = given / GIB, instance.gpu_gib * _LEFT_BY_DRIVER  # vLLM ignores the utilization then
    else:
        kv = budget - weights - reserve
    shape = served(recipe, known.kv, spec)
    rank = replace(
        shape,
        layers=-(-shape.layers // parallel.pipeline),
        sliding_layers=shape.sliding_layers // parallel.pipeline if recipe.hybrid_kv_cache(role) else 0,
        # vLLM gives each rank at least one KV head, and MLA's latent whole.
        kv_heads=max(1, shape.kv_heads // parallel.tensor),
    )
    length = recipe.model.max_len_tokens
    sequence = rank.kv_bytes(length, recipe.kv_transfer.block_size_tokens)
    room = max(0.0, kv) * GIB
    return Memory(
        budget_gib=budget,
        weights_gib=weights,
        reserve_gib=reserve,
        kv_gib=kv,
        kv_bytes_per_token=rank.kv_bytes_per_token,
        rank_tokens=int(room * length / sequence),
        sequences=int(room // sequence),
    )


def number(option: object) -> float | None:
    """A number as vLLM's options take it: 8192, 8k (thousands) or 8K (1024); None for what is none."""
    found = re.fullmatch(r"(\d+\.?\d*)([kmgtKMGT]?)", str(option))
    if not found:
        return None
    digits, unit = found.groups()
    power = "kmgt".find(unit.lower()) + 1 if unit else 0
    return float(digits) * float(1000 if unit.islower() else 1024) ** power


def batched_tokens(spec: RoleSpec, instance: InstanceType) -> int:
    """Tokens of one step: the option, or vLLM 0.32's default by the GPU's memory (arg_utils.get_batch_defaults)."""
    if given := number(spec.engine.get("max-num-batched-tokens")):
        return int(given)
    if instance.gpu_gib >= 160:
        return 16_384
    return 8_192 if instance.gpu_gib >= 70 and instance.gpu != "A100" else 2_048


def _role_problems(recipe: Recipe, part: RoleCapacity, spec: RoleSpec, known: KnownModel | None) -> Iterator[str]:
    parallel, instance, memory = spec.parallel, part.instance, part.memory
    if part.gpus_per_node > instance.gpus:
        yield f"needs {part.gpus_per_node} GPUs of one node, {instance.gpus} available on {instance.name}"
    elif parallel.nodes > 1 and part.gpus_per_node < instance.gpus:
        idle = f"takes {part.gpus_per_node} GPUs of each of its nodes, {instance.gpus} available on {instance.name}"
        yield f"parallel.nodes: {idle}; a worker over several nodes takes whole ones: fewer nodes, or more data"
    tiers_gib = spec.kv_tiers.memory_gib if spec.kv_tiers and spec.kv_tiers.memory_gib else 0
    together = min(part.workers, max(1, instance.gpus // max(1, part.gpus_per_node)))
    if tiers_gib * together > instance.ram_gib:
        needs = f"needs {tiers_gib * together:g} GiB of host memory for {together} workers of one node"
        yield f"kv_tiers.memory_gib: {needs}, {instance.ram_gib} available on {instance.name}"
    across = part.role != "aggregated" and recipe.fabric == "efa"
    if across and not instance.efa and not recipe.kv_transfer.allow_tcp:
        yield f"kv_transfer.fabric efa needs an EFA device, 0 available on {instance.name}"
    if not known or not memory:
        return
    tensor, heads, kv_heads = parallel.tensor, known.attention_heads, known.kv.kv_heads
    if heads % tensor:
        yield f"parallel.tensor: {tensor} does not divide the {heads} attention heads of {known.name}"
    elif kv_heads % tensor and tensor % kv_heads:
        yield f"parallel.tensor: {tensor} neither divides nor is a multiple of the {kv_heads} KV heads of {known.name}"
    shards = 1 if parallel.expert else parallel.tensor * parallel.data
    if known.expert_shards and known.expert_shards % shards:
        what = f"tensor x data = {shards} needs each expert cut in {shards}, at most {known.expert_shards} available"
        yield f"parallel: {what} with the quantised blocks of {known.name}; set parallel.expert"
    fixed = memory.weights_gib + memory.reserve_gib
    if fixed >= memory.budget_gib:
        parts = f"{memory.weights_gib:.1f} weights, {memory.reserve_gib:.1f} reserve (an estimate)"
        yield f"needs {fixed:.1f} GiB of each GPU ({parts}), {memory.budget_gib:.1f} available on {instance.name}"
    elif fixed + memory.kv_gib > memory.budget_gib * 1.0001:
        kv = f"kv-cache-memory-bytes: needs {fixed + memory.kv_gib:.1f} GiB of each GPU with weights and reserve"
        yield f"{kv}, {memory.budget_gib:.1f} available on {instance.name}"
    elif not memory.sequences:
        need = f"needs KV cache for one sequence of {recipe.model.max_len_tokens} tokens"
        yield f"{need}, {memory.rank_tokens} tokens available; lower model.max_len_tokens or raise TP"


def _transfer_s(recipe: Recipe, shape: Model, parts: list[RoleCapacity]) -> float | None:
    """Seconds that the KV cache of 1,000 tokens takes between machines, at the line rate of the GPUs that hold it.

    A prompt's KV cache lies on one data-parallel rank: its TP x PP GPUs send, and as many of decode's as TP
    receive. Ranks beyond the KV heads, and all ranks of MLA, each read a copy.
    """
    if recipe.fabric == "local" or [part.role for part in parts] != ["prefill", "decode"]:
        return None
    sender, receiver = (recipe.role(part.role).parallel for part in parts)
    rate_gbit_s = min(
        parts[0].instance.gbit_s_per_gpu * sender.tensor * sender.pipeline,
        parts[1].instance.gbit_s_per_gpu * receiver.tensor,
    )
    copies = receiver.tensor if shape.latent else max(1, receiver.tensor // shape.kv_heads)
    return shape.kv_bytes(1000, recipe.kv_transfer.block_size_tokens) * copies * 8 / (rate_gbit_s * 1e9)


def _notes(recipe: Recipe, parts: list[RoleCapacity]) -> Iterator[str]:
    if recipe.model.adapters:
        yield "adapters: their weights are not counted"
    for part in parts:
        spec = recipe.role(part.role)
        for option, says in _NOT_COUNTED.items():
            if option in spec.engine:
                yield f"{part.role}.engine.{option}: {says}"
        for option in ("gpu-memory-utilization", "max-num-batched-tokens", "kv-cache-memory-bytes"):
            if option in spec.engine and number(spec.engine[option]) is None:
                yield f"{part.role}.engine.{option}: {spec.engine[option]} is no number; vLLM's default is counted"
        kv_dtype = str(spec.engine.get("kv-cache-dtype", "auto"))
        if kv_dtype != "auto" and kv_dtype not in _KV_DTYPES:
            yield f"{part.role}.engine.kv-cache-dtype: {kv_dtype} is counted as {recipe.model.dtype}"
        if recipe.fabric == "efa" and part.role != "aggregated" and not part.efa_per_node:
            devices = f"{part.instance.efa} EFA devices for {part.instance.gpus} GPUs"
            yield f"{part.role}: {part.instance.name} has {devices}; workers share one, and a pod takes a whole one"
        if spec.autoscaling and spec.autoscaling.max > spec.replicas:
            yield f"{part.role}: counted for {spec.replicas} workers; autoscaling goes to {spec.autoscaling.max}"


def _nearest(recipe: Recipe, known: KnownModel | None) -> str | None:
    """The first change that fits: another TP of one role, of all roles, then another instance type.

    A prompt longer than the model's context is cut in any case.
    """
    if known and recipe.model.max_len_tokens > known.context_tokens:
        cut = recipe.model.model_copy(update={"max_len_tokens": known.context_tokens})
        recipe = recipe.model_copy(update={"model": cut})
        said = f"model.max_len_tokens: {known.context_tokens}"
        more = _nearest(recipe, known) if _examine(recipe, known)[1] else ""
        return None if more is None else f"{said}, and {more}" if more else said
    roles = [part.role for part in _examine(recipe, known)[0].roles]
    for some in [*([role] for role in roles), *([roles] if len(roles) > 1 else [])]:
        for tensor in (1, 2, 4, 8):
            if variant := _fits(recipe, known, some, tensor, None):
                return f"{' and '.join(f'{role}.parallel.tensor: {tensor}' for role in some)} on {variant}"
    counts = {find(recipe.role(role).instance_type or "").gpus for role in roles}
    for instance in sorted(INSTANCES, key=lambda one: (one.gpu_gib, one.gbit_s_per_gpu)):
        if counts == {instance.gpus} and _fits(recipe, known, roles, None, instance.name):
            return f"instance_type: {instance.name}"
    return None


def _fits(
    recipe: Recipe, known: KnownModel | None, roles: list[Role], tensor: int | None, instance: str | None
) -> str | None:
    """The instance type of `roles` once changed, if all problems are gone with the change."""
    document = recipe.model_dump()
    for role in roles:
        if tensor:
            document[role]["parallel"]["tensor"] = tensor
        if instance:
            document[role]["instance_type"] = instance
    try:
        variant = Recipe.model_validate(document)  # also: P and D must still be able to exchange KV
    except ValueError:
        return None
    _, problems = _examine(variant, known)
    return None if problems else variant.role(roles[0]).instance_type
