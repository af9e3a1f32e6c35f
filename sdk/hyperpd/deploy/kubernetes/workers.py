"""Workers: a Deployment or LeaderWorkerSet for each role, or one pod with all of them."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.kubernetes import lifetimes, queue
from hyperpd.deploy.kubernetes.fleet import Component, Fleet, Object, Room, selector
from hyperpd.deploy.kubernetes.pods import Notes, below, template
from hyperpd.deploy.target import Document
from hyperpd.recipe import Role

FILE = "4-engines.yaml"


def documents(fleet: Fleet) -> Iterator[Document]:
    """The workloads, each with its disruption budget."""
    if fleet.local:
        yield _node(fleet)
        return
    for role, spec in fleet.recipe.roles().items():
        yield _groups(fleet, role) if spec.parallel.nodes > 1 else _deployment(fleet, role)
        yield budget(fleet, role)


def budget(fleet: Fleet, component: Component, room: Room = "engines", file: str = FILE) -> Document:
    """One pod at a time. A share would be none of one."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": fleet.meta(component, room, component),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(component)}},
    }
    return Document(file, "Machines are drained one pod of this at a time.", body)


def _deployment(fleet: Fleet, role: Role) -> Document:
    recipe, spec = fleet.recipe, fleet.recipe.role(role)
    pod, notes = template(fleet, role, (role,))
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _workload_meta(fleet, role, role),
        "spec": {
            "replicas": spec.replicas,
            "progressDeadlineSeconds": lifetimes.progress_s(recipe, role),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": selector(role)},
            "template": pod,
        },
    }
    notes = {
        **_scaled(fleet, role),
        "spec.progressDeadlineSeconds": lifetimes.progress_note(role),
        "spec.strategy": "One after the other: there are no machines for two of a worker.",
        **below("spec.template", notes),
    }
    return Document(FILE, " ".join(filter(None, (f"Each pod is a {role} worker.", queue.note(fleet)))), body, notes)


def _groups(fleet: Fleet, role: Role) -> Document:
    spec = fleet.recipe.role(role)
    leader, notes = template(fleet, role, (role,))
    follower, _ = template(fleet, role, (role,), leads=False)
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _workload_meta(fleet, fleet.workload(role), role),
        "spec": {
            "replicas": spec.replicas,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": {
                "size": spec.parallel.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": leader,
                "workerTemplate": follower,
            },
        },
    }
    notes = {
        **_scaled(fleet, role),
        "spec.startupPolicy": "Together: the first machine is ready only when the others have joined it.",
        "spec.rolloutStrategy": "One group after the other: there are no machines for two of a worker.",
        "spec.leaderWorkerTemplate.restartPolicy": "Ranks cannot join an engine again that has lost one of them.",
        "spec.leaderWorkerTemplate.workerTemplate": "The other machines: no API, so nothing to look at for liveness;"
        " a pod ends when its engine ends, and has time for that after the first machine's, a lease included.",
        **below("spec.leaderWorkerTemplate.leaderTemplate", notes),
    }
    comment = (
        f"Each group of {spec.parallel.nodes} pods is a {role} worker; its first pod has the API. Where {role} has been"
        " on one machine before, its Deployment stays, since kubectl apply does not prune:"
        f" kubectl --namespace {fleet.namespace('engines')} delete deployment {role}."
    )
    return Document(FILE, " ".join(filter(None, (comment, queue.note(fleet)))), body, notes)


def _node(fleet: Fleet) -> Document:
    pod, notes = template(fleet, "node", tuple(fleet.recipe.roles()))
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _workload_meta(fleet, "node", "node"),
        "spec": {
            "replicas": 1,
            "progressDeadlineSeconds": lifetimes.progress_s(fleet.recipe, "node"),
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector("node")},
            "template": pod,
        },
    }
    comment = (
        "All workers and the gateway in one container: with kv_transfer.fabric: local the KV cache moves by CUDA IPC,"
        " which does not leave a container. So there is one gateway, and a restart is a pause. No disruption budget:"
        " of one pod it could only forbid that its machine is ever drained or replaced."
    )
    notes = {"spec.progressDeadlineSeconds": lifetimes.progress_note("node"), **below("spec.template", notes)}
    comment = " ".join(filter(None, (comment, queue.note(fleet))))
    return Document(FILE, comment, body, notes)


def _workload_meta(fleet: Fleet, name: str, component: Component) -> Object:
    meta = fleet.meta(name, "engines", component)
    meta["labels"] |= queue.labels(fleet)
    return meta


def _scaled(fleet: Fleet, role: Role) -> Notes:
    if not fleet.recipe.role(role).autoscaling:
        return {}
    return {"spec.replicas": "To begin with; applied again, it holds until KEDA decides anew."}
