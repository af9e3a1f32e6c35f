"""Scale, log and eviction of objects: what is asked of a part of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from itertools import chain
from typing import Any

from tests.deploy import objects
from tests.fakes.kubernetes.pods import ready
from tests.fakes.kubernetes.refusal import Object, Refused, bad, conflict, invalid
from tests.fakes.kubernetes.resources import Place, place
from tests.fakes.kubernetes.store import Store, merged

_LOG_PARAMETERS = {"container", "tailLines", "previous", "follow"}
_BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."


def scale(store: Store, at: Place) -> Object:
    """The scale of an object."""
    body = store.get(at.object)
    meta = {key: body["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
    status: Object = {"replicas": body.get("status", {}).get("replicas", 0)}
    if labels := body["spec"].get("selector", {}).get("matchLabels"):
        status["selector"] = ",".join(f"{key}={value}" for key, value in labels.items())
    said = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta}
    return {**said, "spec": {"replicas": body["spec"].get("replicas", 1)}, "status": status}


def rescale(store: Store, at: Place, given: Object, manager: str, dry_run: bool) -> Object:
    """Set the scale of an object, by a merge patch of the scale or a whole one. The object is the server's, then:
    an autoscaler or hand owns its replicas."""
    with store.changed:
        now = scale(store, at)
        new = merged(now, given)
        if new["metadata"].get("resourceVersion", "") not in ("", now["metadata"]["resourceVersion"]):
            raise conflict(str(at.object))
        replicas = new["spec"].get("replicas", 0)
        if type(replicas) is not int or replicas < 0:
            why = f"spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0"
            raise invalid(f'Scale "{at.name}"', [why])
        patched = store.merge(at, {"spec": {"replicas": replicas}}, manager, dry_run)
        return {**scale(store, at), "spec": {"replicas": patched["spec"]["replicas"]}}


def log(store: Store, at: Place, query: Mapping[str, str], closing: Callable[[], bool]) -> Iterator[str]:
    """Lines of a container's log. follow: on, until the container ends. Raises Refused (400)."""
    if unknown := sorted(set(query) - _LOG_PARAMETERS):
        raise bad(f"the stand-in knows no {', '.join(unknown)} of a log")
    pod = store.get(at.object)
    name = _container(pod, query.get("container"))
    key, previous = (at.namespace, at.name, name), query.get("previous") == "true"
    state = _status(pod, name)
    if previous and key not in store.previous_logs:
        raise bad(f'previous terminated container "{name}" in pod "{at.name}" not found')
    if not previous and (waiting := state.get("state", {}).get("waiting")) and key not in store.logs:
        raise bad(f'container "{name}" in pod "{at.name}" is waiting to start: {waiting["reason"]}')
    with store.changed:
        lines = list((store.previous_logs if previous else store.logs).get(key, ()))
    tail = query.get("tailLines")
    if tail is not None and not tail.isdigit():
        raise bad(f'tailLines: Invalid value: "{tail}": must be greater than or equal to 0')
    last = lines[max(0, len(lines) - int(tail)) :] if tail is not None else lines
    follows = query.get("follow") == "true" and not previous
    return chain(last, _following(store, at, pod, key, len(lines), closing) if follows else ())


def _following(
    store: Store, at: Place, pod: Object, key: tuple[str, str, str], told: int, closing: Callable[[], bool]
) -> Iterator[str]:
    while True:
        with store.changed:
            while len(store.logs.get(key, ())) <= told:
                if closing() or not _runs(store, at, pod["metadata"]["uid"]):
                    return
                store.changed.wait()
            new = store.logs[key][told:]
        told += len(new)
        yield from new


def evict(store: Store, at: Place, body: Object, dry_run: bool) -> Object:
    """Delete a pod unless its disruption budget forbids it. Raises Refused (429)."""
    if (body.get("apiVersion"), body.get("kind")) != ("policy/v1", "Eviction"):
        raise bad(f"the object is {body.get('kind')} in {body.get('apiVersion')}, the path is of Eviction in policy/v1")
    if (body.get("metadata") or {}).get("name") != at.name:
        raise bad("name in URL does not match name in Eviction object")
    with store.changed:
        pod = store.get(at.object)
        done = pod["metadata"].get("deletionTimestamp") or pod.get("status", {}).get("phase", "Pending") != "Running"
        budgets = [
            each
            for each in store.list(place(f"/apis/policy/v1/namespaces/{at.namespace}/poddisruptionbudgets"))["items"]
            if objects.selects(each["spec"].get("selector"), pod["metadata"].get("labels", {}))
        ]
        if len(budgets) > 1 and not done:
            why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", why)
        if budgets and not done:
            _refuse_eviction(store, at, pod, budgets[0])
        store.delete(at.object, body.get("deleteOptions"), dry_run)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def wanted(body: Object) -> int:
    """How many pods a workload is to have."""
    replicas = body["spec"].get("replicas", 1)
    return replicas * body["spec"].get("leaderWorkerTemplate", {}).get("size", 1)


def health(store: Store, at: Place, budget: Object) -> tuple[int, int, int]:
    """Of a disruption budget: healthy pods, how many it needs, how many there are to be."""
    spec = budget["spec"]
    pods = [
        each
        for each in store.list(place(f"/api/v1/namespaces/{at.namespace}/pods"))["items"]
        if objects.selects(spec.get("selector"), each["metadata"].get("labels", {}))
    ]
    expected = _expected(store, pods)
    if "minAvailable" in spec:
        needed = _share(spec["minAvailable"], expected)
    else:
        needed = max(0, expected - _share(spec.get("maxUnavailable", 1), expected))
    return sum(map(ready, pods)), needed, expected


def _refuse_eviction(store: Store, at: Place, pod: Object, budget: Object) -> None:
    healthy, needed, _ = health(store, at, budget)
    unhealthy = not ready(pod)
    if unhealthy and budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return
    if healthy - needed < (0 if unhealthy else 1):
        name = budget["metadata"]["name"]
        said = f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
        cause = {"reason": "DisruptionBudget", "message": said}
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests", _BUDGET, [cause])


def _expected(store: Store, pods: list[Object]) -> int:
    """How many pods there are to be: what their owners want, and those that nothing owns."""
    owners, alone = {}, 0
    for pod in pods:
        owner = next((one for one in pod["metadata"].get("ownerReferences", ()) if one.get("controller")), None)
        found = owner and store.find(owner["uid"])
        if found:
            owners[owner["uid"]] = wanted(found)
        else:
            alone += 1
    return alone + sum(owners.values())


def _share(amount: Any, of: int) -> int:
    return math.ceil(of * int(amount[:-1]) / 100) if isinstance(amount, str) else int(amount)


def _container(pod: Object, given: str | None) -> str:
    """Raises Refused (400) where none, or none of the pod's, is named."""
    names = [each["name"] for each in pod["spec"]["containers"]]
    every = [*names, *(each["name"] for each in pod["spec"].get("initContainers", ()))]
    if given is None and len(names) > 1:
        said = (
            f"a container name must be specified for pod {pod['metadata']['name']}, choose one of: [{' '.join(every)}]"
        )
        raise bad(said)
    if given is not None and given not in every:
        raise bad(f"container {given} is not valid for pod {pod['metadata']['name']}")
    return given or names[0]


def _status(pod: Object, container: str) -> Object:
    every = [
        *pod.get("status", {}).get("containerStatuses", ()),
        *pod.get("status", {}).get("initContainerStatuses", ()),
    ]
    return next((one for one in every if one["name"] == container), {})


def _runs(store: Store, at: Place, uid: str) -> bool:
    try:
        pod = store.get(at.object)
    except Refused:
        return False
    return bool(pod["metadata"]["uid"] == uid and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"))
