"""llm-d's chart: its release as a helmfile, and the values that it takes.

Versions are those of llm-d-router's tag; its charts have no schema of values, so the tests hold these to the charts'
own values and templates. Unverified: a registry and a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from hyperpd.deploy import yaml
from hyperpd.deploy.kubernetes import machines, sidecar
from hyperpd.deploy.kubernetes.fleet import PORTS, Fleet
from hyperpd.deploy.llm_d import events, picker
from hyperpd.deploy.llm_d.options import Options
from hyperpd.deploy.target import Document

FILE, VALUES_FILE = "llm-d/helmfile.yaml", "llm-d/values.yaml"  # below: kubectl apply --filename FOLDER leaves them
RELEASE = "hyperpd"  # which is the InferencePool's name, too
PICKER = f"{RELEASE}-epp"  # what the charts call the endpoint picker's objects
PICKER_LABELS = {"llm-d-router-gateway": PICKER}
PICKER_PORT, METRICS_PORT, ENVOY_PORT = 9002, 9090, 8081
CHARTS = {"istio": "llm-d-router-gateway", "nginx": "llm-d-router-standalone"}
# What has to be in the cluster before, each in the version that this was written against.
BEFORE = (
    "Gateway API v1.6.1",
    "InferencePool's definition (Gateway API Inference Extension v1.6.0)",
)
OBJECTIVES = f"InferenceObjective's, for priorities (llm-d-router {sidecar.ROUTER_VERSION}, config/crd)"
GATEWAYS = {
    "istio": "Istio 1.29.2 or later, istiod with ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true",
    "nginx": "NGINX Gateway Fabric 2.6.7 or later",
}
_WAIT_S = 600
_CONFIGURATION = "hyperpd.yaml"
_DIGEST = "hyperpd.io/configuration-digest"


def documents(fleet: Fleet, options: Options) -> Iterator[Document]:
    """The helmfile, then the values of its release."""
    body = {
        "releases": [
            {
                "name": RELEASE,
                "namespace": fleet.namespace("engines"),
                "createNamespace": False,
                "chart": f"oci://{options.llm_d_registry}/charts/{CHARTS[options.route]}",
                "version": sidecar.ROUTER_VERSION,
                "wait": True,
                "timeout": _WAIT_S,
                "values": ["values.yaml"],
            }
        ]
    }
    before = "; ".join((*BEFORE, *([OBJECTIVES] if options.priorities else []), GATEWAYS[options.route]))
    comment = (
        f"After the objects for kubectl: helmfile --file {FILE} apply. The cluster needs before: {before}.\n"
        "Back to hyperpd's gateway, without a restart and in this order (examples/llm-d): clients, the route, this"
        " release."
    )
    notes = {
        "releases.0.namespace": "An InferencePool's endpoint picker is where its pods are.",
        "releases.0.version": "Chart and images of one tag; the charts' own default is the branch main.",
    }
    yield Document(FILE, comment, body, notes)
    yield Document(VALUES_FILE, f"Values of the chart {CHARTS[options.route]}.", values(fleet, options), _notes(fleet))


def values(fleet: Fleet, options: Options) -> dict[str, Any]:
    """What the chart is given."""
    recipe = fleet.recipe
    configuration = yaml.text(picker.configuration(recipe, options))
    priorities = dict(each.split("=") for each in options.priorities.split(",")) if options.priorities else {}
    router: dict[str, Any] = {
        "modelServers": {
            "type": "vllm",
            "protocol": "http",
            "targetPorts": [{"number": port} for port in target_ports(fleet)],
            "matchLabels": sidecar.MEMBER,
        },
        "inferencePool": {"failureMode": "FailClose"},
        "epp": {
            "replicas": 1,
            "image": {
                "registry": options.llm_d_registry,
                "repository": "llm-d-router-endpoint-picker",
                "tag": sidecar.ROUTER_VERSION,
                "pullPolicy": "IfNotPresent",
            },
            "pluginsConfigFile": _CONFIGURATION,
            "pluginsCustomConfig": {_CONFIGURATION: configuration},
            "podAnnotations": {_DIGEST: hashlib.sha256(configuration.encode()).hexdigest()},
            "resources": {
                "requests": {"cpu": str(options.epp_cpus), "memory": f"{options.epp_cpus}Gi"},
                "limits": {"memory": f"{2 * options.epp_cpus}Gi"},
            },
            "tolerations": machines.tolerations(),
        },
        "monitoring": {"prometheus": {"enabled": False, "auth": {"enabled": False}}},
    }
    if priorities:
        router["inferenceObjectives"] = [{"name": name, "priority": int(p)} for name, p in priorities.items()]
    if events.published(recipe):
        router["tokenizer"] = _tokenizer(fleet)
    if options.route == "nginx":
        image = {"image": options.envoy_image} if options.envoy_image else {}
        return {"router": router | {"proxy": {"failOpen": False, **image}}}
    return {"router": router, "provider": {"name": "istio"}, "httpRoute": {"create": False}}


def target_ports(fleet: Fleet) -> tuple[int, ...]:
    """The InferencePool's; an annotation of each pod says which of them it has."""
    return (PORTS.worker_api,) if fleet.recipe.aggregated else sidecar.PAIR_PORTS


def _tokenizer(fleet: Fleet) -> dict[str, Any]:
    """vLLM without a model's weights beside the endpoint picker, of the workers' own image: equal tokens, no less."""
    registry, _, rest = fleet.image.partition("/")
    repository, _, tag = rest.rpartition(":")  # REPOSITORY@sha256 : DIGEST, too
    secret = fleet.options.hf_token_secret
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}}
    return {
        "enabled": True,
        "modelName": fleet.recipe.model.huggingface,
        "image": {"registry": registry, "repository": repository, "tag": tag},
        "env": [token] if secret else [],
    }


def _notes(fleet: Fleet) -> dict[str, str]:
    notes = {
        "router.modelServers.targetPorts": "A worker's own, and decode's sidecar's; each pod's annotation"
        " llm-d.ai/active-ports says which it has.",
        "router.inferencePool": "Open, a proxy would spread requests over pods of both roles without asking.",
        "router.epp.replicas": "One: what it knows of prefixes and running requests is not shared.",
        "router.epp.podAnnotations": "Another configuration starts it anew; nothing else of chart or picker does.",
        "router.monitoring": "A PodMonitor of this rendering reads its metrics, within a network policy; a token would"
        " take a ClusterRole.",
        "router.tokenizer": "Tokens for the index of events. Unverified.",
    }
    if fleet.recipe.aggregated:
        del notes["router.modelServers.targetPorts"]
    if not events.published(fleet.recipe):
        del notes["router.tokenizer"]
    return notes
