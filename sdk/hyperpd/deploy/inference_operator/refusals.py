"""Why a recipe cannot be rendered with these options, beyond the operator's rules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hyperpd import instances
from hyperpd.deploy.inference_operator.endpoint import Endpoint
from hyperpd.deploy.inference_operator.rules import PAIR_INSTANCE_TYPES
from hyperpd.deploy.kubernetes import storage
from hyperpd.deploy.kubernetes.fleet import GATED
from hyperpd.errors import RecipeError
from hyperpd.recipe import Role


def problems(endpoint: Endpoint) -> Iterator[str]:
    """Every problem, each with the field or option it is about."""
    yield from _options(endpoint)
    if endpoint.recipe.gateway.auth == "keys":
        yield (
            "gateway.auth: SageMaker takes the Authorization header off, so keys would shut everybody out; it is IAM"
            " that decides there. Remove it"
        )
    if endpoint.form == "front":
        if endpoint.fleet.local:
            yield "kv_transfer.fabric: local has its gateway in the pod of its workers; a front would find none"
        return
    if endpoint.recipe.accelerator == "cpu":
        yield "accelerator: cpu; the operator's serving images need GPUs. A front has no engine: --set front=true"
        return
    if endpoint.fleet.gated and not endpoint.options.hf_token_secret:
        yield f"model.huggingface: {GATED}; give --set hf_token_secret=…"
    yield from _model(endpoint)
    for role in endpoint.recipe.roles():
        yield from _worker(endpoint, role)
    if endpoint.form == "pair" and endpoint.recipe.fabric != "efa":
        yield (
            f"kv_transfer.fabric: {endpoint.recipe.fabric}; the operator moves KV over EFA only; try efa, or --target"
            " kubernetes"
        )


def _options(endpoint: Endpoint) -> Iterator[str]:
    options, recipe, form = endpoint.options, endpoint.recipe, endpoint.form
    if endpoint.ours and not (options.image or recipe.image):
        yield "image: the recipe names none; give --set image=…, or write it there (hyperpd image mirror)"
    scaled = [role for role, spec in recipe.roles().items() if spec.autoscaling]
    needless = {
        "own_image": form == "front" and "a front is always hyperpd's image",
        "front_instance_type": form != "front" and "goes with front",
        "pd_buffer_gib": (form != "pair" or endpoint.ours) and "only AWS's image in pdSpec has that buffer",
        "region": (form == "front" or not recipe.model.s3) and "nothing here comes from S3",
        "hf_token_secret": (form == "front" or not endpoint.fleet.from_hub)
        and "nothing of this object comes from Hugging Face",
        "prometheus": (form == "front" or not scaled) and "no role of this object has autoscaling",
    }
    yield from (f"{name}: {why}; remove it" for name, why in needless.items() if why and getattr(options, name))
    if form == "front":
        if not options.front_instance_type:
            yield "front_instance_type: missing; give --set front_instance_type=ml.m5.2xlarge, or another with CPUs"
        return
    if scaled and not options.prometheus:
        yield f"{scaled[0]}.autoscaling: the operator scales by metrics; give --set prometheus=https://aps-workspaces.…"
    if recipe.model.s3 and not options.region and not endpoint.ours:
        yield "model.s3: the operator has to know the bucket's region; give --set region=…"


def _model(endpoint: Endpoint) -> Iterator[str]:
    model = endpoint.recipe.model
    if endpoint.ours:
        # The one mount is the recipe's, and pods have no rights of their own.
        for field in ("path", "s3"):
            if getattr(model, field):
                yield f"model.{field}: with own_image the one volume mount holds the recipe; give model.huggingface"
        if any(adapter.path for adapter in model.adapters):
            yield "model.adapters: with own_image the one volume mount holds the recipe; give huggingface ids"
        if any(spec.kv_tiers for spec in endpoint.recipe.roles().values()):
            yield "prefill.kv_tiers: own_image has neither a volume nor the machine's address for one; remove it"
        return
    if model.generated:
        yield f"model.generated: AWS's image does not make {model.generated}; try own_image=true"
    if model.adapters:
        yield "model.adapters: the operator's worker mounts one model; try --target kubernetes"
    if model.revision and not re.fullmatch(r"[0-9a-f]{40}", model.revision):
        yield f"model.revision: {model.revision}; the operator takes a commit of 40 hexadecimal digits"
    if model.path and not model.path.startswith("/"):
        yield f"model.path: {model.path} is not absolute, and pods have no home"
    elif model.claim and storage.hidden(folder := storage.claim_folder(endpoint.fleet)):
        yield f"model.path: the claim would be mounted at {folder}, which the image needs; try /models/…"


def _worker(endpoint: Endpoint, role: Role) -> Iterator[str]:
    spec = endpoint.recipe.role(role)
    if spec.parallel.nodes > 1:
        yield f"{role}.parallel.nodes: {spec.parallel.nodes}; the operator's worker is one pod; try --target kubernetes"
    if not spec.instance_type:
        yield f"{role}.instance_type: missing; the operator has to know the machine"
        return
    try:
        machine = instances.find(spec.instance_type)
    except RecipeError as error:
        yield from (f"{role}.instance_type: {problem}" for problem in error.problems)
        return
    if spec.parallel.nodes == 1 and spec.parallel.per_node > machine.gpus:
        yield f"{role}.parallel: {spec.parallel.per_node} GPUs on one machine, {machine.name} has {machine.gpus}"
    if endpoint.form == "pair" and machine.name not in PAIR_INSTANCE_TYPES:
        yield f"{role}.instance_type: {machine.name}; pdSpec takes {', '.join(PAIR_INSTANCE_TYPES)}"
