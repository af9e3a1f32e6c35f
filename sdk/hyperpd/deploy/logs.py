"""Logs of a deployment's pods, together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from hyperpd.deploy.apply import Api, Object
from hyperpd.deploy.kubernetes.fleet import COMPONENT, selector
from hyperpd.deploy.revision import Revision
from hyperpd.errors import CloudError, RecipeError


@dataclass(frozen=True, slots=True)
class Line:
    pod: str
    text: str


def lines(
    api: Api, revision: Revision, role: str | None, *, follow: bool, previous: bool, tail: int | None
) -> Iterator[Line]:
    """Pod after pod, or with `follow` all at once as they come. Raises RecipeError, CloudError."""
    found = list(pods(api, revision, role))
    if not found:
        which = f"no pod of {role}" if role else "no pods"
        raise RecipeError(
            f"logs {revision.name}",
            [f"{which} in the cluster; hyperpd status {revision.name}, with the same --cluster or --context"],
        )
    if not follow:
        for pod in found:
            yield from _of(api, pod, previous=previous, tail=tail, follow=False)
        return
    arrived: queue.Queue[Line | BaseException | None] = queue.Queue()

    def read(pod: Object) -> None:
        try:
            for line in _of(api, pod, previous=previous, tail=tail, follow=True):
                arrived.put(line)
            arrived.put(None)
        except BaseException as error:  # whatever it is, somebody waits
            arrived.put(error)

    for pod in found:
        threading.Thread(target=read, args=(pod,), daemon=True).start()
    for _ in found:
        while (next_ := arrived.get()) is not None:
            if isinstance(next_, BaseException):
                raise next_
            yield next_


def pods(api: Api, revision: Revision, role: str | None) -> Iterator[Object]:
    """The pods of a role, or all. Of the operator's pods no labels are published: their names begin with the role."""
    rooms = [one["metadata"]["name"] for one in revision.objects if one["kind"] == "Namespace"]
    for room in rooms:
        if revision.target == "inference_operator":
            yield from (one for one in api.list("Pod", room) if not role or _named(one, role, revision))
            continue
        for one in api.list("Pod", room, selector()):
            if role in (None, (component := one["metadata"]["labels"].get(COMPONENT))) or component == "node":
                yield one


def _named(pod: Object, role: str, revision: Revision) -> bool:
    name = str(pod["metadata"]["name"])
    own = [one["metadata"]["name"] for one in revision.objects if one["kind"] == "InferenceEndpointConfig"]
    return any(name.startswith(f"{role}-{each}-") or role in ("aggregated", "gateway") for each in own)


def _of(api: Api, pod: Object, *, previous: bool, tail: int | None, follow: bool) -> Iterator[Line]:
    meta, containers = pod["metadata"], pod["spec"]["containers"]
    container = containers[0]["name"]  # a worker's own; a sidecar comes after it
    try:
        for text in api.logs(meta["namespace"], meta["name"], container, previous=previous, tail=tail, follow=follow):
            yield Line(meta["name"], text)
    except CloudError as error:
        if error.code not in ("BadRequest", "NotFound"):
            raise
        yield Line(meta["name"], f"(no log: {error})")  # it has not started (again), or is gone: the others' go on
