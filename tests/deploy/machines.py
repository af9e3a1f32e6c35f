"""Machines: nodes with workers on them in the API stand-in, whose controllers are at work while time passes."""

from __future__ import annotations

from hyperpd.cluster.progress import Progress, Step
from hyperpd.cluster.state import Node
from hyperpd.deploy.drain import CORDONED
from tests.deploy.stuck import parts
from tests.deploy.stuck.parts import ENGINES, Object
from tests.fakes.kubernetes import Store
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes.pods import PodState, Ready, Starting
from tests.fakes.kubernetes.resources import place


class Machines:
    """Each node takes one worker. told: what a command said."""

    def __init__(self) -> None:
        self.store = Store((ENGINES,))
        self.controllers = Controllers(self.store)
        self.told: list[str] = []
        self.now = 0.0
        self._due: list[tuple[float, dict[str, str]]] = []

    def tell(self, progress: Progress) -> None:
        assert isinstance(progress, Step)
        self.told.append(progress.text)

    def node(self, name: str, gpus: int = 2, *, unschedulable: bool = False, ours: bool = False) -> Node:
        """A node of HyperPod's; prefill takes two GPUs, decode four. ours: cordoned by a drain."""
        body = parts.node(f"hyperpod-i-{name}", gpu=str(gpus)) | {"apiVersion": "v1", "kind": "Node", "spec": {}}
        body["spec"] |= {"unschedulable": True} if unschedulable else {}
        body["metadata"] |= {"annotations": {CORDONED: "drain"}} if ours else {}
        self.store.put(body)
        return Node(f"i-{name}", f"logical-{name}", "prefill", "ml.p5en.48xlarge", "Running", "", "")

    def others(self, name: str, gpus: int = 2) -> None:
        """A pod of somebody else's on a node, with so many of its GPUs."""
        asked = {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        pod = {"metadata": {"name": f"training-{name}", "namespace": ENGINES, "uid": f"uid-training-{name}"}}
        spec = {"nodeName": f"hyperpod-i-{name}", "containers": [{"name": "training", "image": "training"} | asked]}
        self.store.put({"apiVersion": "v1", "kind": "Pod", **pod, "spec": spec, "status": {"phase": "Running"}})

    def role(self, role: str, workers: int) -> None:
        """A Deployment with its budget, and its workers ready on the nodes that are free, by name."""
        for kind in ("Deployment", "PodDisruptionBudget"):
            body = parts.applied(kind, role)
            del body["status"]
            if kind == "Deployment":
                body["spec"]["replicas"] = workers
            self.store.put(body)
        self.controllers.settle()
        assert all(self.where(role))

    def want(self, role: str, workers: int) -> None:
        """Scale a role by its Deployment."""
        body = self.store.get(place(f"/apis/apps/v1/namespaces/{ENGINES}/deployments/{role}"))
        self.store.put({**body, "spec": {**body["spec"], "replicas": workers}})
        self.controllers.settle()

    def slow(self, role: str, time_s: float) -> None:
        """Workers that are made from now on take so long to be ready."""
        labels = {"app.kubernetes.io/component": role}
        self._script(Starting(), labels)
        self.controllers.script(Ready(), labels, pods=len(self.where(role)))
        self.controllers.step()  # those that are there are the ones that stay ready
        self._due.append((self.now + time_s, labels))

    def _script(self, state: PodState, labels: dict[str, str]) -> None:
        self.controllers.script(state, labels)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for due, labels in self._due:
            if self.now >= due:
                self._script(Ready(), labels)
        self._due = [one for one in self._due if one[0] > self.now]
        self.controllers.step()

    def pods(self) -> list[Object]:
        return list(self.store.list(place("/api/v1/pods"))["items"])

    def where(self, role: str) -> list[str]:
        """The nodes of a role's pods; "" for one that has none."""
        mine = [pod for pod in self.pods() if pod["metadata"]["name"].startswith(role)]
        return sorted(pod["spec"].get("nodeName", "").removeprefix("hyperpod-i-") for pod in mine)

    def nodes(self) -> dict[str, tuple[bool, bool]]:
        """Name → (cordoned, by us)."""
        found = self.store.list(place("/api/v1/nodes"))["items"]
        return {
            one["metadata"]["name"].removeprefix("hyperpod-i-"): (
                bool(one["spec"].get("unschedulable")),
                CORDONED in one["metadata"].get("annotations", {}),
            )
            for one in found
        }
