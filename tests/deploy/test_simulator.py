"""The scheduler, the pods of a LeaderWorkerSet and pod security, by hand-written pods."""

from __future__ import annotations

from fractions import Fraction

from tests.deploy import objects_security, simulator
from tests.deploy.objects import Pod, pods, quantity
from tests.deploy.simulator import GPU, HOSTNAME, ZONE

KIND = "ml.p5.48xlarge"
TOLERATES = [{"key": GPU, "operator": "Exists"}]


def _pod(called, labels=(), gpus=1, **spec):
    container = {"name": "c", "resources": {"limits": {GPU: gpus} if gpus else {"cpu": 1}}}
    return Pod(called, "ours", dict(labels), {"containers": [container], "tolerations": TOLERATES, **spec}, "Pod/x")


def _term(key, **labels):
    return {"topologyKey": key, "labelSelector": {"matchLabels": labels}}


def _required(kind, *terms):
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def test_quantities():
    amounts = {"1": 1, "500m": Fraction(1, 2), "2Gi": 2 * 2**30, "1k": 1000, "1.5": Fraction(3, 2)}
    assert {text: quantity(text) for text in amounts} == amounts


def test_a_request_has_to_fit():
    outcome = simulator.place([_pod(str(i), gpus=3) for i in range(4)], simulator.nodes(KIND, 1))
    assert len(outcome.placed) == 2
    assert outcome.pending["3"] == {"insufficient nvidia.com/gpu": 1}


def test_a_taint_has_to_be_tolerated_and_a_selector_to_match():
    cluster = simulator.nodes(KIND, 1)
    assert simulator.place([_pod("a", tolerations=[])], cluster).pending["a"] == {"taint nvidia.com/gpu": 1}
    assert simulator.place([_pod("b", nodeSelector={ZONE: "elsewhere"})], cluster).pending
    term = {"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": [cluster[0].name]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    assert simulator.place([_pod("c", affinity=affinity)], cluster).pending["c"] == {"node affinity": 1}


def test_the_first_of_a_self_affine_set_is_let_in_and_the_others_follow():
    cluster = [*simulator.nodes(KIND, 1, "a"), *simulator.nodes(KIND, 1, "b")]
    together = _required("podAffinity", _term(ZONE, app="x"))
    outcome = simulator.place([_pod(str(i), {"app": "x"}, affinity=together) for i in range(9)], cluster)
    assert len({node.labels[ZONE] for node in outcome.placed.values()}) == 1
    assert len(outcome.pending) == 1
    stranger = _pod("stranger", {"app": "y"}, gpus=0, affinity=_required("podAffinity", _term(ZONE, app="z")))
    assert simulator.place([stranger], cluster).pending["stranger"] == {f"affinity by {ZONE}": 2}


def test_a_pod_waits_for_the_one_it_wants_to_be_with():
    follower = _pod("follower", {"app": "y"}, affinity=_required("podAffinity", _term(HOSTNAME, app="x")))
    outcome = simulator.place([follower, _pod("x", {"app": "x"})], simulator.nodes(KIND, 2))
    assert outcome.placed["follower"] is outcome.placed["x"]


def test_anti_affinity_holds_in_both_directions():
    keeps_off = _pod("a", {"app": "a"}, affinity=_required("podAntiAffinity", _term(HOSTNAME, app="b")))
    plain = _pod("b", {"app": "b"})
    for order in ([keeps_off, plain], [plain, keeps_off]):
        assert len(simulator.place(order, simulator.nodes(KIND, 1)).pending) == 1
        assert not simulator.place(order, simulator.nodes(KIND, 2)).pending


def test_spread_counts_per_domain():
    rule = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    rule["labelSelector"] = {"matchLabels": {"app": "x"}}
    cluster = [*simulator.nodes(KIND, 1, "a"), *simulator.nodes(KIND, 1, "b")]
    cluster[1].allocatable[GPU] = Fraction(1)
    outcome = simulator.place([_pod(str(i), {"app": "x"}, topologySpreadConstraints=[rule]) for i in range(4)], cluster)
    assert len(outcome.placed) == 3  # two and one; a fourth would make it three and one


def test_preferences_decide_among_nodes_that_fit():
    wish = {"weight": 100, "podAffinityTerm": _term(HOSTNAME, app="x")}
    affinity = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}
    packed = simulator.place(
        [_pod(str(i), {"app": "x"}, affinity=affinity) for i in range(4)], simulator.nodes(KIND, 2)
    )
    spread = simulator.place([_pod(str(i), {"app": "x"}) for i in range(4)], simulator.nodes(KIND, 2))
    assert len({node.name for node in packed.placed.values()}) == 1
    assert len({node.name for node in spread.placed.values()}) == 2


def test_a_group_of_a_leader_worker_set_has_labels_of_its_own():
    spec = {"containers": [{"name": "c"}]}
    body = {
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "d", "annotations": {"leaderworkerset.sigs.k8s.io/exclusive-topology": HOSTNAME}},
        "spec": {"replicas": 2, "leaderWorkerTemplate": {"size": 2, "workerTemplate": {"spec": spec}}},
    }
    made = pods([body])
    assert [(pod.name, pod.leads) for pod in made] == [("d-0", True), ("d-0-1", False), ("d-1", True), ("d-1-1", False)]
    outcome = simulator.place(made, simulator.cpu_nodes(2))
    assert outcome.placed["d-0"] is outcome.placed["d-0-1"]
    assert outcome.placed["d-0"] is not outcome.placed["d-1"]


def test_security_levels():
    harmless = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    harmless["seccompProfile"] = {"type": "RuntimeDefault"}
    spec = {"containers": [{"name": "c", "securityContext": harmless}], "volumes": [{"name": "v", "emptyDir": {}}]}
    assert list(objects_security.restricted(spec)) == []
    assert len(list(objects_security.restricted({"containers": [{"name": "c"}]}))) == 4
    for broken in (
        {"hostIPC": True},
        {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "c", "securityContext": {"privileged": True}}]},
        {"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}}}]},
        {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 1}]}]},
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    ):
        assert len(list(objects_security.baseline({**spec, **broken}))) == 1, broken
