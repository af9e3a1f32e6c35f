"""Why a recipe cannot be an endpoint with these options, and what an endpoint takes away of it."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd import capacity, models
from hyperpd.deploy.sagemaker_endpoint.endpoint import (
    ECR,
    MODEL_FOLDER,
    instance_type,
    is_shipped,
    known,
    model_data,
)
from hyperpd.deploy.sagemaker_endpoint.fields import FIELDS
from hyperpd.deploy.sagemaker_endpoint.options import Options
from hyperpd.deploy.target import fate, written
from hyperpd.errors import CapacityError
from hyperpd.placement import Machine, place
from hyperpd.recipe import Recipe

START_LIMIT_S = 3600  # of both of SageMaker's timeouts
BODY_LIMIT_MIB = 6  # InvokeEndpoint's body, 6,291,456 bytes
KILLED_AFTER_S = 30  # SIGKILL after SIGTERM (AWS: "Custom Inference Code with Hosting Services")
_MARGIN_S = 5
NOT_HOSTED = ("ml.gr6.8xlarge",)  # of hyperpd.instances; the tests hold it against botocore's list


def problems(recipe: Recipe, options: Options) -> Iterator[str]:
    """Every problem, each with the field or option it is about."""
    yield from _options(recipe, options)
    yield from _files(recipe, options)
    yield from _instance(recipe, options)
    if recipe.start_timeout_s > START_LIMIT_S:
        yield f"start_timeout_s: SageMaker waits at most {START_LIMIT_S} s (found {recipe.start_timeout_s})"


def not_expressed(recipe: Recipe) -> Iterator[str]:
    """Fields that the author wrote, and that are not expressed whatever else the recipe says."""
    for path in written(recipe):
        if (found := fate(FIELDS, path)) and found.fate == "not expressed":
            yield f"{path}: {found.how}"


def losses(recipe: Recipe, options: Options) -> Iterator[str]:
    """What this recipe says, and SageMaker does otherwise."""
    paths = set(written(recipe))
    if recipe.accelerator == "cpu":
        yield "accelerator: cpu needs an image with the CPU engine; container/Dockerfile builds none with it"
    if "gateway.limits.body_mib" in paths and recipe.gateway.limits.body_mib > BODY_LIMIT_MIB:
        yield f"gateway.limits.body_mib: InvokeEndpoint takes {BODY_LIMIT_MIB} MiB at most"
    if "drain_s" in paths and recipe.drain_s > KILLED_AFTER_S - _MARGIN_S:
        yield f"drain_s: SageMaker kills the container {KILLED_AFTER_S} s after SIGTERM"
    if "model.revision" in paths and options.model_data:
        yield "model.revision: the files in model_data are what they are"
    if start_s(recipe) == START_LIMIT_S and recipe.start_timeout_s < START_LIMIT_S:
        yield f"start_timeout_s: with the first handoff it may take longer than SageMaker's {START_LIMIT_S} s"


def start_s(recipe: Recipe) -> int:
    """Seconds from the container's start until /ping has to say 200: what is before the engines, they, and the
    first handoff."""
    return min(recipe.start_timeout_s + 240, START_LIMIT_S)


def _options(recipe: Recipe, options: Options) -> Iterator[str]:
    if not options.role_arn:
        yield "role_arn: missing; give --set role_arn=arn:aws:iam::…:role/…, the endpoint's execution role"
    image = options.image or recipe.image
    if not image:
        yield "image: the recipe names none; give --set image=…, or write it there (hyperpd image push)"
    elif not ECR.fullmatch(image):
        yield f"image: SageMaker pulls from Amazon ECR; {image} is not there (hyperpd image push, hyperpd image mirror)"
    if options.inference_ami and recipe.accelerator == "cpu":
        yield "inference_ami: it chooses GPU drivers, and the recipe says accelerator: cpu"


def _files(recipe: Recipe, options: Options) -> Iterator[str]:
    data = model_data(recipe, options)
    if recipe.model.path and not data:
        yield "model.path: an endpoint's instance has no folder of yours; give its files as --set model_data=s3://…"
    if (found := models.find(recipe.model.huggingface)) and found.gated and not data:
        yield (
            f"model.huggingface: {found.name} is gated: Hugging Face hands it out with a token only, and the container"
            " has none; put its files in S3 and give --set model_data=s3://…"
        )
    if data and not data.removeprefix("s3://").partition("/")[2].strip("/"):
        yield "model.s3: a whole bucket; give a prefix"
    if not (data or recipe.model.path) and not is_shipped(recipe):
        yield (
            "model: the container does not have this recipe (only unchanged shipped ones), and no files of its model"
            " come from S3, with which it could travel; give --set model_data=s3://…"
        )
    if recipe.model.generated and data and is_shipped(recipe):
        yield "model_data: the model is generated and the recipe shipped, so nothing would be read from there"
    for index, adapter in enumerate(recipe.model.adapters):
        if adapter.path and not adapter.path.startswith(f"{MODEL_FOLDER}/"):
            yield f"model.adapters.{index}.path: {adapter.path} is not in the container; put it below {MODEL_FOLDER}/"
        elif adapter.path and not data:
            yield f"model.adapters.{index}.path: nothing is in {MODEL_FOLDER}; give --set model_data=s3://…"
    for role, spec in recipe.roles().items():
        if spec.kv_tiers and spec.kv_tiers.disk and not spec.kv_tiers.disk.startswith("/tmp/"):
            yield f"{role}.kv_tiers.disk: the container's user may not write to {spec.kv_tiers.disk}; try /tmp/…"


def _instance(recipe: Recipe, options: Options) -> Iterator[str]:
    if not recipe.aggregated and recipe.fabric not in ("local", "tcp"):
        yield (
            f"kv_transfer.fabric: {recipe.fabric} joins machines, and an endpoint of hyperpd is one instance;"
            " try local, which needs the GPUs of all workers on one, or the target kubernetes"
        )
    types = sorted({spec.instance_type for spec in recipe.roles().values() if spec.instance_type})
    if len(types) > 1 and not options.instance_type:
        yield f"decode.instance_type: all workers are on one instance; found {' and '.join(types)}"
    name = instance_type(recipe, options)
    machine = known(name or "")
    if not name:
        yield "instance_type: the recipe names none; give --set instance_type=ml.…"
    elif name in NOT_HOSTED:
        yield f"instance_type: SageMaker has no endpoints on {name}"
    elif recipe.accelerator == "gpu" and not machine:
        yield f"instance_type: nothing is known of {name}; hyperpd plan lists what is"
    elif recipe.accelerator == "cpu" and machine:
        yield f"instance_type: {name} has GPUs, and the recipe says accelerator: cpu"
    elif machine and options.volume_gb and machine.nvme_gb:
        yield f"volume_gb: {name} has disks of its own, and SageMaker refuses a size there"
    if recipe.accelerator == "gpu" and machine:
        if options.instance_type:  # the recipe's own has been looked at by whoever renders
            yield from _on(recipe, machine.name)
        gib = sum(s.replicas * (s.kv_tiers.memory_gib or 0) for s in recipe.roles().values() if s.kv_tiers)
        if gib > machine.ram_gib / 2:
            yield (
                f"prefill.kv_tiers.memory_gib: {gib:g} GiB for all workers, more than half of the {machine.ram_gib} GiB"
                f" of {machine.name}; engines load their model there, too"
            )
        # The fabric is judged above, once; here only how many GPUs there are.
        fitting = recipe.model_copy(update={"kv_transfer": recipe.kv_transfer.model_copy(update={"fabric": "local"})})
        try:
            place(fitting, (Machine(gpus=machine.gpus),))
        except CapacityError:
            taken = sum(spec.replicas * spec.parallel.size for spec in recipe.roles().values())
            yield f"replicas: all workers are on one {name} with {machine.gpus} GPUs, and they take {taken}"


def _on(recipe: Recipe, name: str) -> Iterator[str]:
    """Whether the model fits the GPUs of another instance type than the recipe's."""
    update = {"instance_type": name}
    roles: dict[str, object] = {role: spec.model_copy(update=update) for role, spec in recipe.roles().items()}
    try:
        capacity.check(recipe.model_copy(update=roles))
    except CapacityError as error:
        yield f"instance_type: {error}"
