"""What routing's predictions start from: the recipe's calibration, and rough values for what it leaves out."""

from __future__ import annotations

import re
from dataclasses import replace

from hyperpd import instances, models
from hyperpd.pairing import Fingerprint
from hyperpd.recipe import Recipe
from hyperpd.routing.calibration import Calibration

_TOKENS_PER_S, _CPU_TOKENS_PER_S = 10_000.0, 2_000.0  # of a worker whose model or GPUs are not known
_FLOPS = 4e14  # of one GPU while it prefills: some 40 % of an H100's in bfloat16. Others are soon seen to differ
_STEP_S = 0.02
_NVLINK_BYTES_PER_S, _TCP_BYTES_PER_S = 50e9, 1e9
_KV_BYTES = 128 << 10  # of one token, where nobody says more
_ELEMENT_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
_SHAPE = re.compile(r"(\d+) layers, (?:(\d+) KV heads of (\d+)|one latent of (\d+))")  # Model.kv_shape


def start(recipe: Recipe) -> tuple[Calibration, list[str]]:
    """What the recipe says, and the names of the figures that are rough values instead, which ought to be measured."""
    rough = Calibration(
        prefill_tokens_per_s=_prefill_tokens_per_s(recipe),
        step_s=_STEP_S,
        kv_bytes_per_token=_kv_bytes(recipe),
        pair_bytes_per_s=_pair_bytes_per_s(recipe),
    )
    said = recipe.gateway.calibration.model_dump(exclude_none=True) if recipe.gateway.calibration else {}
    needed = ["prefill_tokens_per_s", "step_s"]
    if not recipe.aggregated:
        needed += ["pair_bytes_per_s", "handoff_s"]
    return replace(rough, **said), [name for name in needed if name not in said]


def kv_bytes_per_token(told: Fingerprint) -> int | None:
    """By what a worker says of its KV cache's shape; None where it does not."""
    shape = _SHAPE.fullmatch(told.identity.kv_shape)
    if not shape:
        return None
    layers, heads, size, latent = (int(number) if number else 0 for number in shape.groups())
    kind = told.identity.dtype if told.identity.kv_cache_dtype == "auto" else told.identity.kv_cache_dtype
    element_bytes = 1 if kind.startswith("fp8") else _ELEMENT_BYTES.get(kind, 2)
    return layers * (latent or 2 * heads * size) * element_bytes


def _kv_bytes(recipe: Recipe) -> int:
    known = models.find(recipe.model.huggingface)
    return known.kv.kv_bytes_per_token if known else _KV_BYTES


def _prefill_tokens_per_s(recipe: Recipe) -> float:
    if recipe.accelerator == "cpu":
        return _CPU_TOKENS_PER_S
    spec = recipe.prefill or recipe.role("aggregated")
    known = models.find(recipe.model.huggingface)
    return spec.parallel.size * _FLOPS / (2 * known.active_parameters) if known else _TOKENS_PER_S


def _pair_bytes_per_s(recipe: Recipe) -> float:
    """The slower end's share of its machine's network."""
    if recipe.fabric == "local":
        return _NVLINK_BYTES_PER_S
    machines = {machine.name: machine for machine in instances.INSTANCES}
    ends = [
        spec.parallel.tensor * spec.parallel.pipeline * machines[spec.instance_type].gbit_s_per_gpu * 1e9 / 8
        for spec in recipe.roles().values()
        if spec.instance_type in machines
    ]
    return min(ends, default=_TCP_BYTES_PER_S)
