"""Why a pod does not serve: its node, its place, its containers."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.stuck import containers, scheduling
from hyperpd.deploy.stuck.cause import Cause, LastLines, Object, Seen, Sign, Stage, condition, name, read, ready, told

# Reasons of a pod that failed as a whole.
SIGNS = (
    Sign(
        r"Evicted: (?P<said>.*)",
        "the node put it out: {said}",
        "what it used too much of is in the message: the option cache_folder keeps downloads off the root volume;"
        " requests cover the rest",
    ),
    Sign(
        r"UnexpectedAdmissionError: .*Allocate failed due to (?P<said>.*?)(, which is unexpected)?$",
        "the node has no healthy device for it: {said}",
        "kubectl describe node NODE (Allocatable); a GPU or EFA device that fell out: hyperpd cluster repair CLUSTER"
        " NODE --replace",
    ),
    Sign(
        r"(?P<said>OutOf\w+|TopologyAffinityError|NodeAffinity|NodePorts|UnexpectedAdmissionError)",
        "its node refused it when it came ({said})",
        "its controller makes another; where that repeats, kubectl describe node NODE",
    ),
    Sign(
        r"NodeLost|NodeShutdown|Terminated|Shutdown",
        "its node went away",
        "hyperpd cluster nodes CLUSTER; hyperpd cluster repair CLUSTER --unhealthy --replace",
    ),
    Sign(r"Preempt", "a pod of higher priority took its place", "a priority_class of its own, or more nodes"),
    Sign(
        r"DeadlineExceeded",
        "its activeDeadlineSeconds are over",
        "take the deadline away: who set it is not hyperpd",
    ),
)


def of_pod(pod: Object, seen: Seen, last_lines: LastLines) -> Iterator[Cause]:
    """Every cause of a pod that is not ready."""
    phase = pod.get("status", {}).get("phase")
    if phase == "Succeeded" or ready(pod):
        return
    if lost := _lost(pod, seen):
        yield lost
        return
    if pod["metadata"].get("deletionTimestamp"):  # it ends, and another comes
        return
    if phase == "Failed" and pod["status"].get("reason"):
        words = told(pod["status"])
        sign = read(SIGNS, words)
        look = f"kubectl describe pod {pod['metadata']['name']} -n {pod['metadata'].get('namespace', '')}"
        what, fix = (sign.what, sign.fix) if sign else ("it failed", f"{look}; its controller makes another")
        yield Cause(Stage.ENDED, (name(pod, "Pod"),), what, "" if sign else words, fix)
        return
    yield from scheduling.of_pod(pod, seen)
    yield from containers.of_pod(pod, seen, last_lines)


def _lost(pod: Object, seen: Seen) -> Cause | None:
    """A pod on a node that does not answer any more."""
    at = pod.get("spec", {}).get("nodeName")
    node = next((one for one in seen.nodes if one["metadata"]["name"] == at), None)
    if not node or not condition(node, "Ready") or ready(node):
        return None
    return Cause(
        Stage.UNPLACED,
        (name(pod, "Pod"),),
        f"its node {at} is not ready",
        told(condition(node, "Ready")),
        f"kubectl describe node {at}; hyperpd cluster nodes CLUSTER; hyperpd cluster repair CLUSTER"
        f" {str(at).removeprefix('hyperpod-')} --reboot, or --replace",
    )
