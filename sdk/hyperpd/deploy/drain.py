"""drain_of(api) → the Drain that `cluster.patch` takes: nodes are cordoned, and hyperpd's pods leave them in order.

Pods are evicted, so disruption budgets hold, and one at a time of a role: the last ready worker of it goes only when
another is ready elsewhere. On the way out nodes are uncordoned, whatever happened in between, and waited for until as
many workers are ready as before: the next group that is drained may be the other half of a pair.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hyperpd.cluster.patch import Drain
from hyperpd.cluster.progress import Step, Tell
from hyperpd.cluster.state import Node
from hyperpd.deploy import stuck
from hyperpd.deploy.apply import Api
from hyperpd.deploy.kubernetes.fleet import COMPONENT, selector
from hyperpd.deploy.kubernetes.machines import EFA, GPU
from hyperpd.errors import CloudError, NotReady

Object = dict[str, Any]
Role = tuple[str, str]  # (namespace, component)

TIMEOUT_S, POLL_S = 3600.0, 5.0  # workers load for minutes, and end within drain_s and a lease
_AS_THEY_GO = (
    "HyperPod takes the nodes batch by batch; a worker finishes its requests as SIGTERM reaches it, within its recipe's"
    " drain_s"
)
CORDONED = "hyperpd.io/cordoned"  # an annotation: by us, so that a run after one that was killed takes it back
_SIZE = "leaderworkerset.sigs.k8s.io/size"  # an annotation: pods of a group
_GROUP = ("leaderworkerset.sigs.k8s.io/name", "leaderworkerset.sigs.k8s.io/group-index")


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker, or a gateway: one pod, or those of a LeaderWorkerSet's group, which live and end together."""

    role: Role
    pods: tuple[Object, ...]

    @property
    def ready(self) -> bool:
        size = max(int(pod["metadata"].get("annotations", {}).get(_SIZE, 1)) for pod in self.pods)
        return len(self.pods) >= size and all(stuck.ready(pod) and not _ends(pod) for pod in self.pods)

    @property
    def placed(self) -> bool:
        return all(pod["spec"].get("nodeName") for pod in self.pods)

    def on(self, nodes: Collection[str]) -> list[Object]:
        return [pod for pod in self.pods if pod["spec"].get("nodeName") in nodes]


def drain_of(
    api: Api,
    *,
    force: bool = False,
    timeout_s: float = TIMEOUT_S,
    poll_s: float = POLL_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Drain:
    """A Drain for clusters of EKS.

    Where a role would be left without a worker, since no other node takes one, nothing is evicted, and it says so:
    HyperPod then takes the nodes batch by batch, and their workers end by SIGTERM. force: evicted all the same; their
    requests find no worker until nodes are back. timeout_s: for the pods to leave, and again for workers to be ready
    afterwards. The drain raises NotReady when time runs out, with the pods that are waited for; CloudError.
    """

    @contextmanager
    def drain(nodes: Sequence[Node], tell: Tell) -> Iterator[None]:
        waits = _Waits(api, tell, timeout_s, poll_s, sleep, clock)
        there = _named(api.list("Node"), nodes, tell)
        before = _workers(api)
        if not force and (kept := _kept(before, there, api.list("Node"))):
            tell(Step(f"not drained: {'; '.join(kept)}. {_AS_THEY_GO}"))
            yield
            waits.back(_counts(before))
            return
        cordoned: list[str] = []
        try:
            for name, node in there.items():
                _cordon(api, name, node, cordoned, tell)
            waits.leave(set(there), force)
            yield
        except BaseException:
            for failed in _uncordon(api, cordoned, tell):
                tell(Step(failed))
            raise
        if told := _uncordon(api, cordoned, tell):
            raise CloudError("\n".join(told))
        waits.back(_counts(before))

    return drain


@contextmanager
def on_slurm(nodes: Sequence[Node], tell: Tell) -> Iterator[None]:
    """The Drain of a Slurm cluster: none. Slurm's own tools are on its head node, where only its users come."""
    ids = ", ".join(node.id or node.logical_id for node in nodes)
    tell(
        Step(
            f"not drained: {ids}. Slurm's nodes are drained on the head node: sudo scontrol update nodename=NAME,…"
            ' state=drain reason="software update", then squeue --nodelist=NAME,… until no job is left; state=resume'
            " afterwards. NAME: ip-A-B-C-D of the CustomerIpAddress that /opt/ml/config/resource_config.json has for"
            " each of these ids. Jobs that still run are lost with their node"
        )
    )
    yield


class _Waits:
    """Waiting for pods, in two directions; tells what it waits for when that changes."""

    def __init__(
        self,
        api: Api,
        tell: Tell,
        timeout_s: float,
        poll_s: float,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._api, self._tell, self._sleep, self._clock = api, tell, sleep, clock
        self._timeout_s, self._poll_s = timeout_s, poll_s

    def leave(self, nodes: Collection[str], force: bool) -> None:
        """Evict what runs on `nodes`, until nothing of hyperpd does. Raises NotReady."""

        def left() -> list[str]:
            return list(self._evict(nodes, force))

        fix = "kubectl get pods -A -o wide -l app.kubernetes.io/name=hyperpd"
        self._until(
            left, "drain", fix if force else f"{fix}; add nodes for them, or take the last of a role by --force"
        )

    def back(self, wanted: Mapping[Role, int]) -> None:
        """Wait until as many workers of each role are ready as before, or as are left of it where it was scaled down
        or removed meanwhile: all that two looks find, since a pod may end before its next is made. Raises NotReady."""
        there: dict[Role, int] = {}  # how many workers the last look found
        fewer: dict[Role, int] = {}

        def missing() -> list[str]:
            nonlocal there, fewer
            workers = _workers(self._api)
            ready, before = _counts(workers), there
            there = {role: sum(worker.role == role for worker in workers) for role in wanted}
            lacks = {role: ready.get(role, 0) for role, count in wanted.items() if ready.get(role, 0) < count}
            fewer = {role: now for role, now in lacks.items() if now == there[role] == before.get(role)}
            return [
                f"{component} in {namespace}: {now} of {wanted[namespace, component]} ready"
                for (namespace, component), now in lacks.items()
                if (namespace, component) not in fewer
            ]

        self._until(
            missing, "after the drain", "look again with: kubectl get pods -A -l app.kubernetes.io/name=hyperpd"
        )
        for role, now in fewer.items():
            self._tell(Step(f"after the drain: {role[1]} in {role[0]}: {now} wanted now, of {wanted[role]} before"))

    def _until(self, left: Callable[[], list[str]], what: str, fix: str) -> None:
        began, before = self._clock(), ""
        while waits := left():
            now = f"{what}: waits for {'; '.join(waits)}"
            if now != before:
                self._tell(Step(now))
                before = now
            if self._clock() - began + self._poll_s > self._timeout_s:
                lines = [f"{what}: after {self._timeout_s:.0f} s still waits for", *(f"  {one}" for one in waits)]
                raise NotReady("\n".join([*lines, *self._why(), f"try: {fix}"]))
            self._sleep(self._poll_s)

    def _why(self) -> list[str]:
        """What keeps pods of hyperpd from being ready."""
        pods = self._api.list("Pod", None, selector())
        spaces = dict.fromkeys(pod["metadata"]["namespace"] for pod in pods)
        seen = stuck.Seen(
            pods=pods,
            events=[event for space in spaces for event in self._api.events(space)],
            nodes=self._api.list("Node"),
        )
        return [line for cause in stuck.causes(seen, self._last_lines) for line in cause.lines()]

    def _last_lines(self, namespace: str, pod: str, container: str, previous: bool) -> list[str]:
        return list(self._api.logs(namespace, pod, container, previous=previous, tail=12))

    def _evict(self, nodes: Collection[str], force: bool) -> Iterator[str]:
        """Evict what may go now; what is waited for."""
        workers = _workers(self._api)
        ready = _counts(workers)
        for worker in workers:
            for pod in worker.on(nodes):
                who = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                if _ends(pod):
                    yield f"{who} to end (within {pod['spec'].get('terminationGracePeriodSeconds', 30)} s)"
                    continue
                if worker.ready and ready[worker.role] == 1 and not force:
                    yield f"{who}, the last ready {worker.role[1]}, until another is ready elsewhere"
                    break
                if held := self._asked(pod, force):
                    yield f"{who}: {held}"
                    continue
                ready[worker.role] = ready.get(worker.role, 0) - worker.ready
                yield f"{who} to end (within {pod['spec'].get('terminationGracePeriodSeconds', 30)} s)"
                break  # the others of a group go with it

    def _asked(self, pod: Object, force: bool) -> str:
        """Ask a pod to leave; why it may not."""
        meta = pod["metadata"]
        try:
            self._api.evict(meta["namespace"], meta["name"])
        except CloudError as error:
            if error.code != "TooManyRequests":
                raise
            if not force:
                return "its disruption budget holds it"
            self._tell(Step(f"{meta['namespace']}/{meta['name']}: its disruption budget holds it; deleted by force"))
            self._api.delete("Pod", meta["namespace"], meta["name"], uid=meta.get("uid"))
        return ""


def _named(found: Sequence[Object], nodes: Sequence[Node], tell: Tell) -> dict[str, Object]:
    """The Kubernetes nodes of HyperPod's `nodes`, by name; those that have not joined are told.

    Their names are hyperpod-ID (from field reports); where that is not so, the provider's id ends with it.
    """
    there: dict[str, Object] = {}
    for node in nodes:
        mine = [
            one
            for one in found
            if node.id
            and (
                one["metadata"]["name"] == f"hyperpod-{node.id}"
                or str(one.get("spec", {}).get("providerID", "")).endswith(node.id)
            )
        ]
        if not mine:
            tell(
                Step(f"drain: node {node.group}/{node.id or node.logical_id} is not in Kubernetes: nothing runs on it")
            )
        there |= {one["metadata"]["name"]: one for one in mine}
    return there


def _workers(api: Api) -> list[Worker]:
    """Everything of hyperpd's that runs or is to run, in all namespaces."""
    groups: dict[tuple[str, ...], list[Object]] = {}
    for pod in api.list("Pod", None, {**selector(), COMPONENT: ""}):
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        meta = pod["metadata"]
        group = [str(meta["labels"][key]) for key in _GROUP if key in meta["labels"]]
        key = (meta["namespace"], meta["labels"][COMPONENT], *(group or [meta["name"]]))
        groups.setdefault(key, []).append(pod)
    return [Worker((key[0], key[1]), tuple(pods)) for key, pods in groups.items()]


def _counts(workers: Sequence[Worker]) -> dict[Role, int]:
    """How many of each role are ready."""
    found: dict[Role, int] = {}
    for worker in workers:
        found[worker.role] = found.get(worker.role, 0) + worker.ready
    return found


def _kept(workers: Sequence[Worker], there: Collection[str], nodes: Sequence[Object]) -> list[str]:
    """Why nothing may be evicted: roles that would lose their last ready worker, and have none elsewhere before."""
    told = []
    for role in dict.fromkeys(worker.role for worker in workers):
        every = [worker for worker in workers if worker.role == role]
        ready = [worker for worker in every if worker.ready]
        if not ready or any(worker.placed and not worker.on(there) for worker in every):
            continue
        names = ", ".join(pod["metadata"]["name"] for worker in ready for pod in worker.on(there))
        what = f"{role[1]} in {role[0]}: {names} is all that is ready of it"
        stay = [node for node in nodes if node["metadata"]["name"] not in there]
        if not _fits(ready[0], stay, [pod for worker in workers if worker is not ready[0] for pod in worker.pods]):
            told.append(f"{what}, and no other node has room for one (hyperpd cluster update adds a group)")
        elif len(every) == 1:
            told.append(f"{what}, and it is the only one (hyperpd scale NAME {role[1]}=2 makes a second)")
    return told


def _fits(worker: Worker, nodes: Sequence[Object], others: Sequence[Object]) -> bool:
    """Whether nodes that are open, and of its kind, have GPUs and EFA for a worker beside `others` of hyperpd's pods.

    What pods of other people hold, and what else it asks for, the scheduler knows.
    """
    stay = [node for node in nodes if not node.get("spec", {}).get("unschedulable") and stuck.ready(node)]
    free = {node["metadata"]["name"]: _devices(node.get("status", {}).get("allocatable", {})) for node in stay}
    for pod in others:
        free.get(pod["spec"].get("nodeName"), Counter()).subtract(_asked(pod))
    for pod in worker.pods:
        mine = [free[node["metadata"]["name"]] for node in stay if stuck.selected(pod, node)]
        room = next((one for one in mine if one >= _asked(pod)), None)
        if room is None:
            return False
        room.subtract(_asked(pod))
    return True


def _asked(pod: Object) -> Counter[str]:
    limits = [_devices(container.get("resources", {}).get("limits", {})) for container in pod["spec"]["containers"]]
    return sum(limits, Counter())


def _devices(amounts: Mapping[str, Any]) -> Counter[str]:
    return Counter({name: int(amounts.get(name, 0)) for name in (GPU, EFA)})


def _ends(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _cordon(api: Api, name: str, node: Object, cordoned: list[str], tell: Tell) -> None:
    """No new pods on a node. One that somebody else has cordoned stays theirs."""
    ours = CORDONED in (node["metadata"].get("annotations") or {})
    if node.get("spec", {}).get("unschedulable") and not ours:
        tell(Step(f"drain: {name} was cordoned before, and stays so"))
        return
    cordoned.append(name)
    api.patch(
        *("Node", None, name), {"metadata": {"annotations": {CORDONED: "drain"}}, "spec": {"unschedulable": True}}
    )
    tell(Step(f"drain: {name} cordoned"))


def _uncordon(api: Api, cordoned: Sequence[str], tell: Tell) -> list[str]:
    """Open all nodes again; what failed, with the command that does it."""
    failed = []
    for name in cordoned:
        try:
            api.patch(
                *("Node", None, name), {"metadata": {"annotations": {CORDONED: None}}, "spec": {"unschedulable": None}}
            )
            tell(Step(f"drain: {name} open again"))
        except CloudError as error:
            if error.code == "NotFound":  # another machine has come in its place
                continue
            failed.append(f"{name} is still cordoned: {error}\n  kubectl uncordon {name}")
    return failed
