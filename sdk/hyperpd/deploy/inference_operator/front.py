"""The gateway front: hyperpd's gateway as a SageMaker endpoint, before engines that the target kubernetes renders.

Together: `hyperpd render R --target kubernetes` for the engines, `--target inference_operator --set front=true`
with the same `namespace` for this. The gateways of the first may stay, for clients inside the cluster.
"""

from __future__ import annotations

from hyperpd.deploy.inference_operator.endpoint import (
    ALIVE,
    API_EVERYWHERE,
    GATEWAY_ADMIN_PORT,
    GATEWAY_PORT,
    IMAGE_PULL_S,
    METRICS_NOTE,
    Endpoint,
    Written,
    metrics,
    probe,
)
from hyperpd.deploy.kubernetes import gateway, network
from hyperpd.deploy.kubernetes.fleet import Object, selector
from hyperpd.deploy.target import Document


def write(endpoint: Endpoint) -> Written:
    """The spec of the front."""
    source, mount = endpoint.recipe_volume()
    spec: Object = {
        **endpoint.head(),
        "instanceType": endpoint.options.front_instance_type,
        "replicas": endpoint.recipe.gateway.replicas,
        "invocationEndpoint": "invocations",
        **source,
        "loadBalancer": {"healthCheckPath": "/ping"},
        "metrics": metrics(GATEWAY_ADMIN_PORT),
        "maxDeployTimeInSeconds": endpoint.recipe.start_timeout_s + IMAGE_PULL_S,
        "kvCacheSpec": {"enableL1Cache": False},
        "worker": {
            "image": endpoint.image,
            "modelInvocationPort": {"containerPort": GATEWAY_PORT, "name": "http"},
            "modelVolumeMount": mount,
            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
            "environmentVariables": [
                {"name": "HYPERPD_ROLE", "value": "gateway"},
                *endpoint.identity(API_EVERYWHERE),
                *gateway.sources(endpoint.fleet),
            ],
            "probes": {
                "startupProbe": probe(ALIVE, GATEWAY_PORT, 1, 60),
                "readinessProbe": probe("/ping", GATEWAY_PORT, 2, 2),
                "livenessProbe": probe(ALIVE, GATEWAY_PORT, 10, 6),
            },
        },
    }
    notes = {
        "spec.metrics": METRICS_NOTE,
        "spec.modelSourceConfig": "There is no model here: the volume of its name holds the recipe.",
        "spec.maxDeployTimeInSeconds": "start_timeout_s of the engines, and half an hour for images.",
        "spec.kvCacheSpec": "A gateway keeps no KV; the operator's default is an L1 cache.",
        "spec.worker.probes.livenessProbe": "Of this process alone: without workers a gateway is not ready, but well.",
        "spec.worker.resources": "One process relays bytes on one CPU; bodies are held while they run.",
    }
    comment = (
        "hyperpd's gateway as a SageMaker endpoint: sagemaker-runtime reaches it. It finds the engines by DNS, those of"
        f" --target kubernetes --set namespace={endpoint.options.namespace}: apply these first. Deployed only when"
        " engines are ready, since /ping says so. SageMaker waits 60 s for an answer: stream longer ones."
    )
    return Written(spec, notes, comment)


def way_in(endpoint: Endpoint) -> Document:
    """A policy for the engines of the target kubernetes: these let only their own gateways in, by labels."""
    fleet = endpoint.fleet
    front = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": endpoint.namespace}}}
    ports = network.tcp(network.gateway_ports(fleet))
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": fleet.meta("front", "engines"),
        "spec": {
            "podSelector": {"matchLabels": selector()},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [front], "ports": ports}],
        },
    }
    comment = (
        "In the engines' namespace: the front reaches workers, beside the gateways there. By its namespace, which"
        " holds nothing else: labels of the operator's pods are not published."
    )
    return Document("3-network.yaml", comment, body)
