"""Drains against the API stand-in: budgets hold, the last worker stays, and nodes are opened again whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperpd.cluster.patch import Drain
from hyperpd.cluster.progress import Progress, Step
from hyperpd.cluster.state import Node
from hyperpd.deploy import connect
from hyperpd.deploy.apply import Api
from hyperpd.deploy.drain import CORDONED, drain_of, on_slurm
from hyperpd.errors import CloudError, HyperpdError, NotReady, RecipeError
from tests.deploy.stuck import parts
from tests.deploy.stuck.parts import ENGINES, Object
from tests.fakes.kubernetes import Store, kubeconfig, serve
from tests.fakes.kubernetes.resources import place


class Cluster:
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


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def api(cluster: Cluster, tmp_path: Path) -> Iterator[Api]:
    with serve(cluster.store) as url, connect.kubeconfig(path=kubeconfig(tmp_path / "config", url)) as found:
        yield found


def _of(cluster: Cluster, api: Api, *, force: bool = False, sleep: Callable[[float], None] | None = None) -> Drain:
    """A drain by the cluster's own time, which passes while it waits: 20 looks."""
    return drain_of(
        api, force=force, timeout_s=20, poll_s=1, sleep=sleep or cluster.pass_time, clock=lambda: cluster.now
    )


def _drain(cluster: Cluster, api: Api, *nodes: Node, force: bool = False) -> list[str]:
    """Drain; which nodes are cordoned by it while it lasts."""
    with _of(cluster, api, force=force)(nodes, cluster.tell):
        return [name for name, (cordoned, ours) in cluster.nodes().items() if cordoned and ours]


def test_workers_leave_one_after_the_other_and_come_back(cluster: Cluster, api: Api) -> None:
    a, b = cluster.node("a"), cluster.node("b")
    cluster.node("c"), cluster.node("d")
    cluster.role("prefill", a, b)
    cluster.slow = 3
    drain = _of(cluster, api)
    with drain([a, b], cluster.tell):
        assert cluster.nodes() == {"a": (True, True), "b": (True, True), "c": (False, False), "d": (False, False)}
        assert not {"a", "b"} & set(cluster.where("prefill"))
    assert all(cluster.where("prefill"))  # each has a node again
    assert set(cluster.nodes().values()) == {(False, False)}
    assert any("the last ready prefill" in one for one in cluster.told), cluster.told
    evictions = [one for one in cluster.store.requests if one.endswith("/eviction")]
    assert len(evictions) == 2
    cordons = [one for one in cluster.store.requests if one.startswith("PATCH /api/v1/nodes")]
    assert cluster.store.requests.index(cordons[1]) < cluster.store.requests.index(evictions[0])


def test_a_budget_is_waited_for(cluster: Cluster, api: Api) -> None:
    nodes = [cluster.node(name) for name in "abc"]
    for name in "xyz":
        cluster.node(name)
    cluster.role("prefill", *nodes)
    cluster.slow = 2
    with _of(cluster, api)(nodes, cluster.tell):
        assert not {"a", "b", "c"} & set(cluster.where("prefill"))
    assert any("its disruption budget holds it" in one for one in cluster.told), cluster.told
    assert all(cluster.where("prefill"))  # each has a node again


def test_the_last_worker_is_refused_before_anything_changes(cluster: Cluster, api: Api) -> None:
    a, b, other = cluster.node("a"), cluster.node("b"), cluster.node("o")
    cluster.store.put(parts.node("hyperpod-i-o", "ml.m5.large") | {"apiVersion": "v1", "kind": "Node", "spec": {}})
    cluster.role("prefill", a, b)
    cluster.role("decode", other)
    with pytest.raises(
        RecipeError, match=r"prefill in hyperpd-engines: prefill-\S+, prefill-\S+ is all .* no other node"
    ):
        _drain(cluster, api, a, b)
    assert not [one for one in cluster.store.requests if not one.startswith("GET")]


def test_one_alone_is_refused_since_none_would_come_before_it_goes(cluster: Cluster, api: Api) -> None:
    a, _ = cluster.node("a"), cluster.node("b")
    cluster.role("decode", a)
    with pytest.raises(RecipeError, match="hyperpd scale NAME decode=2"):
        _drain(cluster, api, a)
    assert not [one for one in cluster.store.requests if not one.startswith("GET")]


def test_force_takes_the_last_and_says_so(cluster: Cluster, api: Api) -> None:
    a, b = cluster.node("a"), cluster.node("b")
    cluster.role("prefill", a, b)
    assert _drain(cluster, api, a, b, force=True) == ["a", "b"]
    assert [one for one in cluster.told if "deleted by force" in one]
    assert cluster.where("prefill") == ["a", "b"]  # back, once the nodes were open


def test_time_runs_out_with_names_causes_and_a_command(cluster: Cluster, api: Api) -> None:
    a, _ = cluster.node("a"), cluster.node("b")
    cluster.role("prefill", a, cluster.node("c"))
    c = Node("i-c", "", "prefill", "ml.p5en.48xlarge", "Running", "", "", None)
    cluster.scheduler = False
    with pytest.raises(NotReady) as caught:
        _drain(cluster, api, a, c)
    told = str(caught.value)
    assert f"{ENGINES}/prefill-6f7c9d8b5-x0001, the last ready prefill" in told
    assert "no node takes it: of 2 nodes 2 are cordoned" in told
    assert "--force" in told
    assert "kubectl get pods" in told
    assert set(cluster.nodes().values()) == {(False, False)}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NotReady("rolled back")])
def test_nodes_are_opened_after_an_error_inside(cluster: Cluster, api: Api, error: BaseException) -> None:
    a = cluster.node("a")
    cluster.node("c")
    cluster.role("prefill", a, cluster.node("b"))
    with pytest.raises(type(error)), _of(cluster, api)([a], cluster.tell):
        raise error
    assert set(cluster.nodes().values()) == {(False, False)}


def test_nodes_are_opened_after_ctrl_c_while_it_waits(cluster: Cluster, api: Api) -> None:
    a = cluster.node("a")
    cluster.node("c")
    cluster.role("prefill", a, cluster.node("b"))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    drain = _of(cluster, api, sleep=interrupt)
    with pytest.raises(KeyboardInterrupt), drain([a], cluster.tell):
        pytest.fail("not drained yet")
    assert set(cluster.nodes().values()) == {(False, False)}


def test_nodes_of_others_stay_cordoned_and_those_of_a_killed_run_are_opened(cluster: Cluster, api: Api) -> None:
    nodes = [cluster.node("theirs", unschedulable=True), cluster.node("killed", unschedulable=True, ours=True)]
    _drain(cluster, api, *nodes)
    assert cluster.nodes() == {"theirs": (True, False), "killed": (False, False)}
    assert "drain: hyperpod-i-theirs was cordoned before, and stays so" in cluster.told


def test_as_many_workers_as_before_are_waited_for(cluster: Cluster, api: Api) -> None:
    a, b = cluster.node("a"), cluster.node("b")
    cluster.role("decode", a, b)
    cluster.slow = 10**6
    with pytest.raises(NotReady, match=r"decode in hyperpd-engines: 1 of 2 ready"):
        _drain(cluster, api, a)
    assert set(cluster.nodes().values()) == {(False, False)}


def test_a_node_that_was_replaced_is_no_error(cluster: Cluster, api: Api) -> None:
    a = cluster.node("a")
    with _of(cluster, api)([a], cluster.tell):
        cluster.store.delete(place("/api/v1/nodes/hyperpod-i-a"))
    assert cluster.nodes() == {}


def test_a_node_that_cannot_be_opened_is_named_with_the_command(cluster: Cluster, api: Api) -> None:
    a, b = cluster.node("a"), cluster.node("b")
    drain = _of(cluster, api)
    with pytest.raises(CloudError, match="kubectl uncordon hyperpod-i-a"), drain([a, b], cluster.tell):
        cluster.store.admission.webhooks["no"] = lambda verb, at, body: "no" if at.name == "hyperpod-i-a" else None
    assert cluster.nodes() == {"a": (True, True), "b": (False, False)}


def test_the_error_inside_outlives_a_node_that_cannot_be_opened(cluster: Cluster, api: Api) -> None:
    a = cluster.node("a")

    def roll_back() -> None:
        with _of(cluster, api)([a], cluster.tell):
            cluster.store.admission.webhooks["no"] = lambda *_: "no"
            raise NotReady("rolled back")

    with pytest.raises(NotReady, match="rolled back"):
        roll_back()
    assert "kubectl uncordon hyperpod-i-a" in cluster.told[-1]


def test_a_node_without_a_machine_is_told(cluster: Cluster, api: Api) -> None:
    missing = Node("", "logical-1", "prefill", "ml.p5en.48xlarge", "Pending", "", "", None)
    _drain(cluster, api, missing)
    assert cluster.told == ["drain: node prefill/logical-1 is not in Kubernetes: nothing runs on it"]


def test_a_group_of_pods_is_one_worker(cluster: Cluster, api: Api) -> None:
    """Of two groups over two machines each, one pod of the first leaves: its group goes, and the second is the last."""
    nodes = [cluster.node(name) for name in "abcd"]
    cluster.role("prefill", *nodes, budget=False)
    for number, pod in enumerate(cluster.pods()):
        pod["metadata"]["labels"] |= {
            "leaderworkerset.sigs.k8s.io/name": "prefill-groups",
            "leaderworkerset.sigs.k8s.io/group-index": str(number // 2),
        }
        pod["metadata"].setdefault("annotations", {})["leaderworkerset.sigs.k8s.io/size"] = "2"
        cluster.store.put(pod)
    cluster.scheduler = False
    cluster.node("e")
    with pytest.raises(NotReady, match="the last ready prefill"):
        _drain(cluster, api, nodes[0], nodes[2])
    assert [one for one in cluster.store.requests if one.endswith("/eviction")] == [
        f"POST /api/v1/namespaces/{ENGINES}/pods/prefill-6f7c9d8b5-x0000/eviction"
    ]


def test_slurm_is_told_and_not_called_drained() -> None:
    told: list[Progress] = []
    nodes = [Node("i-1", "", "prefill", "ml.p5en.48xlarge", "Running", "", "", None)]
    with on_slurm(nodes, told.append):
        pass
    assert isinstance(told[0], Step)
    assert told[0].text.startswith("not drained: i-1.")
    assert "scontrol update nodename=" in told[0].text


def test_an_api_that_refuses_ends_the_drain(cluster: Cluster, api: Api) -> None:
    a = cluster.node("a")
    cluster.store.admission.webhooks["no"] = lambda *_: "not today"
    with pytest.raises(HyperpdError, match="not today"):
        _drain(cluster, api, a)
