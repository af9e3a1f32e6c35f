"""The native form: pdSpec, which makes the operator run prefill and decode apart."""

from __future__ import annotations

from hyperpd.deploy.inference_operator import scaling, serving
from hyperpd.deploy.inference_operator.endpoint import (
    IMAGE_NOTE,
    IMAGE_PULL_S,
    MODEL_FOLDER,
    VLLM_PORT,
    WORKER_PORT,
    Endpoint,
    Written,
    metrics,
)
from hyperpd.deploy.kubernetes.fleet import Object
from hyperpd.recipe import Role

_SCALING: dict[Role, str] = {"prefill": "prefillAutoScaling", "decode": "decodingAutoScaling"}
# What costs least by our reckoning is mostly where the prefix is cached; the operator has nothing that counts tokens.
_STRATEGIES = {"round_robin": "roundrobin", "least_tokens": "prefixaware", "marginal_slo_cost": "prefixaware"}
INSTANCE_LABEL = "node.kubernetes.io/instance-type"


def write(endpoint: Endpoint) -> Written:
    """The spec of the native form."""
    recipe = endpoint.recipe
    source, mount = serving.source(endpoint)
    types = list(dict.fromkeys(str(spec.instance_type) for spec in recipe.roles().values()))
    scaled = {key: block for role, key in _SCALING.items() if (block := scaling.autoscaling(endpoint, role))}
    pair: Object = {
        "prefillSpec": _role(endpoint, "prefill"),
        "decodingSpec": _role(endpoint, "decode"),
        "routingThreshold": recipe.remote_from_tokens(),
        "topologySpec": {"sameAZ": recipe.placement.same_zone},
        **({"autoScalingSpec": scaled} if scaled else {}),
    }
    tiers = recipe.prefill.kv_tiers if recipe.prefill else None
    managed = {"enableL2Cache": True, "l2CacheSpec": {"l2CacheBackend": "tieredstorage"}}
    spec: Object = {
        **endpoint.head(),
        **({"instanceType": types[0]} if len(types) == 1 else {"instanceTypes": types}),
        "invocationEndpoint": "v1/chat/completions",
        **source,
        "loadBalancer": {"healthCheckPath": "/health"},
        "metrics": metrics(WORKER_PORT if endpoint.ours else VLLM_PORT),
        "maxDeployTimeInSeconds": recipe.start_timeout_s + IMAGE_PULL_S,
        "intelligentRoutingSpec": {"enabled": True, "routingStrategy": _STRATEGIES[recipe.gateway.policy]},
        "kvCacheSpec": {"enableL1Cache": True, **(managed if tiers and tiers.managed else {})},
        "pdSpec": pair,
        "worker": _worker(endpoint, mount),
    }
    return Written(spec, _notes(endpoint, spec), _comment(endpoint))


def _role(endpoint: Endpoint, role: Role) -> Object:
    spec = endpoint.recipe.role(role)
    return {
        "replicas": spec.replicas,
        "args": ["--role", role] if endpoint.ours else serving.arguments(endpoint, role),
        "resources": serving.resources(endpoint, role),
        "nodeSelector": {INSTANCE_LABEL: spec.instance_type},
    }


def _worker(endpoint: Endpoint, mount: Object) -> Object:
    if endpoint.ours:
        # A peer on another machine connects to the pod's own address.
        address = {"name": "HYPERPD_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        environment = endpoint.identity(address)
        environment += serving.token(endpoint)
    else:
        environment = serving.environment(endpoint)
    return {
        "image": endpoint.image,
        **({} if endpoint.ours else {"args": serving.shared_arguments(endpoint)}),
        "modelInvocationPort": {"containerPort": WORKER_PORT if endpoint.ours else VLLM_PORT, "name": "http"},
        "modelVolumeMount": mount,
        "resources": serving.resources(endpoint, "prefill"),
        "environmentVariables": environment,
    }


def _comment(endpoint: Endpoint) -> str:
    comment = (
        "Prefill and decode by the operator's own pdSpec: it runs the router and wires LMCache and NIXL over EFA."
        " Needs operator 3.2 or later. Apply it with kubectl, or through hyp by --target hub_recipe; hyp 3.12's own"
        " commands for endpoints drop pdSpec without a word."
    )
    if endpoint.ours:
        comment += (
            " own_image probably does not work here: hyperpd's image has no LMCache, and moves KV by tickets that its"
            " own gateway carries, not the operator's router; what the operator adds to containers is not published."
            " The image takes its role from args. Peers need the workers' ports"
            " at the pod's address, where they ask for no key: only a policy of yours keeps other pods away."
        )
    return comment


def _notes(endpoint: Endpoint, spec: Object) -> dict[str, str]:
    recipe = endpoint.recipe
    notes = {
        "spec.maxDeployTimeInSeconds": "start_timeout_s, and half an hour for the image.",
        "spec.intelligentRoutingSpec": f"The nearest to gateway.policy: {recipe.gateway.policy}, among prefill workers."
        " It cannot be added to an endpoint that is there.",
        "spec.pdSpec.routingThreshold": f"The nearest to gateway.decider: {recipe.gateway.decider}. The operator's"
        " default is 4096, 0 is always.",
        "spec.worker.resources": "Required by the schema, and ignored for pdSpec: each role has its own.",
        "spec.pdSpec.prefillSpec.resources": "No EFA devices: AWS's example asks for none here.",
    }
    if not endpoint.ours:
        notes["spec.kvCacheSpec"] = "L1 as in AWS's example of pdSpec."
        notes["spec.pdSpec.prefillSpec.args"] = (
            "Merged into worker.args. A memory share that the recipe does not set is AWS's."
        )
        if not endpoint.options.image:
            notes["spec.worker.image"] = IMAGE_NOTE
    if "autoScalingSpec" in spec["pdSpec"]:
        notes["spec.pdSpec.autoScalingSpec"] = scaling.NOTE
    if "instanceTypes" in spec:
        notes["spec.instanceTypes"] = "Of both roles; nodeSelector tells them apart."
    if recipe.model.huggingface and not endpoint.ours:
        notes["spec.modelSourceConfig"] = f"The operator puts the files into {MODEL_FOLDER}."
    return notes
