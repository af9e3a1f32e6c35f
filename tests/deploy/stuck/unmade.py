"""Pods that controllers may not make. Messages as the API server and webhooks write them."""

from __future__ import annotations

from hyperpd.deploy.stuck import Seen, Stage
from tests.deploy.stuck.case import Case
from tests.deploy.stuck.parts import (
    ENGINES,
    applied,
    condition,
    event,
)

_SET = applied("Deployment", "prefill")
_REPLICAS = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"replicas": 4}} | {
    "metadata": {"name": "prefill-6f7c9d8b5", "namespace": ENGINES, "uid": "uid-rs"}
}


def _unmade(name: str, what: str, fix: str, said: str) -> Case:
    message = f'Error creating: pods "prefill-6f7c9d8b5-k2x9q" is forbidden: {said}'
    return Case(name, Stage.UNMADE, what, fix, Seen([_REPLICAS], events=[event(_REPLICAS, "FailedCreate", message)]))


UNMADE = (
    _unmade(
        "quota",
        "ResourceQuota gpus is used up: asks for requests.nvidia.com/gpu=1; used requests.nvidia.com/gpu=8 of"
        " requests.nvidia.com/gpu=8",
        f"describe resourcequota gpus -n {ENGINES}",
        "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=8, limited:"
        " requests.nvidia.com/gpu=8",
    ),
    _unmade(
        "quota wants limits",
        "wants every pod to say limits.cpu",
        "defaults for limits.cpu in hyperpd-engines",
        "failed quota: cpus: must specify limits.cpu for: prefill",
    ),
    _unmade(
        "LimitRange",
        "maximum memory usage per Container is 64Gi",
        "get limitrange",
        "maximum memory usage per Container is 64Gi, but limit is 170Gi",
    ),
    _unmade(
        "Pod Security",
        "Pod Security level restricted",
        "enforce=privileged",
        'violates PodSecurity "restricted:latest": unrestricted capabilities (container "prefill" must not include'
        ' "IPC_LOCK" in securityContext.capabilities.add)',
    ),
    Case(
        "a webhook that refuses pods",
        Stage.UNMADE,
        "webhook validation.gatekeeper.sh refuses it: [images]",
        "exception",
        Seen(
            [_REPLICAS],
            events=[
                event(
                    _REPLICAS,
                    "FailedCreate",
                    "Error creating: admission webhook"
                    ' "validation.gatekeeper.sh" denied the request: [images] an image of another registry'
                    " is used",
                )
            ],
        ),
    ),
    Case(
        "a webhook that is gone",
        Stage.UNMADE,
        "webhook mpod.kb.io does not answer",
        "webhookconfigurations",
        Seen(
            [_REPLICAS],
            events=[
                event(
                    _REPLICAS,
                    "FailedCreate",
                    "Error creating: Internal error occurred: failed"
                    ' calling webhook "mpod.kb.io": failed to call webhook: Post "https://kueue-webhook-service.kueue-system'
                    '.svc:443/mutate--v1-pod?timeout=10s": no endpoints available for service "kueue-webhook-service"',
                )
            ],
        ),
    ),
    _unmade(
        "an admission policy",
        "admission policy images refuses it",
        "exception",
        "ValidatingAdmissionPolicy 'images' with binding 'images' denied request: only our registry",
    ),
    _unmade(
        "no service account",
        "no ServiceAccount engines",
        "deploy again",
        'error looking up service account hyperpd-engines/engines: serviceaccount "engines" not found',
    ),
    _unmade(
        "no priority class", "no PriorityClass high", "get priorityclass", "no PriorityClass with name high was found"
    ),
    _unmade(
        "a namespace that ends",
        "namespace is being deleted",
        f"get namespace {ENGINES}",
        "unable to create new content in namespace hyperpd-engines because it is being terminated",
    ),
    _unmade("words nobody knows", "the API refuses it", "change what it names", "something else"),
    Case(
        "the Deployment's own word",
        Stage.UNMADE,
        "ResourceQuota gpus is used up",
        "raise the quota",
        Seen(
            [
                applied(
                    "Deployment",
                    "prefill",
                    conditions=[
                        condition(
                            "ReplicaFailure",
                            "True",
                            "FailedCreate",
                            'pods "prefill-6f7c9d8b5-k2x9q" is forbidden: exceeded quota:'
                            " gpus, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=8, limited:"
                            " requests.nvidia.com/gpu=8",
                        )
                    ],
                )
            ]
        ),
    ),
    Case(
        "paused",
        Stage.UNMADE,
        "rollout is paused",
        "rollout resume deployment prefill",
        Seen([applied("Deployment", "prefill") | {"spec": _SET["spec"] | {"paused": True}}]),
    ),
)
