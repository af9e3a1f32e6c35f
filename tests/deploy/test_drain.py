"""Drains against the API stand-in: budgets hold, the last worker stays, and nodes are opened again whatever happens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyperpd.cluster import hyperpod
from hyperpd.cluster.file import parse
from hyperpd.cluster.patch import Drain
from hyperpd.cluster.progress import Progress, Step
from hyperpd.cluster.state import Node
from hyperpd.deploy import connect
from hyperpd.deploy.apply import Api
from hyperpd.deploy.drain import drain_of, on_slurm
from hyperpd.errors import CloudError, HyperpdError, NotReady, RecipeError
from tests.cluster.conftest import Account
from tests.deploy.machines import Machines
from tests.deploy.stuck import parts
from tests.deploy.stuck.parts import ENGINES
from tests.fakes.aws import Aws
from tests.fakes.kubernetes import kubeconfig, serve
from tests.fakes.kubernetes.resources import place


@pytest.fixture
def machines() -> Machines:
    return Machines()


@pytest.fixture
def api(machines: Machines, tmp_path: Path) -> Iterator[Api]:
    with serve(machines.store) as url, connect.kubeconfig(path=kubeconfig(tmp_path / "config", url)) as found:
        yield found


def _of(machines: Machines, api: Api, *, force: bool = False, sleep: Callable[[float], None] | None = None) -> Drain:
    """A drain by the cluster's own time, which passes while it waits: 20 looks."""
    return drain_of(
        api, force=force, timeout_s=20, poll_s=1, sleep=sleep or machines.pass_time, clock=lambda: machines.now
    )


def _drain(machines: Machines, api: Api, *nodes: Node, force: bool = False) -> list[str]:
    """Drain; which nodes are cordoned by it while it lasts."""
    with _of(machines, api, force=force)(nodes, machines.tell):
        return [name for name, (cordoned, ours) in machines.nodes().items() if cordoned and ours]


def test_workers_leave_one_after_the_other_and_come_back(machines: Machines, api: Api) -> None:
    a, b = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.node("c"), machines.node("d")
    machines.slow("prefill", 6)
    drain = _of(machines, api)
    with drain([a, b], machines.tell):
        assert machines.nodes() == {"a": (True, True), "b": (True, True), "c": (False, False), "d": (False, False)}
        assert not {"a", "b"} & set(machines.where("prefill"))
    assert all(machines.where("prefill"))  # each has a node again
    assert set(machines.nodes().values()) == {(False, False)}
    assert any("the last ready prefill" in one for one in machines.told), machines.told
    assert all(one != other for one, other in itertools.pairwise(machines.told))  # told when it moves
    evictions = [one for one in machines.store.requests if one.endswith("/eviction")]
    assert len(evictions) == 2
    cordons = [one for one in machines.store.requests if one.startswith("PATCH /api/v1/nodes")]
    assert machines.store.requests.index(cordons[1]) < machines.store.requests.index(evictions[0])


def test_a_budget_is_waited_for(machines: Machines, api: Api) -> None:
    nodes = [machines.node(name) for name in "abc"]
    machines.role("prefill", 3)
    for name in "xyz":
        machines.node(name)
    machines.slow("prefill", 2)
    with _of(machines, api)(nodes, machines.tell):
        assert not {"a", "b", "c"} & set(machines.where("prefill"))
    assert any("its disruption budget holds it" in one for one in machines.told), machines.told
    assert all(machines.where("prefill"))  # each has a node again


def test_the_last_worker_stays_where_no_node_takes_another(machines: Machines, api: Api) -> None:
    a, b = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.store.put(parts.node("hyperpod-i-o", "ml.m5.large") | {"apiVersion": "v1", "kind": "Node", "spec": {}})
    assert _drain(machines, api, a, b) == []
    (told,) = machines.told
    assert re.match(
        r"not drained: prefill in hyperpd-engines: prefill-\S+, prefill-\S+ is all .* no other node has room", told
    )
    assert "SIGTERM" in told
    assert not [one for one in machines.store.requests if not one.startswith("GET")]


def test_the_last_worker_stays_where_hyperpds_own_workers_fill_the_other_nodes(machines: Machines, api: Api) -> None:
    a, b = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.node("c", 4), machines.node("d", 5)
    machines.role("decode", 2)
    assert _drain(machines, api, a, b) == []
    assert re.match(r"not drained: prefill in hyperpd-engines: .* no other node has room for one", machines.told[0])
    assert not [one for one in machines.store.requests if not one.startswith("GET")]
    machines.node("e", 3)
    assert _drain(machines, api, a, b) == ["a", "b"]


def test_a_worker_that_starts_elsewhere_is_waited_for_before_the_last_goes(machines: Machines, api: Api) -> None:
    a, _ = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.slow("prefill", 6)
    (there,) = [pod for pod in machines.pods() if pod["spec"]["nodeName"] == "hyperpod-i-b"]
    api.delete("Pod", there["metadata"]["namespace"], there["metadata"]["name"])
    machines.controllers.settle()
    assert machines.where("prefill") == ["a", "b"]
    assert _drain(machines, api, a) == ["a"]
    assert any("the last ready prefill" in one for one in machines.told), machines.told


def test_a_group_wants_room_for_all_its_pods(machines: Machines, api: Api) -> None:
    nodes = _groups(machines)
    machines.node("e", 1)
    assert _drain(machines, api, nodes[0], nodes[2]) == []
    assert "no other node has room for one" in machines.told[0]


def test_what_was_not_drained_is_waited_for_all_the_same(machines: Machines, api: Api) -> None:
    a = machines.node("a")
    machines.role("prefill", 1)
    with _of(machines, api)([a], machines.tell):
        (pod,) = machines.pods()
        api.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        machines.slow("prefill", 3)
    assert [one for one in machines.told if one.startswith("after the drain: waits for prefill")]


def test_a_node_that_others_cordoned_takes_no_worker(machines: Machines, api: Api) -> None:
    a, b = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.node("c", unschedulable=True)
    _drain(machines, api, a, b)
    assert "no other node has room for one" in machines.told[0]


def test_a_pod_that_failed_is_not_waited_for(machines: Machines, api: Api) -> None:
    a = machines.node("a")
    machines.store.put(parts.pod(node="hyperpod-i-a", phase="Failed") | {"apiVersion": "v1", "kind": "Pod"})
    assert _drain(machines, api, a) == ["a"]
    assert not [one for one in machines.store.requests if one.endswith("/eviction")]


def test_one_alone_stays_since_none_would_come_before_it_goes(machines: Machines, api: Api) -> None:
    a = machines.node("a")
    machines.role("prefill", 1)
    machines.node("b")
    _drain(machines, api, a)
    assert "hyperpd scale NAME prefill=2" in machines.told[0]
    assert not [one for one in machines.store.requests if not one.startswith("GET")]


def test_force_takes_the_last_and_says_so(machines: Machines, api: Api) -> None:
    a, b = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    assert _drain(machines, api, a, b, force=True) == ["a", "b"]
    assert [one for one in machines.told if "deleted by force" in one]
    assert machines.where("prefill") == ["a", "b"]  # back, once the nodes were open


def test_time_runs_out_with_names_causes_and_a_command(machines: Machines, api: Api) -> None:
    """The third node has no pod of hyperpd's, so nothing is refused at once; but others have filled it."""
    a, b = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.node("c")
    machines.others("c")
    with pytest.raises(NotReady) as caught:
        _drain(machines, api, a, b)
    told = str(caught.value)
    last = next(pod["metadata"]["name"] for pod in machines.pods() if pod["spec"].get("nodeName"))
    assert f"{ENGINES}/{last}, the last ready prefill" in told
    assert "no node takes it: of 3 nodes 1 is short of nvidia.com/gpu, 2 are cordoned" in told
    assert "--force" in told
    assert "kubectl get pods" in told
    assert set(machines.nodes().values()) == {(False, False)}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), NotReady("rolled back")])
def test_nodes_are_opened_after_an_error_inside(machines: Machines, api: Api, error: BaseException) -> None:
    a, _ = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    with pytest.raises(type(error)), _of(machines, api)([a], machines.tell):
        raise error
    assert set(machines.nodes().values()) == {(False, False)}


def test_nodes_are_opened_after_ctrl_c_while_it_waits(machines: Machines, api: Api) -> None:
    a, _ = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    drain = _of(machines, api, sleep=interrupt)
    with pytest.raises(KeyboardInterrupt), drain([a], machines.tell):
        pytest.fail("not drained yet")
    assert set(machines.nodes().values()) == {(False, False)}


def test_nodes_of_others_stay_cordoned_and_those_of_a_killed_run_are_opened(machines: Machines, api: Api) -> None:
    nodes = [machines.node("theirs", unschedulable=True), machines.node("killed", unschedulable=True, ours=True)]
    _drain(machines, api, *nodes)
    assert machines.nodes() == {"theirs": (True, False), "killed": (False, False)}
    assert "drain: hyperpod-i-theirs was cordoned before, and stays so" in machines.told


def test_as_many_workers_as_before_are_waited_for(machines: Machines, api: Api) -> None:
    a, _ = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.slow("prefill", 10**6)
    with pytest.raises(NotReady, match=r"prefill in hyperpd-engines: 1 of 2 ready"):
        _drain(machines, api, a)
    assert set(machines.nodes().values()) == {(False, False)}


@pytest.mark.parametrize("left", [1, 0])
def test_workers_that_are_no_longer_wanted_are_not_waited_for(machines: Machines, api: Api, left: int) -> None:
    """Somebody scaled the role down, or took the deployment away, meanwhile."""
    a, _ = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    with _of(machines, api)([a], machines.tell):
        machines.want("prefill", left)
    assert len(machines.where("prefill")) == left
    assert machines.told[-1] == f"after the drain: prefill in hyperpd-engines: {left} wanted now, of 2 before"


def test_a_worker_that_nobody_has_made_again_yet_is_waited_for(machines: Machines, api: Api) -> None:
    """Between a pod's end and the next one's beginning there is none."""
    a = machines.node("a")
    machines.role("prefill", 1)
    with _of(machines, api)([a], machines.tell):
        (pod,) = machines.pods()
        at = place(f"/api/v1/namespaces/{ENGINES}/pods/{pod['metadata']['name']}")
        machines.store.delete(at)
        machines.store.finish(at)
        assert machines.where("prefill") == []
    assert machines.where("prefill") == ["a"]


def test_a_node_that_was_replaced_is_no_error(machines: Machines, api: Api) -> None:
    a = machines.node("a")
    with _of(machines, api)([a], machines.tell):
        machines.store.delete(place("/api/v1/nodes/hyperpod-i-a"))
    assert machines.nodes() == {}


def test_a_node_that_cannot_be_opened_is_named_with_the_command(machines: Machines, api: Api) -> None:
    a, b = machines.node("a"), machines.node("b")
    drain = _of(machines, api)
    with pytest.raises(CloudError, match="kubectl uncordon hyperpod-i-a"), drain([a, b], machines.tell):
        machines.store.admission.webhooks["no"] = lambda verb, at, body: "no" if at.name == "hyperpod-i-a" else None
    assert machines.nodes() == {"a": (True, True), "b": (False, False)}


def test_the_error_inside_outlives_a_node_that_cannot_be_opened(machines: Machines, api: Api) -> None:
    a = machines.node("a")

    def roll_back() -> None:
        with _of(machines, api)([a], machines.tell):
            machines.store.admission.webhooks["no"] = lambda *_: "no"
            raise NotReady("rolled back")

    with pytest.raises(NotReady, match="rolled back"):
        roll_back()
    assert "kubectl uncordon hyperpod-i-a" in machines.told[-1]


def test_a_node_without_a_machine_is_told(machines: Machines, api: Api) -> None:
    missing = Node("", "logical-1", "prefill", "ml.p5en.48xlarge", "Pending", "", "")
    _drain(machines, api, missing)
    assert machines.told == ["drain: node prefill/logical-1 is not in Kubernetes: nothing runs on it"]


def test_a_pod_that_ends_slowly_is_waited_for_and_no_worker_any_more(machines: Machines, api: Api) -> None:
    """Its engine still answers: Ready, until it is gone."""
    a, b = machines.node("a"), machines.node("b")
    machines.role("prefill", 2)
    machines.controllers.linger(*(pod["metadata"]["name"] for pod in machines.pods()))
    machines.node("c")
    machines.others("c")
    with pytest.raises(NotReady, match=r"the last ready prefill") as caught:
        _drain(machines, api, a, b)
    assert re.search(r"prefill-\S+ to end \(within \d+ s\)\n", str(caught.value))
    assert len([one for one in machines.store.requests if one.endswith("/eviction")]) == 1


def test_a_node_of_another_name_is_known_by_its_machine(machines: Machines, api: Api) -> None:
    node = machines.node("a")
    there = parts.node("ip-10-0-0-1") | {"apiVersion": "v1", "kind": "Node"}
    machines.store.delete(place("/api/v1/nodes/hyperpod-i-a"))
    machines.store.put({**there, "spec": {"providerID": "aws:///use2-az1/sagemaker/cluster/hyperpod-abc-i-a"}})
    assert _drain(machines, api, node) == ["ip-10-0-0-1"]


def test_a_group_of_pods_is_one_worker(machines: Machines, api: Api) -> None:
    """Of two groups over two machines each, one pod of the first leaves, and so the second is the last worker."""
    nodes = _groups(machines)
    machines.node("e")
    machines.others("e")
    with pytest.raises(NotReady, match="the last ready prefill"):
        _drain(machines, api, nodes[0], nodes[2])
    assert len([one for one in machines.store.requests if one.endswith("/eviction")]) == 1


def _groups(machines: Machines) -> list[Node]:
    """Nodes a to d, with two groups of two pods."""
    nodes = [machines.node(name) for name in "abcd"]
    machines.role("prefill", 4)
    for number, pod in enumerate(sorted(machines.pods(), key=lambda one: one["spec"]["nodeName"])):
        lws = "leaderworkerset.sigs.k8s.io"
        pod["metadata"]["labels"] |= {f"{lws}/name": "prefill-groups", f"{lws}/group-index": str(number // 2)}
        pod["metadata"].setdefault("annotations", {})[f"{lws}/size"] = "2"
        machines.store.put(pod)
    return nodes


def test_slurm_is_told_and_not_called_drained() -> None:
    told: list[Progress] = []
    nodes = [Node("i-1", "", "prefill", "ml.p5en.48xlarge", "Running", "", "")]
    with on_slurm(nodes, told.append):
        pass
    assert isinstance(told[0], Step)
    assert told[0].text.startswith("not drained: i-1.")
    assert "scontrol update nodename=" in told[0].text


def test_an_api_that_refuses_ends_the_drain(machines: Machines, api: Api) -> None:
    a = machines.node("a")
    machines.store.admission.webhooks["no"] = lambda *_: "not today"
    with pytest.raises(HyperpdError, match="not today"):
        _drain(machines, api, a)


def test_patching_leaves_a_worker_of_each_role_and_waits_between_them(
    machines: Machines, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HyperPod's stand-in patches what the drain has emptied; the decode group goes when prefill is whole again."""
    with Aws() as aws:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        here = Account(aws)
        cluster = hyperpod.Cluster.create(parse(here.eks(), "c"), check=False)
        cluster.wait(poll_s=0, new=True)
        here.control.account.latest = "1.5.0"
        _patch(here, cluster, machines, api)


def _patch(here: Account, cluster: hyperpod.Cluster, machines: Machines, api: Api) -> None:
    prefill, decode = cluster.nodes("prefill"), cluster.nodes("decode")
    for role, nodes, gpus in (("prefill", prefill, 2), ("decode", decode, 4)):
        for node in nodes:
            machines.node(node.id.removeprefix("i-"), gpus)
        machines.role(role, len(nodes))
    machines.node("spare1"), machines.node("spare2", 4)
    order: list[str] = []

    def tell(progress: Progress) -> None:
        if isinstance(progress, Step):
            order.append(progress.text)

    with pytest.raises(RecipeError, match=f"decode: {decode[0].id} is all that is healthy of it"):
        cluster.patch(["decode"], tell, drain=_of(machines, api), poll_s=0)
    assert not here.gate.named("UpdateClusterSoftware")
    machines.slow("prefill", 5)
    cluster.patch((), tell, drain=_of(machines, api, force=True), force=True, poll_s=0)
    assert len(here.gate.named("UpdateClusterSoftware")) == 2
    whole = next(at for at, text in enumerate(order) if text.startswith("after the drain: waits for prefill"))
    assert order.index(f"drain: hyperpod-{decode[0].id} cordoned") > whole
    assert set(machines.nodes().values()) == {(False, False)}
