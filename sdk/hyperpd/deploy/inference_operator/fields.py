"""What becomes of every field of a recipe, and what each form loses beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyperpd import instances
from hyperpd.deploy.inference_operator.endpoint import METRICS_LOST, Endpoint, Form
from hyperpd.deploy.target import Field, fate, written
from hyperpd.recipe import Limits


def _is(how: str) -> Field:
    return Field("expressed", how)


def _not(why: str) -> Field:
    return Field("not expressed", why)


FIELDS: Mapping[str, Field] = {
    "version": _is("Read while rendering"),
    "name": _is("Name of the object, of its model and SageMaker endpoint, where the option name is not given"),
    "description": _is("Annotation hyperpd.io/description"),
    "accelerator": _is("gpu; cpu is refused but for a front, whose engines the target kubernetes renders"),
    "image": _is("front, own_image: worker.image; else AWS's image serves, and this is listed"),
    "model": _is("modelSourceConfig and worker.args; own_image: the container reads the recipe"),
    "model.generated": _is("Only with own_image, and front"),
    "model.path": _is("modelSourceType kubernetesVolume: hostPath, or in the claim"),
    "model.claim": _is("modelSourceType kubernetesVolume: persistentVolumeClaim"),
    "model.huggingface": _is("modelSourceType huggingface; option hf_token_secret"),
    "model.revision": _is("huggingFaceModel.commitSHA; refused where it is no commit of 40 digits"),
    "model.s3": _is("modelSourceType s3; needs the option region"),
    "model.adapters": _is("Only with own_image (from the hub), and front; refused else: it could not be mounted"),
    "*.replicas": _is("pdSpec.*.replicas, or replicas"),
    "*.autoscaling": _is("autoScalingSpec; needs the option prometheus, an AMP workspace"),
    "*.instance_type": _is("instanceType, or instanceTypes and a nodeSelector of each role"),
    "*.parallel": _is("GPUs of a pod, and vLLM's arguments"),
    "*.parallel.nodes": _is("Only 1: the operator's worker is one pod; more is refused"),
    "*.kv_tiers.memory_gib": _not("No field for it: kvCacheSpec.enableL1Cache has no size"),
    "*.kv_tiers.disk": _not("No field for it: a worker has one volume mount, the model's"),
    "*.kv_tiers.managed": _is("kvCacheSpec.l2CacheSpec: tieredstorage"),
    "*.engine": _is("vLLM's arguments of the role"),
    "kv_transfer": _is("own_image: the container reads it. AWS's image: listed as lost, the operator decides"),
    "gateway.policy": _is(
        "The nearest of intelligentRoutingSpec, or of loadBalancer.routingAlgorithm; front: the gateway reads it"
    ),
    "gateway.decider": _is("pdSpec: the nearest threshold that it can set, printed; front: the gateway reads it"),
    "gateway.prefix_view": _is("front: the gateway reads it; listed as lost else"),
    "gateway.calibration": _is("front: the gateway reads it; listed as lost else"),
    "gateway.replicas": _is("front: replicas; listed as lost else"),
    "gateway.threshold_tokens": _is("pdSpec.routingThreshold; front: the gateway reads the recipe"),
    "gateway.auth": _is("Only none: SageMaker and its IAM decide who may call; keys is refused"),
    "gateway.steering": _is("front, own_image: the gateway reads it; listed as lost else"),
    "gateway.isolate_prefix_cache": _is("Only false: it goes with gateway.auth: keys"),
    "gateway.limits": _is("front, own_image: the gateway reads it; listed as lost else"),
    "gateway.limits.concurrent_requests": _is(
        "aggregated: worker.requestLimits; front: the gateway reads it; pdSpec: listed as lost"
    ),
    "slo": _not("No field for it: autoscaling of this object asks each role's load alone"),
    "placement.same_zone": _is("pdSpec.topologySpec.sameAZ"),
    "start_timeout_s": _is("maxDeployTimeInSeconds; aggregated: the startup probe, too"),
    "drain_s": _not("No field for it: pods get Kubernetes' 30 s"),
}

_ENGINES = _not("said by --target kubernetes, which this front goes with")
# All but the one that worker.requestLimits has.
_LIMITS = [f"gateway.limits.{name}" for name in Limits.model_fields if name != "concurrent_requests"]
LOST: Mapping[Form, Mapping[str, Field]] = {
    "front": dict.fromkeys(("model", "*", "kv_transfer", "placement", "accelerator"), _ENGINES),
    "pair": {
        "kv_transfer": _not("the operator wires LMCache and NIXL over EFA by itself"),
        "gateway.replicas": _not("the router is the operator's"),
        "gateway.prefix_view": _not("the router is the operator's"),
        "gateway.calibration": _not("the operator's router predicts nothing from it"),
        "gateway.steering": _not("the operator's router takes what it is sent"),
        "gateway.limits": _not("worker.requestLimits would count in each pod of both roles, not once at the front"),
        "image": _not("AWS's image serves; own_image takes the recipe's"),
    },
    "aggregated": {
        "kv_transfer": _not("nothing is transferred"),
        "gateway.replicas": _not("there is no gateway but the operator's load balancer"),
        "gateway.decider": _not("there is one role"),
        "gateway.threshold_tokens": _not("there is one role"),
        "gateway.prefix_view": _not("the load balancer knows of no prefixes"),
        "gateway.calibration": _not("the load balancer predicts nothing from it"),
        "gateway.steering": _not("the engine takes what it is sent"),
        **dict.fromkeys(_LIMITS, _not("the operator's proxy has limits of its own")),
        "placement": _not("only pdSpec has a topologySpec"),
        "image": _not("AWS's image serves; own_image takes the recipe's"),
    },
}
# Whatever the recipe says, pdSpec's roles have no field for these.
_LACKING = (
    "*.environment: pdSpec's roles have none of their own; worker.environmentVariables holds for both",
    "*.probes: pdSpec's roles have none, and what the operator gives them is not published",
    "*.image: pdSpec's roles have none of their own; worker.image holds for both",
)
# The operator's router and settings are LMCache's; hyperpd's image has none, and a decode worker of it needs the ticket
# that hyperpd's gateway carries over.
_OWN_IMAGE = (
    "own_image: unverified, and in pdSpec it probably does not work: the operator wires LMCache, and hyperpd's image"
    " moves KV by tickets of its own gateway. Prefill and decode of hyperpd behind an endpoint: --set front=true, with"
    " --target kubernetes"
)
_READ_BY_OURS = ("image", "kv_transfer", "gateway.steering", *_LIMITS)


def losses(endpoint: Endpoint) -> Iterator[str]:
    """What the recipe says and this form does not, beyond FIELDS."""
    kept = _READ_BY_OURS if endpoint.options.own_image else ()
    table = {path: field for path, field in LOST[endpoint.form].items() if path not in kept}
    if endpoint.form == "front":
        # Whole blocks: the other rendering has them all.
        found = dict.fromkeys(path.split(".")[0] for path in written(endpoint.recipe))
        yield from (f"{path}: {_ENGINES.how}" for path in found if fate(table, path))
        yield METRICS_LOST
        return
    yield from (f"{path}: {lost.how}" for path in written(endpoint.recipe) if (lost := fate(table, path)))
    yield from _routing(endpoint)
    if endpoint.form == "pair":
        yield from _LACKING
        if endpoint.options.own_image:
            yield _OWN_IMAGE
    elif endpoint.options.own_image:
        yield METRICS_LOST
    yield from _neighbours(endpoint)


def _routing(endpoint: Endpoint) -> Iterator[str]:
    """How the operator's router differs from the recipe's gateway."""
    recipe, gateway = endpoint.recipe, endpoint.recipe.gateway
    if gateway.policy != "round_robin":
        nearest = {"pair": "prefixaware, among prefill workers", "aggregated": "least_outstanding_requests"}
        yield f"gateway.policy: {gateway.policy}; the nearest the operator has: {nearest[endpoint.form]}"
    if endpoint.form == "pair" and gateway.decider != "always":
        tokens = recipe.remote_from_tokens()
        remote = f"prefill is remote from {tokens} tokens on" if tokens else "prefill is always remote"
        yield f"gateway.decider: {gateway.decider}; the nearest the operator can set: {remote}"


def _neighbours(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.form != "pair":
        return
    for role, spec in endpoint.recipe.roles().items():
        machine = instances.find(str(spec.instance_type))
        if spec.parallel.per_node < machine.gpus:
            yield (
                f"{role}.parallel: {spec.parallel.per_node} of {machine.gpus} GPUs; nothing here keeps prefill and"
                " decode on different machines, and EFA has no way back into its own"
            )
