"""Removing a deployment: what hyperpd applied goes; a namespace in which others keep something stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hyperpd.deploy import revision as revisions
from hyperpd.deploy.apply import MANAGER, NOT_SERVED, Api, Object, Objects
from hyperpd.deploy.difference import Ref, ref
from hyperpd.deploy.kubernetes.fleet import selector
from hyperpd.deploy.progress import Step, Tell, silent
from hyperpd.deploy.revision import Revision
from hyperpd.errors import CloudError, NotReady

_POLL_S = 2.0
# What people keep in a namespace: what would go with it.
KEPT = (
    "PersistentVolumeClaim",
    "Secret",
    "ConfigMap",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "LeaderWorkerSet",
    "InferenceEndpointConfig",
    "ScaledObject",
    "CronJob",
    "Job",
    "Workload",  # of Kueue, for a job that waits: it may have no pods yet
    "Pod",
    "Service",
    "ServiceAccount",
)
_OF_CLUSTER = (("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default"))


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes, in order, and what stays: "object: why". rooms: where its pods are; records: the revisions, which go
    last; others: what hyperpd did not make, and goes with its namespace."""

    name: str
    rooms: tuple[str, ...]
    objects: tuple[Ref, ...]
    namespaces: tuple[Ref, ...]
    records: tuple[Ref, ...]
    stays: tuple[str, ...]
    others: tuple[Ref, ...] = ()

    def lines(self) -> list[str]:
        foreign = [f"{one}, which hyperpd did not make" for one in self.others]
        return [*map(str, self.objects), *foreign, *map(str, (*self.namespaces, *self.records))]


def plan(api: Api, history: Sequence[Revision], *, everything: bool = False) -> Removal:
    """What removing takes. Raises CloudError."""
    last = history[-1]
    adopted = set(last.adopted)
    known = dict.fromkeys(ref(body) for one in history for body in one.objects)
    objects, namespaces, stays = [], [], []
    records = [revisions.ref(one) for one in history]
    for at in reversed(known):
        if not _there(api, at):
            continue
        if at in adopted:
            stays.append(f"{at}: it was there before hyperpd")
        elif at.kind == "Namespace":
            namespaces.append(at)
        else:
            objects.append(at)
    ours = {*objects, *records}
    doomed: list[Ref] = []
    for at in list(namespaces):
        others, unseen = _inside(api, at.name, ours)
        if everything:
            doomed += others
        elif others or unseen:
            namespaces.remove(at)
            why = [f"others keep there: {', '.join(f'{one.kind} {one.name}' for one in others)}"] if others else []
            why += [f"you may not see whether others keep there a {' or '.join(unseen)}"] if unseen else []
            stays.append(f"{at}, since {', and '.join(why)}")
    # Its own namespace last: the revisions in it say what is left to a run after one that was cut off.
    namespaces.sort(key=lambda at: at.name == last.home)
    if last.home in [at.name for at in namespaces]:
        records = []
    rooms = tuple(at.name for at in known if at.kind == "Namespace")
    return Removal(last.name, rooms, tuple(objects), tuple(namespaces), tuple(records), tuple(stays), tuple(doomed))


def remove(
    api: Api,
    removal: Removal,
    tell: Tell = silent,
    *,
    timeout_s: float = 900,
) -> None:
    """Delete it, and wait until it is gone. Raises NotReady naming what stays, CloudError."""
    until_s = time.monotonic() + timeout_s
    for step in (removal.objects, removal.namespaces, removal.records):
        for at in step:
            if api.delete(*at):
                tell(Step(f"deleted: {at}"))
        while left := [*(at for at in step if _there(api, at)), *_draining(api, removal.rooms)]:
            if time.monotonic() >= until_s:
                said = f"not gone within {timeout_s:.0f} s: {', '.join(map(str, left))}"
                raise NotReady(
                    f"{removal.name}: {said}\nSomething holds it, such as a finalizer or a pod that drains; run, with"
                    f" the same --cluster or --context, hyperpd undeploy {removal.name} again: it goes on where it was"
                )
            time.sleep(_POLL_S)


def _draining(api: Api, rooms: Sequence[str]) -> list[Ref]:
    """Pods that still end in order."""
    return [Ref("Pod", room, one["metadata"]["name"]) for room in rooms for one in api.list("Pod", room, selector())]


def _there(api: Api, at: Ref) -> Object | None:
    try:
        return api.get(*at)
    except CloudError as error:
        if error.code == NOT_SERVED:
            return None
        raise


def _inside(api: Api, namespace: str, ours: set[Ref]) -> tuple[list[Ref], list[str]]:
    """What others made there, and kinds of which the caller may see none. What a controller made goes with its owner,
    which is named."""
    listed = {kind: _listed(api, kind, namespace) for kind in KEPT}
    others = [
        at
        for at, meta in ((ref(one), one["metadata"]) for found in listed.values() for one in found or ())
        if at not in ours
        and (at.kind, at.name) not in _OF_CLUSTER
        and not any(
            owner["kind"] in KEPT or Ref(owner["kind"], namespace, owner["name"]) in ours
            for owner in meta.get("ownerReferences") or ()
        )
        and not any(owner.get("manager") == MANAGER for owner in meta.get("managedFields") or ())
    ]
    return others, [kind for kind, found in listed.items() if found is None]


def _listed(api: Api, kind: str, namespace: str) -> Objects | None:
    """None where the caller may not see them."""
    try:
        return api.list(kind, namespace)
    except CloudError as error:
        if error.code == NOT_SERVED:
            return []
        if error.code == "Forbidden":
            return None
        raise
