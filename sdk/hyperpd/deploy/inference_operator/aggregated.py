"""The aggregated form: one worker does both phases."""

from __future__ import annotations

from hyperpd.deploy.inference_operator import scaling, serving
from hyperpd.deploy.inference_operator.endpoint import (
    ALIVE,
    API_EVERYWHERE,
    GATEWAY_ADMIN_PORT,
    GATEWAY_PORT,
    IMAGE_NOTE,
    IMAGE_PULL_S,
    METRICS_NOTE,
    VLLM_PORT,
    Endpoint,
    Written,
    metrics,
    probe,
)
from hyperpd.deploy.kubernetes import lifetimes
from hyperpd.deploy.kubernetes.fleet import Object


def write(endpoint: Endpoint) -> Written:
    """The spec of the aggregated form."""
    recipe = endpoint.recipe
    spec = recipe.role("aggregated")
    source, mount = serving.source(endpoint)
    scaled = scaling.autoscaling(endpoint, "aggregated")
    health = "/ping" if endpoint.ours else "/health"
    # It knows of no tokens.
    algorithm = "round_robin" if recipe.gateway.policy == "round_robin" else "least_outstanding_requests"
    body: Object = {
        **endpoint.head(),
        "instanceType": spec.instance_type,
        "replicas": spec.replicas,
        "invocationEndpoint": "invocations" if endpoint.ours else "v1/chat/completions",
        **source,
        "loadBalancer": {"healthCheckPath": health, "routingAlgorithm": algorithm},
        "metrics": metrics(GATEWAY_ADMIN_PORT if endpoint.ours else VLLM_PORT),
        "maxDeployTimeInSeconds": recipe.start_timeout_s + IMAGE_PULL_S,
        **({"autoScalingSpec": scaled} if scaled else {}),
        "kvCacheSpec": {"enableL1Cache": False},
        "worker": _worker(endpoint, mount, health),
    }
    notes = {
        "spec.loadBalancer": f"The nearest to gateway.policy: {recipe.gateway.policy}.",
        "spec.maxDeployTimeInSeconds": "start_timeout_s, and half an hour for the image.",
        "spec.kvCacheSpec": "The recipe keeps KV on the accelerator alone; the operator's default is an L1 cache.",
        "spec.worker.probes.startupProbe": "start_timeout_s and a margin.",
        "spec.worker.probes.livenessProbe": "Two minutes without an answer: a full engine is slow, not dead.",
        **({"spec.metrics": METRICS_NOTE} if endpoint.ours else {}),
        **({} if endpoint.ours or endpoint.options.image else {"spec.worker.image": IMAGE_NOTE}),
        **({"spec.autoScalingSpec": scaling.NOTE} if scaled else {}),
        **({"spec.worker.requestLimits": "gateway.limits, in each pod's own proxy."} if _limited(endpoint) else {}),
    }
    whose = "hyperpd's image, with a gateway of its own in each pod." if endpoint.ours else "AWS's serving image."
    return Written(body, notes, f"Each pod is a worker that does both phases, in {whose}")


def _worker(endpoint: Endpoint, mount: Object, health: str) -> Object:
    recipe, port = endpoint.recipe, GATEWAY_PORT if endpoint.ours else VLLM_PORT
    tries = lifetimes.startup_tries(recipe, "aggregated")
    if endpoint.ours:
        environment = endpoint.identity(API_EVERYWHERE) + serving.token(endpoint)
        environment.insert(0, {"name": "HYPERPD_ROLE", "value": "aggregated"})
        arguments = []
    else:
        environment = serving.environment(endpoint)
        arguments = [*serving.shared_arguments(endpoint), *serving.arguments(endpoint, "aggregated")]
    return {
        "image": endpoint.image,
        **({"args": arguments} if arguments else {}),
        "modelInvocationPort": {"containerPort": port, "name": "http"},
        "modelVolumeMount": mount,
        "resources": serving.resources(endpoint, "aggregated"),
        "environmentVariables": environment,
        "probes": {
            "startupProbe": probe(health, port, lifetimes.PERIOD_S, tries),
            "readinessProbe": probe(health, port, 5, 2),
            "livenessProbe": probe(ALIVE if endpoint.ours else health, port, lifetimes.PERIOD_S, 12),
        },
        **({"requestLimits": _limits(endpoint)} if _limited(endpoint) else {}),
    }


def _limited(endpoint: Endpoint) -> bool:
    return endpoint.recipe.gateway.limits.concurrent_requests is not None


def _limits(endpoint: Endpoint) -> Object:
    return {
        "maxConcurrentRequests": endpoint.recipe.gateway.limits.concurrent_requests,
        "maxQueueSize": 0,
        "overflowStatusCode": 429,
    }
