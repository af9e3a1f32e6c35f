"""Kueue: which queue admits the engines' pods, and whether both roles are admitted together."""

from __future__ import annotations

from hyperpd.deploy.kubernetes.fleet import Fleet

_KUEUE = "kueue.x-k8s.io/"


def labels(fleet: Fleet) -> dict[str, str]:
    """Of a workload, and of its pods."""
    queue, priority = fleet.options.queue, fleet.options.priority_class
    found = {_KUEUE + "queue-name": queue} if queue else {}
    return found | ({_KUEUE + "priority-class": priority} if priority else {})


def pod_labels(fleet: Fleet) -> dict[str, str]:
    return labels(fleet) | ({_KUEUE + "pod-group-name": fleet.recipe.name} if _alone(fleet) == "" else {})


def pod_annotations(fleet: Fleet) -> dict[str, str]:
    if _alone(fleet) != "":
        return {}
    total = sum(spec.replicas for spec in fleet.recipe.roles().values())
    return {_KUEUE + "pod-group-total-count": str(total), _KUEUE + "pod-group-serving": "true"}


def note(fleet: Fleet) -> str:
    """How Kueue admits the workers, as a sentence; empty without a queue."""
    if (alone := _alone(fleet)) is None:
        return ""
    if fleet.local:
        return "Kueue admits the pod. Unverified."
    if alone:
        return f"Kueue admits each worker for itself, {alone}. Unverified."
    return (
        "Kueue admits the workers of both roles together, as one pod group, or none of them: one role alone would"
        " hold machines and serve nothing. Before replicas are changed, delete both roles' Deployments: a group's"
        " size is fixed. Unverified."
    )


def loss(fleet: Fleet) -> str:
    """What Kueue cannot be told of this recipe; empty where that is nothing."""
    if not (alone := _alone(fleet)) or fleet.local or len(fleet.recipe.roles()) == 1:
        return ""
    return f"prefill and decode are admitted apart, {alone}: one may hold machines while the other waits"


def _alone(fleet: Fleet) -> str | None:
    """Why workers are admitted apart; empty where they are not, None where nothing is queued."""
    roles = fleet.recipe.roles()
    if not fleet.options.queue:
        return None
    if len(roles) == 1 or fleet.local:
        return "since it serves without others"
    if any(spec.parallel.nodes > 1 for spec in roles.values()):
        return "since a pod group cannot hold a LeaderWorkerSet's groups"
    if any(spec.autoscaling for spec in roles.values()):
        return "since a pod group's size is fixed and this one scales"
    return ""
