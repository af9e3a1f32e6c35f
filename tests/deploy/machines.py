"""Machines: nodes and pods in the API stand-in, and what kubelets, a scheduler and controllers do as time passes."""

from __future__ import annotations

from hyperpd.cluster.progress import Progress, Step
from hyperpd.cluster.state import Node
from hyperpd.deploy.drain import CORDONED
from tests.deploy.stuck import parts
from tests.deploy.stuck.parts import ENGINES, Object
from tests.fakes.kubernetes import Store
from tests.fakes.kubernetes.resources import place


class Machines:
    """Nodes and pods, and what a kubelet, a scheduler and a Deployment's controller do when `pass_time` is called."""

    def __init__(self) -> None:
        self.store = Store(("hyperpd", ENGINES))
        self.told: list[str] = []
        self.slow = 0  # how often time passes before a new pod is ready
        self.scheduler = True
        self.now = 0.0
        self._ages: dict[str, int] = {}
        self._made = 100

    def tell(self, progress: Progress) -> None:
        assert isinstance(progress, Step)
        self.told.append(progress.text)

    def node(self, name: str, *, unschedulable: bool = False, ours: bool = False) -> Node:
        body = parts.node(f"hyperpod-i-{name}") | {"apiVersion": "v1", "kind": "Node", "spec": {}}
        body["spec"] |= {"unschedulable": True} if unschedulable else {}
        body["metadata"] |= {"annotations": {CORDONED: "drain"}} if ours else {}
        self.store.put(body)
        return Node(f"i-{name}", f"logical-{name}", "prefill", "ml.p5en.48xlarge", "Running", "", "", None)

    def role(self, role: str, *nodes: Node, budget: bool = True) -> None:
        """A Deployment with a ready worker on each of these nodes, and its budget."""
        body = parts.applied("Deployment", role)
        body["spec"]["replicas"] = len(nodes)
        owner = self.store.put(body)
        if budget:
            self.store.put(parts.applied("PodDisruptionBudget", role))
        for number, node in enumerate(nodes):
            self._pod(owner, number, f"hyperpod-{node.id}", True)

    def _pod(self, owner: Object, number: int, node: str, ready: bool) -> None:
        role = owner["metadata"]["name"]
        body = parts.pod(role, number, node=node, phase="Running" if node else "Pending")
        body |= {"apiVersion": "v1", "kind": "Pod"}
        del body["metadata"]["uid"]
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": role, "controller": True}
        body["metadata"]["ownerReferences"] = [reference | {"uid": owner["metadata"]["uid"]}]
        said = parts.condition("Ready", str(ready), "", "")
        body["status"]["conditions"] = [said] if node else [_NO_NODE]
        self.store.put(body)

    def pods(self) -> list[Object]:
        return self.store.list(place("/api/v1/pods"))["items"]

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

    def pass_time(self, seconds: float) -> None:
        """Pods that are due get ready, new ones are made and placed, one on a node."""
        self.now += seconds
        for owner in self.store.list(place("/apis/apps/v1/deployments"))["items"]:
            mine = [pod for pod in self.pods() if _owned(pod, owner)]
            for pod in mine:
                name = pod["metadata"]["name"]
                self._ages[name] = self._ages.get(name, 0) + 1
                open_ = self._open() if self.scheduler else []
                if not pod["spec"].get("nodeName") and open_:
                    pod["spec"]["nodeName"] = open_[0]
                    pod["status"] = {"phase": "Running", "conditions": [parts.condition("Ready", "False", "", "")]}
                elif pod["spec"].get("nodeName") and self._ages[name] > self.slow:
                    pod["status"]["conditions"] = [parts.condition("Ready", "True", "", "")]
                self.store.put(pod)
            for _number in range(owner["spec"]["replicas"] - len(mine)):
                self._made += 1
                self._pod(owner, self._made, "", False)

    def _open(self) -> list[str]:
        taken = {pod["spec"].get("nodeName") for pod in self.pods()}
        names = [f"hyperpod-i-{name}" for name, (cordoned, _) in self.nodes().items() if not cordoned]
        return [name for name in names if name not in taken]


_NO_NODE = parts.condition(
    "PodScheduled", "False", "Unschedulable", "0/2 nodes are available: 2 node(s) were unschedulable."
)


def _owned(pod: Object, owner: Object) -> bool:
    return any(one["uid"] == owner["metadata"]["uid"] for one in pod["metadata"].get("ownerReferences", ()))
