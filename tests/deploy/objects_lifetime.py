"""How long pods are let start and end: problems(pods, recipe)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hyperpd.recipe import Recipe
from tests.deploy.objects import Object, Pod

NOTICE_S = 2  # a worker says that it drains, and waits until gateways know
MARGIN_S = 5  # what the runtime adds to drain_s before it kills


def problems(pods: Iterable[Pod], recipe: Recipe) -> Iterator[str]:
    """Pods that the kubelet would kill while they load a model or finish requests."""
    for pod in pods:
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


def ending_s(pod: Pod, recipe: Recipe) -> int:
    """How long an orderly end takes at most; prefill stays until decode has read, a lease at most."""
    lease_s = recipe.kv_transfer.lease_s if pod.role == "prefill" else 0
    hook = pod.containers[0].get("lifecycle", {}).get("preStop", {})
    words = hook.get("exec", {}).get("command", ["sleep", "0"])
    slept_s = hook.get("sleep", {}).get("seconds", 0) + int(words[-1])
    return int(NOTICE_S + recipe.drain_s + MARGIN_S + lease_s + slept_s)
