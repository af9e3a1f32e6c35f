"""Controllers: what a cluster does by itself, played, one round by each step.

Deployments make their pods themselves (there are no ReplicaSets), roll by their maxSurge and maxUnavailable;
LeaderWorkerSets make groups with the labels of lws v0.10 and roll one group after the other, the last first; Jobs end
with their pods; InferenceEndpointConfigs go the way of operator.py. Pods are bound by nodes.py and become what a test
scripts for their labels, Ready where it says nothing. A deleted pod is gone after the next step.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.fakes.kubernetes import nodes, operator, workloads
from tests.fakes.kubernetes.pods import Ended, PodState, Ready, Unschedulable
from tests.fakes.kubernetes.refusal import Object, Refused
from tests.fakes.kubernetes.resources import Place, resource_of
from tests.fakes.kubernetes.state import now, place_of
from tests.fakes.kubernetes.store import Store

_ROUNDS = 50


class Controllers:
    """The controllers of a cluster. overdue: names of Deployments whose progress deadline is over."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.kubelets = True
        self.overdue: set[str] = set()
        self.endpoints = operator.Operator()
        self._scripts: list[tuple[dict[str, str], PodState, list[str], int | None]] = []
        self._lingering: set[str] = set()
        self.made = 0  # how many objects; names of pods are made of it

    def script(self, state: PodState, labels: Mapping[str, str], pods: int | None = None) -> None:
        """Pods with these labels are in this state from the next step on; pods: only the first so many. The last
        script that fits a pod holds."""
        self._scripts.append((dict(labels), state, [], pods))

    def linger(self, *names: str) -> None:
        """These pods, once deleted, stay until they are let go (`linger()`)."""
        self._lingering = set(names)

    def step(self) -> bool:
        """One round; whether anything changed."""
        with self.store.changed:
            before = self.store.version
            deleted = [pod for pod in self.all("v1", "Pod") if pod["metadata"].get("deletionTimestamp")]
            self.endpoints.step(self)
            for body in self.all("apps/v1", "Deployment"):
                workloads.deployment(self, body)
            for body in self.all("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"):
                workloads.groups(self, body)
            for body in self.all("batch/v1", "Job"):
                workloads.job(self, body)
            for pod in self.all("v1", "Pod"):
                self._live(pod)
            for pod in deleted:
                if pod["metadata"]["name"] not in self._lingering:
                    self.store.finish(place_of(pod))
            for body in self.all("policy/v1", "PodDisruptionBudget"):
                workloads.budget(self, body)
            return self.store.version != before

    def settle(self) -> None:
        """Steps until nothing changes."""
        for _ in range(_ROUNDS):
            if not self.step():
                return
        raise AssertionError(f"the cluster is not at rest after {_ROUNDS} rounds")

    @contextmanager
    def running(self) -> Iterator[None]:
        """A thread that settles the cluster after every change, while the context lasts."""
        ended = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                while True:
                    with self.store.changed:
                        if ended.is_set():
                            return
                        if not self.step():
                            self.store.changed.wait()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            with self.store.changed:
                self.store.changed.notify_all()
            thread.join()
        if failed:
            raise failed[0]

    def all(self, api_version: str, kind: str) -> list[Object]:
        return list(self.store.list(Place(resource_of(api_version, kind), "", ""))["items"])

    def owned(self, owner: Object, *, deleted: bool = False) -> list[Object]:
        """The pods of a workload that are, or are not, deleted, and have not failed unless it is a Job."""
        uid = owner["metadata"]["uid"]
        return [
            pod
            for pod in self.all("v1", "Pod")
            if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences", ()))
            and bool(pod["metadata"].get("deletionTimestamp")) == deleted
            and (owner["kind"] == "Job" or pod.get("status", {}).get("phase") != "Failed")
        ]

    def make(self, owner: Object, body: Object) -> str:
        """Make an object for another; the server's words where it refuses."""
        meta = {"namespace": owner["metadata"]["namespace"], "ownerReferences": [reference(owner)]}
        made = {**body, "metadata": {**body["metadata"], **meta}}
        try:
            self.store.create(Place(place_of(made).resource, meta["namespace"], ""), made, "kube-controller-manager")
        except Refused as refused:
            return str(refused)
        self.made += 1
        return ""

    def write_status(self, body: Object, status: Object) -> None:
        """Keep a status where it says something new; times of what stays as it was stay, too."""
        now_ = self.store.get(place_of(body))
        old = now_.get("status", {})
        times = {each["type"]: each for each in old.get("conditions", ()) if isinstance(each, dict)}
        for each in status.get("conditions", ()):
            before = times.get(each["type"], {})
            same = before.get("status") == each["status"]
            each["lastTransitionTime"] = before["lastTransitionTime"] if same else now()
        if timeless(old) != timeless(status):
            self.store.put({**now_, "status": status})

    def tell(self, about: Object, kind: str, reason: str, message: str, source: str) -> None:
        """An event, once for an object, its reason and its message."""
        meta = about["metadata"]
        digest = hashlib.sha256(json.dumps([meta["uid"], reason, message]).encode()).hexdigest()[:16]
        namespace = meta.get("namespace", "default")
        at = Place(resource_of("v1", "Event"), namespace, f"{meta['name']}.{digest}")
        if self.store.has(at):
            return
        named = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in meta}
        self.store.put(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": at.name, "namespace": namespace},
                "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"], **named},
                "type": kind,
                "reason": reason,
                "message": message,
                "source": {"component": source},
                "count": 1,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
            }
        )

    def _live(self, pod: Object) -> None:
        """What becomes of a pod in this round."""
        at, phase = place_of(pod), pod.get("status", {}).get("phase")
        if pod["metadata"].get("deletionTimestamp") or phase in ("Succeeded", "Failed"):
            return
        state = self._state(pod)
        if not pod["spec"].get("nodeName") and not isinstance(state, Unschedulable):
            node, why = nodes.bind(pod, self.all("v1", "Node"), self.all("v1", "Pod"))
            if node:
                pod = self.store.put({**pod, "spec": {**pod["spec"], "nodeName": node}})
                self.tell(
                    pod,
                    "Normal",
                    "Scheduled",
                    f"Successfully assigned {at.namespace}/{at.name} to {node}",
                    "default-scheduler",
                )
            else:
                state = Unschedulable(why)
        lines = list(state.lines)
        for container in pod["spec"]["containers"]:
            key = (at.namespace, at.name, container["name"])
            restarted = state.status(pod).get("containerStatuses", [{}])[0].get("restartCount", 0)
            if restarted:
                self.store.previous_logs[key] = lines
            if lines and self.store.logs.get(key, [])[: len(lines)] != lines:
                self.store.logs[key] = lines
        self.write_status(pod, state.status(pod))
        source = "default-scheduler" if isinstance(state, Unschedulable) else "kubelet"
        for kind, reason, message in state.events(pod):
            self.tell(pod, kind, reason, message, source)

    def _state(self, pod: Object) -> PodState:
        labels, uid = pod["metadata"].get("labels", {}), pod["metadata"]["uid"]
        for wanted, state, taken, limit in reversed(self._scripts):
            if wanted.items() <= labels.items() and (uid in taken or limit is None or len(taken) < limit):
                taken.extend([] if uid in taken else [uid])
                return state
        job = any(one["kind"] == "Job" for one in pod["metadata"].get("ownerReferences", ()))
        return Ended() if job else Ready()


def reference(owner: Object) -> Object:
    """The entry of ownerReferences that a controller writes."""
    named = {key: owner["metadata"][key] for key in ("name", "uid")}
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        **named,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def timeless(value: object) -> object:
    """A status without its times."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if not key.endswith(("Time", "At", "lastUpdated"))}
    return [timeless(each) for each in value] if isinstance(value, list) else value
