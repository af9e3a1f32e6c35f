"""Parts of a deployment that does not get on, as an API server lists them: pods of a rendered recipe, events, nodes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

from hyperpd import recipe
from hyperpd.deploy import render

Object = dict[str, Any]

ENGINES, GATEWAY = "hyperpd-engines", "hyperpd"
IMAGE = "123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
NODE = "hyperpod-i-0a1b2c3d4e5f67890"
AT = "2026-11-29T10:{:02}:00Z"
_SETTINGS = (f"image={IMAGE}", "hf_token_secret=hf-token", "cache_folder=/opt/hyperpd/data/models")


@cache
def _rendered(name: str) -> tuple[Object, ...]:
    file = recipe.load(name)
    scaled = any(spec.autoscaling for spec in file.recipe.roles().values())
    settings = [*_SETTINGS, *(["prometheus=http://prometheus.monitoring:9090"] if scaled else [])]
    documents = render(file, "kubernetes", settings).documents
    return tuple(dict(one.body) for one in documents if not isinstance(one.body, str))


def applied(kind: str, name: str, recipe_name: str = "llama-3.3-70b-p5en-4p2d", **status: Any) -> Object:
    """An object as it was rendered, with a status."""
    found = next(one for one in _rendered(recipe_name) if (one["kind"], one["metadata"]["name"]) == (kind, name))
    body = copy.deepcopy(found)
    body["metadata"] |= {"uid": f"uid-{name}", "generation": 1}
    return body | {"status": {"observedGeneration": 1, **status}}


def pod(role: str = "prefill", number: int = 1, *, node: str = "", phase: str = "Pending", **status: Any) -> Object:
    """A pod of a role's Deployment. Without a node, no scheduler has placed it."""
    made = applied("Deployment", role)
    template, at = made["spec"]["template"], made["metadata"]["namespace"]
    body = {
        "metadata": {
            "name": f"{role}-6f7c9d8b5-x{number:04}",
            "namespace": at,
            "uid": f"uid-{role}-{number}",
            "labels": template["metadata"]["labels"],
        },
        "spec": template["spec"] | ({"nodeName": node} if node else {}),
        "status": {"phase": phase, **status},
    }
    return copy.deepcopy(body)


def unplaced(message: str, number: int = 1, role: str = "prefill", reason: str = "Unschedulable") -> Object:
    """A pod, and what the scheduler says of it."""
    said = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return pod(role, number, conditions=[said])


def container(state: Mapping[str, Any], name: str = "prefill", **more: Any) -> Object:
    """One entry of containerStatuses."""
    return {"name": name, "image": IMAGE, "ready": False, "started": False, "restartCount": 0, "state": state, **more}


def waiting(reason: str, message: str = "", **more: Any) -> Object:
    said = {"reason": reason, "message": message} if message else {"reason": reason}
    return container({"waiting": said}, **more)


def starting(*states: Object, role: str = "prefill", number: int = 1, **status: Any) -> Object:
    """A pod on its node, with the states of its containers."""
    return pod(role, number, node=NODE, containerStatuses=list(states), **status)


def crashed(code: int, reason: str = "Error", restarts: int = 4, **more: Any) -> Object:
    """A container between two tries."""
    back_off = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 2m40s restarting failed container"}}
    last = {"terminated": {"exitCode": code, "reason": reason, **more}}
    return container(back_off, lastState=last, restartCount=restarts)


def running(role: str = "prefill", *, started: bool = False, **more: Any) -> Object:
    now = {"running": {"startedAt": AT.format(0)}}
    return pod(role, node=NODE, phase="Running", containerStatuses=[container(now, role, started=started, **more)])


def event(body: Object, reason: str, message: str, minute: int = 5, kind: str = "Pod") -> Object:
    meta = body["metadata"]
    about = {"kind": body.get("kind", kind), "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
    return {
        "metadata": {"name": f"{meta['name']}.{reason}.{minute}", "namespace": meta["namespace"]},
        "involvedObject": about,
        "reason": reason,
        "message": message,
        "type": "Warning",
        "lastTimestamp": AT.format(minute),
    }


def node(name: str = NODE, instance_type: str = "ml.p5en.48xlarge", **allocatable: str) -> Object:
    """A node; its allocatable as p5en's, unless it is given: gpu, efa, hugepages."""
    names = {"gpu": "nvidia.com/gpu", "efa": "vpc.amazonaws.com/efa", "hugepages": "hugepages-2Mi"}
    offers = {"gpu": "8", "efa": "16", "hugepages": "10256Mi", "cpu": "191", "memory": "1800Gi"}
    offers |= {"ephemeral-storage": "83Gi"} | allocatable
    return {
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "node.kubernetes.io/instance-type": instance_type,
                "topology.kubernetes.io/zone": "use2-az1",
                "sagemaker.amazonaws.com/node-health-status": "Schedulable",
            },
        },
        "status": {
            "allocatable": {names.get(key, key): value for key, value in offers.items() if value != "0"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


def endpoint(**status: Any) -> Object:
    """An InferenceEndpointConfig, as the operator left it."""
    return {
        "apiVersion": "inference.sagemaker.aws.amazon.com/v1",
        "kind": "InferenceEndpointConfig",
        "metadata": {"name": "llama", "namespace": "hyperpd-endpoint", "uid": "uid-llama", "generation": 1},
        "spec": {"modelName": "llama", "endpointName": "llama"},
        "status": {"observedGeneration": 1, **status},
    }


def condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}
