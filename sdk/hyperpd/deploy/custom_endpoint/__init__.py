"""The target custom_endpoint: config.yaml for stock hyp's template hyp-custom-endpoint, one aggregated worker a pod.

The template mounts one volume, and it is the recipe's: a ConfigMap in the place of a model. hyp 3.12.0 renders it with
texts in plain double quotes, splits arguments at commas and drops what it does not know, all with exit 0. So whatever
would not arrive is refused here, by the recipe's field.
Source: sagemaker-hyperpod 3.12.0, hyperpod_custom_inference_template/v1_2; tests/hyp runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperpd import capacity, instances
from hyperpd.deploy.custom_endpoint.fields import FIELDS, SHARED_MEMORY
from hyperpd.deploy.custom_endpoint.options import Options
from hyperpd.deploy.hub_recipe import hyp
from hyperpd.deploy.kubernetes.fleet import GATED, RECIPE_KEY, Fleet
from hyperpd.deploy.kubernetes.options import Options as KubernetesOptions
from hyperpd.deploy.target import Document, endpoint_name
from hyperpd.errors import CapacityError, RecipeError
from hyperpd.placement import Ports
from hyperpd.recipe import Recipe, RecipeFile, RoleSpec

__all__ = ["FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "custom_endpoint"
SUMMARY = "Stock hyp 3.12.0: config.yaml of hyp init hyp-custom-endpoint, for aggregated recipes of one GPU"
BEFORE, FILE = "0-recipe.yaml", "config.yaml"
VERSION = "1.2"  # of the template
_SPLIT = "hyp strips pdSpec from what it posts, and says it succeeded; use hub_recipe"
_DEPLOY_S = 3600  # hyp's default
_VOLUME, _FOLDER = "model", "/opt/ml/model"
_COMMENT = """\
Unverified on a live cluster. In an empty folder: hyp init hyp-custom-endpoint, this file in place of its config.yaml, \
then kubectl apply --filename {before}, hyp validate and hyp create. When it is in service:
{asking}
The two lines below are hyp's: it reads them.
template: hyp-custom-endpoint
version: {version}"""


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    found = [f"{role}: {_SPLIT}" for role in recipe.roles() if role != "aggregated"]
    if not (options.image or recipe.image):
        found.append("image: the recipe names none; give --set image=…, or write it there (hyperpd image mirror)")
    for index, adapter in enumerate(recipe.model.adapters):
        if adapter.path:
            found.append(f"model.adapters.{index}.path: the one volume is the recipe's; give huggingface")
    if not recipe.aggregated:
        return found
    if Fleet(RecipeFile(recipe, Path(), ""), KubernetesOptions()).gated:
        found.append(f"model.huggingface: {GATED}, and hyp's template has no word for it; try --target kubernetes")
    if (size := recipe.aggregated.parallel.size) > 1:
        found.append(f"aggregated.parallel: {size} GPUs; {SHARED_MEMORY}; use hub_recipe")
    return [*found, *_machine(recipe, recipe.aggregated, options)]


def _machine(recipe: Recipe, spec: RoleSpec, options: Options) -> Iterator[str]:
    """Whoever names it: it has to be known to have the GPU that the worker asks for."""
    named, given = spec.instance_type, options.instance_type
    if not (named or given):
        yield "aggregated.instance_type: missing, and hyp asks for one; give --set instance_type=ml.…"
    if named and given:
        yield f"instance_type: the recipe names {named}; remove it here"
        return
    try:
        if (chosen := named or given) and recipe.accelerator == "gpu":
            instances.find(chosen)
        if given:  # the recipe's own is looked at by whoever renders
            capacity.check(recipe.model_copy(update={"aggregated": spec.model_copy(update={"instance_type": given})}))
    except RecipeError as error:
        yield from (f"{'aggregated.' if named else ''}instance_type: {problem}" for problem in error.problems)
    except CapacityError as error:
        yield f"instance_type: {error}"


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What an endpoint lacks, whatever the recipe says."""
    return [
        "metrics: hyp cannot say the pod's own address, and the ports of metrics, drain and engine ask for no key, so"
        " they listen on the pod's 127.0.0.1 alone",
        f"resources: hyp's template has no share of a machine, so a worker gets {_said(recipe)}, an estimate",
    ]


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """The recipe, for kubectl, and what hyp reads; hyp has the template."""
    recipe, spec = file.recipe, file.recipe.aggregated
    assert spec is not None  # problems() refuses others
    name = options.endpoint_name or endpoint_name(recipe)
    resources, fleet = _resources(recipe), Fleet(file, KubernetesOptions())
    body: dict[str, Any] = {
        "namespace": options.namespace,
        "metadata_name": name,
        "endpoint_name": name,
        "model_name": name,
        "instance_type": spec.instance_type or options.instance_type,
        "replicas": spec.replicas,
        "image_uri": options.image or recipe.image,
        "container_port": Ports().gateway_api,
        "invocation_endpoint": "invocations",
        "load_balancer_health_check_path": "/ping",
        "env": {
            "HYPERPD_ROLE": "aggregated",
            "HYPERPD_RECIPE": f"{_FOLDER}/{RECIPE_KEY}",
            "HYPERPD_API_ADDRESS": "0.0.0.0",
            "HYPERPD_STATE_DIR": "/tmp/hyperpd",
        },
        "resources_requests": resources,
        "resources_limits": {key: value for key, value in resources.items() if key != "cpu"},
        "model_source_type": "kubernetesVolume",
        "model_volume_mount_name": _VOLUME,
        "model_volume_mount_path": _FOLDER,
        "kubernetes": {"volumes": [{"name": _VOLUME, "configMap": {"name": fleet.configuration}}]},
        "auto_scaling_spec": {"minReplicaCount": spec.replicas, "maxReplicaCount": spec.replicas},
        "max_deploy_time_in_seconds": max(_DEPLOY_S, recipe.start_timeout_s),
        "metrics_enabled": False,
        **({"tls_certificate_output_s3_uri": options.certificates} if options.certificates else {}),
    }
    notes = {
        "container_port": "The worker's own front: the API, /ping and /invocations.",
        "env": "Texts only. The API alone listens on every address; the worker's ports stay within the pod.",
        "resources_requests": "An estimate, not measured; with GPUs from a process of CUDA and vLLM and some room for"
        " files that are read. A model whose files are larger loads more slowly.",
        "resources_limits": "Needed: with requests alone hyp's template gives no YAML.",
        "model_source_type": "The recipe's ConfigMap: the container takes the model that it names.",
        "auto_scaling_spec": "hyp always posts one, and without this key its own: 1 to 5. Unverified what the operator"
        " makes of one without a trigger.",
        "metrics_enabled": "The operator's sidecar would look for metrics at the API's port, which has none.",
    }
    before = "Byte for byte; another recipe has another name. Before hyp create: hyp has no word for it."
    asking = hyp.invoke(name, recipe).replace(" --body ", " --body \\\n")
    comment = _COMMENT.format(before=BEFORE, asking=asking, version=VERSION)
    return [Document(BEFORE, before, fleet.configmap(options.namespace)), Document(FILE, comment, body, notes)]


def _said(recipe: Recipe) -> str:
    return ", ".join(f"{key} {amount}" for key, amount in _resources(recipe).items())


def _resources(recipe: Recipe) -> dict[str, int | str]:
    """A modest share of a machine, estimated: weights of one GPU are read through the page cache, which is given
    back under pressure, so they need not fit; what stays is CUDA, torch and vLLM's processes, some 8 GiB."""
    if recipe.accelerator == "cpu":
        return {"cpu": "1", "memory": "4Gi"}
    return {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": 1}
