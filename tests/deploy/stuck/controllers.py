"""What controllers say of their objects: groups, operator, autoscalers, Kueue, claims."""

from __future__ import annotations

from hyperpd.deploy.stuck import Seen, Stage
from tests.deploy.stuck.case import Case
from tests.deploy.stuck.parts import (
    ENGINES,
    applied,
    condition,
    endpoint,
    event,
    running,
)

_GROUPS = applied(
    "LeaderWorkerSet",
    "prefill-groups",
    "deepseek-r1-p5en-1p1d",
    replicas=1,
    readyReplicas=0,
    conditions=[condition("Available", "False", "AllGroupsReady", "0 of 1 groups are ready")],
)
_LEADER = running(started=True)
_LEADER["metadata"] |= {
    "labels": {"leaderworkerset.sigs.k8s.io/name": "prefill-groups", "leaderworkerset.sigs.k8s.io/group-index": "0"}
}
_LEADER["status"]["conditions"] = [condition("Ready", "True", "", "")]
HPA = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "keda-hpa-prefill", "namespace": ENGINES, "uid": "uid-hpa"},
}
KEDA = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "prefill", "namespace": ENGINES, "uid": "uid-so"},
}
KUEUE = {
    "apiVersion": "kueue.x-k8s.io/v1beta1",
    "kind": "Workload",
    "spec": {"queueName": "team"},
    "metadata": {"name": "pod-group", "namespace": ENGINES, "uid": "uid-wl"},
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "status": {"phase": "Pending"},
    "metadata": {"name": "fsx-models", "namespace": ENGINES, "uid": "uid-pvc"},
}


def _queued(name: str, fix: str, said: str, reason: str = "Pending") -> Case:
    status = {"conditions": [condition("QuotaReserved", "False", reason, said)]}
    return Case(
        name, Stage.UNMADE, "Kueue has not admitted it (queue team)", fix, Seen([KUEUE | {"status": status}]), why=said
    )


CONTROLLERS = (
    Case(
        "a group that is not whole",
        Stage.FOLLOWS,
        "0 of 1 groups are ready (group 0: 1 of 2 pods there, 1 ready)",
        "all 2 pods",
        Seen([_GROUPS], [_LEADER]),
    ),
    Case(
        "no controller of groups",
        Stage.UNMADE,
        "LeaderWorkerSet's controller has not looked",
        "lws-system",
        Seen([_GROUPS | {"status": {}}]),
    ),
    Case(
        "a rollout that stands",
        Stage.FOLLOWS,
        "rollout does not get on",
        "describe deployment prefill",
        Seen(
            [
                applied(
                    "Deployment",
                    "prefill",
                    conditions=[
                        condition(
                            "Progressing", "False", "ProgressDeadlineExceeded", "ReplicaSet has timed out progressing."
                        )
                    ],
                )
            ]
        ),
    ),
    Case(
        "the operator refused",
        Stage.UNMADE,
        "the inference operator says DeploymentFailed",
        "hyperpod-inference",
        Seen(
            [
                endpoint(
                    state="DeploymentFailed",
                    conditions=[
                        condition(
                            "DeploymentComplete", "False", "InvalidModelSource", "s3 bucket models: access denied"
                        )
                    ],
                )
            ]
        ),
        why="InvalidModelSource: s3 bucket models: access denied",
    ),
    Case(
        "no operator",
        Stage.UNMADE,
        "inference operator has not looked",
        "hyperpod-inference",
        Seen([endpoint() | {"status": {}}]),
    ),
    Case(
        "the operator is behind",
        Stage.UNMADE,
        "inference operator has not looked",
        "hyperpod-inference",
        Seen([endpoint(observedGeneration=0, state="DeploymentComplete")]),
    ),
    Case(
        "a certificate",
        Stage.UNREADY,
        "TLS certificate is expired",
        "cert-manager",
        Seen([endpoint(state="DeploymentInProgress", tlsCertificate={"certificateHealth": "Expired"})]),
    ),
    Case(
        "a name",
        Stage.UNREADY,
        "name in DNS is not made",
        "route53",
        Seen([endpoint(state="DeploymentInProgress", dnsStatus={"dnsHealth": "Error", "message": "AccessDenied"})]),
        why="AccessDenied",
    ),
    Case(
        "its SageMaker endpoint",
        Stage.UNREADY,
        "SageMaker endpoint is CreationFailed",
        "describe-endpoint --endpoint-name llama",
        Seen(
            [
                endpoint(
                    state="DeploymentInProgress",
                    endpoints={
                        "sagemaker": {
                            "state": "CreationFailed",
                            "endpointArn": "arn:aws:sagemaker:us-east-2:123456789012:endpoint/llama",
                        }
                    },
                )
            ]
        ),
    ),
    Case(
        "metrics of an autoscaler",
        Stage.FOLLOWS,
        "it cannot scale",
        "describe hpa keda-hpa-prefill",
        Seen(
            [
                HPA
                | {
                    "status": {
                        "conditions": [
                            condition("AbleToScale", "True", "SucceededGetScale", ""),
                            condition(
                                "ScalingActive",
                                "False",
                                "FailedGetExternalMetric",
                                "unable to get external metric s0-prometheus",
                            ),
                        ]
                    }
                }
            ]
        ),
    ),
    Case(
        "KEDA's triggers",
        Stage.FOLLOWS,
        "KEDA cannot scale by it",
        "option prometheus",
        Seen(
            [
                KEDA
                | {
                    "status": {
                        "conditions": [
                            condition(
                                "Ready",
                                "False",
                                "ScaledObjectCheckFailed",
                                "error requesting metrics endpoint: dial tcp: no such host",
                            )
                        ]
                    }
                }
            ]
        ),
        why="no such host",
    ),
    Case("no KEDA", Stage.UNMADE, "KEDA has not looked", "keda-operator", Seen([KEDA])),
    _queued(
        "Kueue's quota",
        "nominalQuota",
        "couldn't assign flavors to pod set main: insufficient unused quota for"
        " nvidia.com/gpu in flavor p5en, 8 more needed",
    ),
    _queued("no queue of Kueue's", "make the LocalQueue team", "LocalQueue team doesn't exist", "Inadmissible"),
    _queued("a queue that is stopped", "describe clusterqueue", "ClusterQueue gpus is inactive", "Inadmissible"),
    Case(
        "a volume that is not made",
        Stage.UNPLACED,
        "it has no volume (Pending)",
        "claimRef",
        Seen([CLAIM], events=[event(CLAIM, "ProvisioningFailed", 'storageclass.storage.k8s.io "fsx" not found')]),
        why='storageclass.storage.k8s.io "fsx" not found',
    ),
)
