"""How long pods are let start and end: problems(objects, recipe)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperpd.recipe import Recipe
from tests.deploy.objects import Object, Pod, name, of, pods

NOTICE_S = 2  # a worker says that it drains, and waits until gateways know
KILL_S = 5  # what the runtime adds to drain_s before it kills
IMAGE_S = 1200  # an image of some 10 GB at 10 MB/s and more
HANDOFF_S = 120  # how long a gateway may take for the first one


def problems(objects: Sequence[Object], recipe: Recipe) -> Iterator[str]:
    """Pods that the kubelet would kill while they load a model or finish requests, and rollouts given up too early."""
    every = pods(objects)
    for body in of(objects, "Deployment"):
        mine = [pod for pod in every if pod.owner == name(body) and pod.role]
        deadline_s = body["spec"].get("progressDeadlineSeconds", 600)
        if mine and deadline_s <= (needed_s := progress_s(mine[0], recipe)):
            yield f"{name(body)}: given up after {deadline_s} s, a pod may take {needed_s} s"
    for pod in every:
        if not pod.role:
            continue
        container = pod.containers[0]
        if pod.serves and startup_s(container) <= recipe.start_timeout_s:
            yield f"{pod.name}: killed after {startup_s(container)} s, the recipe gives {recipe.start_timeout_s}"
        grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace_s <= (needed_s := ending_s(pod, recipe)):
            yield f"{pod.name}: killed {grace_s} s after SIGTERM, an orderly end takes up to {needed_s} s"


def startup_s(container: Object) -> int:
    """How long the kubelet waits for a start; 0 without a startup probe where a liveness probe may kill."""
    probe = container.get("startupProbe")
    if probe is None:
        return 0
    tries = probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10)
    return int(probe.get("initialDelaySeconds", 0) + tries)


def progress_s(pod: Pod, recipe: Recipe) -> int:
    """How long it may be until a pod is ready where another was: a gateway needs workers."""
    if pod.role == "gateway":
        return IMAGE_S + recipe.start_timeout_s + HANDOFF_S
    return ending_s(pod, recipe) + IMAGE_S + recipe.start_timeout_s + (HANDOFF_S if pod.role == "node" else 0)


def ending_s(pod: Pod, recipe: Recipe) -> int:
    """How long an orderly end takes at most.

    A front waits drain_s for what runs, and again for connections; prefill stays until decode has read, a lease at
    most; engines end decode first. Another machine of a worker stays until the first has ended.
    """
    drain_s, lease_s = recipe.drain_s, recipe.kv_transfer.lease_s
    engine_s = drain_s + KILL_S
    parts = {
        "prefill": NOTICE_S + lease_s + engine_s,
        "decode": NOTICE_S + engine_s,
        "aggregated": 2 * drain_s + NOTICE_S + engine_s,
        "node": 2 * drain_s + 2 * engine_s,
        "gateway": 2 * drain_s,
    }
    hook = pod.containers[0].get("lifecycle", {}).get("preStop", {})
    words = hook.get("exec", {}).get("command", ["sleep", "0"])
    slept_s = hook.get("sleep", {}).get("seconds", 0) + int(words[-1])
    return int(slept_s) + (parts[pod.role] if pod.leads else NOTICE_S + lease_s + 2 * engine_s)
