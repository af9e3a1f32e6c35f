"""What llm-d needs of a worker's pod: labels, the port to use, and its routing sidecar beside decode.

hyperpd's gateway needs none of it and is not disturbed: it reaches each worker at its own port. So a fleet that was
started with it changes hands by its routes alone.

Its --enable-ssrf-protection, which refuses prefills at other addresses than those of the InferencePool's pods, is not
used. v0.10.0 reads pool and pods from the API server, so every decode pod would need a token, rights to list pods, and
a way there, beside an engine that has none of it. It listens only once it has the pool's list: without
InferencePool's definition a decode worker would never be ready, behind hyperpd's gateway either. And it compares
addresses without ports. So the header is kept out where requests come in (llm_d.routes, examples/llm-d).
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.kubernetes import access
from hyperpd.deploy.kubernetes.fleet import PORTS, Component, Fleet, Object

ROUTER_VERSION = "v0.10.0"  # llm-d-router's tag: its images, its charts
MEMBER = {"llm-d.ai/inference-serving": "true"}  # what the InferencePool selects
NAME = "routing-sidecar"
# What the endpoint picker may send to, in this order: its KV-event ports count up with it.
PAIR_PORTS = (PORTS.routing_sidecar, PORTS.worker_api)
_RETRIES = 1


def labels(fleet: Fleet, component: Component, leads: bool) -> dict[str, str]:
    """Which pods are llm-d's, and their role. Only a worker's first pod has an API."""
    if not (fleet.options.llm_d and leads):
        return {}
    role = "prefill-decode" if component == "aggregated" else component
    return {**MEMBER, "llm-d.ai/role": role, "llm-d.ai/engine-type": "vllm"}


def annotation(fleet: Fleet, component: Component, leads: bool) -> dict[str, str]:
    """Which of the pool's ports this pod has: decode is reached through its sidecar, prefill itself."""
    if not (fleet.options.llm_d and leads) or component == "aggregated":
        return {}
    return {"llm-d.ai/active-ports": str(PORTS.routing_sidecar if component == "decode" else PORTS.worker_api)}


def environment(fleet: Fleet, component: Component, leads: bool) -> Iterator[Object]:
    if beside(fleet, component, leads):  # it knows its worker as localhost, and cannot be told otherwise
        yield {"name": "HYPERPD_API_ADDRESS", "value": "0.0.0.0"}


def beside(fleet: Fleet, component: Component, leads: bool) -> bool:
    """Whether a pod has the sidecar."""
    return fleet.options.llm_d and component == "decode" and leads


def container(fleet: Fleet) -> tuple[Object, str]:
    """The sidecar, an init container that stays (Kubernetes 1.29), with a note on it."""
    body = {
        "name": NAME,
        "image": f"{fleet.options.llm_d_registry}/llm-d-router-disagg-sidecar:{ROUTER_VERSION}",
        "restartPolicy": "Always",
        "args": [
            f"--port={PORTS.routing_sidecar}",
            f"--model-server-port={PORTS.worker_api}",
            "--kv-connector=nixlv2",
            "--secure-proxy=false",
            f"--prefill-max-retries={_RETRIES}",
        ],
        "ports": [{"name": "sidecar", "containerPort": PORTS.routing_sidecar}],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": "sidecar"},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        # It holds each body while it runs, and a prefill's answer.
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": access.USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return body, (
        "llm-d's way to this worker: it has a request's prefill done where the header x-prefiller-host-port says, then"
        " hands it to the worker with the ticket. hyperpd's gateway goes past it. It starts before the worker and ends"
        " after it; Kubernetes 1.29 or later."
    )
