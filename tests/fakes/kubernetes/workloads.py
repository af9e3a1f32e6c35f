"""One round of the controllers of Deployments, LeaderWorkerSets, Jobs and disruption budgets."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from tests.deploy import objects
from tests.fakes.kubernetes import subresources
from tests.fakes.kubernetes.pods import ready
from tests.fakes.kubernetes.refusal import Object
from tests.fakes.kubernetes.state import place_of

if TYPE_CHECKING:
    from tests.fakes.kubernetes.controllers import Controllers

_HASH = "pod-template-hash"
_REVISION = f"{objects.LWS}/template-revision-hash"


def deployment(cluster: Controllers, body: Object) -> None:
    """Pods of the present template up, older ones down, within what the strategy allows; then the status."""
    spec, name = body["spec"], body["metadata"]["name"]
    wanted, digest = spec.get("replicas", 1), _digest(spec["template"])
    pods = cluster.owned(body)
    new = [pod for pod in pods if pod["metadata"]["labels"].get(_HASH) == digest]
    old = [pod for pod in pods if pod not in new]
    refused = ""
    if not body["metadata"].get("deletionTimestamp"):
        surge, unavailable = _allowance(spec, wanted)
        room = wanted + surge - len(pods) if spec.get("strategy", {}).get("type") != "Recreate" or not old else 0
        for _ in range(max(0, min(wanted - len(new), room))):
            made = _pod(spec["template"], f"{name}-{digest}-{cluster.made:05x}", {_HASH: digest})
            refused = refused or cluster.make(body, made)
        spare = [pod for pod in pods if not ready(pod)] + [pod for pod in pods if ready(pod)]
        doomed = [pod for pod in spare if pod in old] + [pod for pod in spare if pod in new][
            : max(0, len(new) - wanted)
        ]
        droppable = sum(map(ready, pods)) - (wanted - unavailable)
        for pod in doomed:
            if not ready(pod) or droppable > 0:
                droppable -= ready(pod)
                cluster.store.delete(place_of(pod))
    if refused:
        replica_set = {**body, "kind": "ReplicaSet", "metadata": {**body["metadata"], "name": f"{name}-{digest}"}}
        cluster.tell(replica_set, "Warning", "FailedCreate", f"Error creating: {refused}", "replicaset-controller")
    cluster.write_status(body, _deployment_status(cluster, body, digest, refused))


def groups(cluster: Controllers, body: Object) -> None:
    """Groups of pods up to the replicas; a group of an older template is recreated when those after it are
    ready, and by default one that has lost a pod."""
    spec, name = body["spec"], body["metadata"]["name"]
    digest, wanted = _digest(spec["leaderWorkerTemplate"]), spec.get("replicas", 1)
    lost = {_group(pod) for pod in cluster.owned(body, deleted=True)}
    if spec["leaderWorkerTemplate"].get("restartPolicy", "RecreateGroupOnPodRestart") == "RecreateGroupOnPodRestart":
        _drop(cluster, [pod for pod in cluster.owned(body) if _group(pod) in lost])
    there = {pod["metadata"]["name"]: pod for pod in cluster.owned(body)}
    refused, by_group = "", dict[str, list[Object]]()
    for pod in there.values():
        by_group.setdefault(_group(pod), []).append(pod)
    if not body["metadata"].get("deletionTimestamp"):
        for index in sorted(by_group, key=int):
            if int(index) >= wanted:
                _drop(cluster, by_group[index])
        for index in reversed(range(wanted)):
            group = by_group.get(str(index), [])
            stale = [pod for pod in group if pod["metadata"]["labels"][_REVISION] != digest]
            _drop(cluster, group if stale else [])
            if stale or not _whole(group, spec):
                break  # the next only when this one is ready again
        for pod in objects.pods([body]):
            at = place_of(
                {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name, "namespace": pod.namespace}}
            )
            if pod.name not in there and not cluster.store.has(at):
                made = {"name": pod.name, "labels": {**pod.labels, _REVISION: digest}}
                made_body = {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": pod.spec}
                refused = refused or cluster.make(body, made_body)
    if refused:
        group = {**body, "kind": "StatefulSet", "apiVersion": "apps/v1"}
        cluster.tell(
            group,
            "Warning",
            "FailedCreate",
            f"create Pod in StatefulSet {name} failed error: {refused}",
            "statefulset-controller",
        )
    cluster.write_status(body, _group_status(cluster, body, digest))


def _drop(cluster: Controllers, pods: list[Object]) -> None:
    for pod in pods:
        cluster.store.delete(place_of(pod))


def job(cluster: Controllers, body: Object) -> None:
    """A pod until one has ended well, or backoffLimit of them badly."""
    spec, pods = body["spec"], cluster.owned(body)
    ended = {
        phase: sum(pod.get("status", {}).get("phase") == phase for pod in pods) for phase in ("Succeeded", "Failed")
    }
    active = len(pods) - sum(ended.values())
    done, lost = ended["Succeeded"] >= spec.get("completions", 1), ended["Failed"] > spec.get("backoffLimit", 6)
    if not (active or done or lost or spec.get("suspend") or body["metadata"].get("deletionTimestamp")):
        name = body["metadata"]["name"]
        labels = {"batch.kubernetes.io/job-name": name, "job-name": name}
        cluster.make(body, _pod(spec["template"], f"{name}-{cluster.made:05x}", labels))
        active = 1
    conditions = [{"type": "Complete", "status": "True"}] if done else []
    if lost:
        why = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        conditions = [{"type": "Failed", "status": "True", **why}]
    counts = {"active": active, "succeeded": ended["Succeeded"], "failed": ended["Failed"]}
    cluster.write_status(body, {key: count for key, count in counts.items() if count} | {"conditions": conditions})


def budget(cluster: Controllers, body: Object) -> None:
    """What a disruption budget allows now."""
    at = place_of(body)
    healthy, needed, expected = subresources.health(cluster.store, at, body)
    status = {"currentHealthy": healthy, "desiredHealthy": needed, "expectedPods": expected}
    status |= {"disruptionsAllowed": max(0, healthy - needed), "observedGeneration": body["metadata"]["generation"]}
    cluster.write_status(body, status)


def _deployment_status(cluster: Controllers, body: Object, digest: str, refused: str) -> Object:
    pods, wanted = cluster.owned(body), body["spec"].get("replicas", 1)
    new = [pod for pod in pods if pod["metadata"]["labels"].get(_HASH) == digest]
    up, fresh = sum(map(ready, pods)), sum(map(ready, new))
    counts = {"replicas": len(pods), "updatedReplicas": len(new), "readyReplicas": up, "availableReplicas": up}
    counts["unavailableReplicas"] = max(0, wanted - up)
    enough = up >= wanted - _allowance(body["spec"], wanted)[1]
    available = {"type": "Available", "status": "True" if enough else "False"}
    available["reason"] = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    finished = fresh == wanted == len(pods)
    progressing = {"type": "Progressing", "status": "True"}
    progressing["reason"] = "NewReplicaSetAvailable" if finished else "ReplicaSetUpdated"
    if body["metadata"]["name"] in cluster.overdue and not finished:
        message = f'ReplicaSet "{body["metadata"]["name"]}-{digest}" has timed out progressing.'
        progressing |= {"status": "False", "reason": "ProgressDeadlineExceeded", "message": message}
    conditions = [available, progressing]
    if refused:
        conditions.append({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refused})
    status: Object = {key: count for key, count in counts.items() if count}
    return {**status, "observedGeneration": body["metadata"]["generation"], "conditions": conditions}


def _group_status(cluster: Controllers, body: Object, digest: str) -> Object:
    spec, name = body["spec"], body["metadata"]["name"]
    by_group: dict[str, list[Object]] = {}
    for pod in cluster.owned(body):
        by_group.setdefault(_group(pod), []).append(pod)
    whole = sum(_whole(pods, spec) for pods in by_group.values())
    new = sum(all(pod["metadata"]["labels"][_REVISION] == digest for pod in pods) for pods in by_group.values())
    done = whole == new == len(by_group) == spec.get("replicas", 1)
    conditions = [
        {
            "type": "Available",
            "status": "True" if done else "False",
            "reason": "AllGroupsReady" if done else "GroupsNotReady",
        },
        {"type": "Progressing", "status": "False" if done else "True", "reason": "GroupsProgressing"},
        {
            "type": "UpdateInProgress",
            "status": "True" if new < len(by_group) else "False",
            "reason": "UpdateInProgress",
        },
    ]
    status: Object = {"replicas": len(by_group), "readyReplicas": whole, "updatedReplicas": new}
    selector = f"{objects.LWS}/name={name},{objects.LWS}/worker-index=0"
    status |= {"hpaPodSelector": selector, "observedGeneration": body["metadata"]["generation"]}
    return {**status, "conditions": conditions}


def _group(pod: Object) -> str:
    return str(pod["metadata"]["labels"][f"{objects.LWS}/group-index"])


def _whole(pods: list[Object], spec: Object) -> bool:
    return len(pods) == spec["leaderWorkerTemplate"].get("size", 1) and all(map(ready, pods))


def _allowance(spec: Object, wanted: int) -> tuple[int, int]:
    """maxSurge and maxUnavailable as numbers of pods."""
    strategy = spec.get("strategy", {})
    if strategy.get("type") == "Recreate":
        return 0, wanted
    given = strategy.get("rollingUpdate") or {}
    surge = _share(given.get("maxSurge", "25%"), wanted, math.ceil)
    unavailable = _share(given.get("maxUnavailable", "25%"), wanted, math.floor)
    return surge, unavailable if surge or unavailable else 1


def _share(amount: Any, of: int, rounded: Any) -> int:
    return int(rounded(of * int(amount[:-1]) / 100)) if isinstance(amount, str) else int(amount)


def _pod(template: Object, name: str, labels: dict[str, str]) -> Object:
    meta = template.get("metadata", {})
    kept = {key: meta[key] for key in ("annotations",) if key in meta}
    made = {"name": name, "labels": {**meta.get("labels", {}), **labels}, **kept}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]}


def _digest(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:9]
