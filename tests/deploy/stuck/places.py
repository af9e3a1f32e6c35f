"""Pods that no node takes. Messages as the scheduler writes them."""

from __future__ import annotations

from collections.abc import Sequence

from hyperpd.deploy.stuck import Seen, Stage
from tests.deploy.stuck.case import Case
from tests.deploy.stuck.parts import (
    ENGINES,
    Object,
    node,
    pod,
    unplaced,
)

_TAIL = " preemption: 0/6 nodes are available: 6 Preemption is not helpful for scheduling."
_OTHERS = [node(f"cpu-{number}", "ml.m5.4xlarge", gpu="0", efa="0", hugepages="0") for number in range(4)]
_P5EN = [node("p5en-0"), node("p5en-1")]


def _unplaced(name: str, what: str, fix: str, said: str, nodes: Sequence[Object] = (*_P5EN, *_OTHERS)) -> Case:
    message = said if "nodes available" in said or "claim" in said else f"0/6 nodes are available: {said}.{_TAIL}"
    return Case(name, Stage.UNPLACED, what, fix, Seen(pods=[unplaced(message)], nodes=nodes))


_SELECTOR = "4 node(s) didn't match Pod's node affinity/selector"
PLACES = (
    _unplaced(
        "GPUs taken",
        "of 6 nodes 2 are short of nvidia.com/gpu, 4 are of another kind",
        "nvidia.com/gpu: all taken; add",
        f"2 Insufficient nvidia.com/gpu, {_SELECTOR}",
    ),
    _unplaced(
        "no NVIDIA plugin",
        "2 are short of nvidia.com/gpu",
        "get daemonsets -A | grep nvidia",
        f"2 Insufficient nvidia.com/gpu, {_SELECTOR}",
        [node("a", gpu="0"), node("b", gpu="0"), *_OTHERS],
    ),
    _unplaced(
        "too few GPUs in any",
        "2 are short of nvidia.com/gpu",
        "no node has more than 1 of nvidia.com/gpu",
        f"2 Insufficient nvidia.com/gpu, {_SELECTOR}",
        [node("a", gpu="1"), node("b", gpu="1"), *_OTHERS],
    ),
    _unplaced(
        "no EFA plugin",
        "2 are short of vpc.amazonaws.com/efa",
        "get daemonsets -A | grep efa",
        f"2 Insufficient vpc.amazonaws.com/efa, {_SELECTOR}",
        [node("a", efa="0"), node("b", efa="0")],
    ),
    _unplaced(
        "EFA and GPUs taken",
        "2 are short of nvidia.com/gpu, 2 are short of vpc.amazonaws.com/efa",
        "nvidia.com/gpu and vpc.amazonaws.com/efa: all taken",
        f"2 Insufficient nvidia.com/gpu, 2 Insufficient vpc.amazonaws.com/efa, {_SELECTOR}",
    ),
    _unplaced(
        "no huge pages",
        "short of hugepages-2Mi",
        "30-efa.sh",
        f"2 Insufficient hugepages-2Mi, {_SELECTOR}",
        [node("a", hugepages="0"), *_OTHERS],
    ),
    _unplaced(
        "memory",
        "short of memory",
        "GiB of memory, and a worker asks for",
        f"2 Insufficient memory, {_SELECTOR}",
        [node("a", memory="60Gi"), *_OTHERS],
    ),
    _unplaced("full of pods", "2 are full of pods", "add nodes", f"2 Too many pods, {_SELECTOR}"),
    _unplaced(
        "instance type",
        "of another kind",
        "no node has node.kubernetes.io/instance-type=ml.p5en.48xlarge; there are ml.m5.4xlarge",
        "6 node(s) didn't match Pod's node affinity/selector",
        _OTHERS,
    ),
    _unplaced(
        "the prefix ml.",
        "of another kind",
        "--set platform=eks",
        "6 node(s) didn't match Pod's node affinity/selector",
        [node("a", "p5en.48xlarge")],
    ),
    _unplaced(
        "selector, nodes not known",
        "of another kind",
        "get nodes --show-labels",
        "6 node(s) didn't match Pod's node affinity/selector",
        [],
    ),
    _unplaced(
        "a taint of the group's",
        "2 are kept for others by the taint team: research",
        "hyperpd cluster update",
        f"2 node(s) had untolerated taint {{team: research}}, {_SELECTOR}",
    ),
    _unplaced(
        "a taint, not named",
        "2 are kept for others by a taint",
        "TAINTS",
        f"2 node(s) had untolerated taint(s), {_SELECTOR}",
    ),
    _unplaced(
        "health of nodes",
        "2 are about to be rebooted or replaced by HyperPod (UnschedulablePendingReplacement)",
        "wait for HyperPod",
        "2 node(s) had untolerated taint {sagemaker.amazonaws.com/node-health-status:"
        f" UnschedulablePendingReplacement}}, {_SELECTOR}",
    ),
    _unplaced(
        "nodes not ready",
        "2 are not ready themselves (not-ready)",
        "hyperpd cluster nodes",
        f"2 node(s) had untolerated taint {{node.kubernetes.io/not-ready: }}, {_SELECTOR}",
    ),
    _unplaced(
        "disk pressure",
        "2 are short of disk",
        "cache_folder",
        f"2 node(s) had untolerated taint {{node.kubernetes.io/disk-pressure: }}, {_SELECTOR}",
    ),
    _unplaced("cordoned", "2 are cordoned", "kubectl uncordon", f"2 node(s) were unschedulable, {_SELECTOR}"),
    _unplaced(
        "zone of a volume",
        "2 are in another zone than its volume",
        "one zone",
        f"2 node(s) had volume node affinity conflict, {_SELECTOR}",
    ),
    _unplaced(
        "volumes of a node", "2 are full of volumes", "add nodes", f"2 node(s) exceed max volume count, {_SELECTOR}"
    ),
    _unplaced(
        "same zone",
        "2 are in another zone than the first worker",
        "placement.same_zone: false",
        f"2 node(s) didn't match pod affinity rules, {_SELECTOR}",
    ),
    _unplaced(
        "the other role's machines",
        "2 are taken by the other role",
        "hyperpd cluster scale",
        f"2 node(s) didn't satisfy existing pods anti-affinity rules, {_SELECTOR}",
    ),
    _unplaced(
        "spread",
        "2 are not where the spread allows",
        "zones that have fewer",
        f"2 node(s) didn't match pod topology spread constraints, {_SELECTOR}",
    ),
    _unplaced(
        "a port of the node",
        "2 are taken on a port",
        "one such pod",
        f"2 node(s) didn't have free ports for the requested pod ports, {_SELECTOR}",
    ),
    _unplaced(
        "no nodes at all", "the cluster has no node", "hyperpd cluster scale", "no nodes available to schedule pods", []
    ),
    _unplaced(
        "no claim",
        "there is no PersistentVolumeClaim fsx-models",
        "model.claim",
        '0/6 nodes are available: persistentvolumeclaim "fsx-models" not found.',
    ),
    _unplaced(
        "a claim without volume",
        "has no volume",
        f"kubectl describe pvc -n {ENGINES}",
        "0/6 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
    ),
    _unplaced(
        "a resource of others",
        "2 are short of example.com/licence",
        "none of them offers example.com/licence",
        f"2 Insufficient example.com/licence, {_SELECTOR}",
    ),
    _unplaced(
        "two reasons of one meaning",
        "of 6 nodes 2 are taken by the other role",
        "hyperpd cluster scale",
        "1 node(s) didn't match pod anti-affinity rules, 1 node(s) didn't satisfy existing pods anti-affinity rules,"
        f" {_SELECTOR}",
    ),
    _unplaced(
        "a reason nobody knows",
        "of 6 nodes 2: node(s) had a bad day",
        "add nodes",
        f"2 node(s) had a bad day, {_SELECTOR}",
    ),
    Case(
        "a message nobody knows",
        Stage.UNPLACED,
        "no node takes it",
        "add nodes",
        Seen(pods=[unplaced("running PreBind plugin VolumeBinding: binding volumes: timed out")]),
        why="binding volumes: timed out",
    ),
    Case(
        "Kueue's gate",
        Stage.UNPLACED,
        "Kueue has not admitted it",
        "kubectl get workloads",
        Seen(pods=[pod() | {"spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}}]),
    ),
    Case(
        "somebody's gate",
        Stage.UNPLACED,
        "scheduling gates: example.com/wait",
        "controller of that name",
        Seen(pods=[pod() | {"spec": {"schedulingGates": [{"name": "example.com/wait"}]}}]),
    ),
)
