"""place(pods, nodes) → where Kubernetes' scheduler puts them, and why it leaves others pending.

Held to: requests, nodeSelector, node affinity, taints, required pod affinity and anti-affinity in both
directions, topology spread with DoNotSchedule, ports of the node. Among nodes that fit, the one that
preferred affinities speak for wins, then the one with the least requested, as by default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hyperpd import instances
from tests.deploy.objects import Object, Pod, expression, quantity, selects

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
HEALTH = "sagemaker.amazonaws.com/node-health-status"
GPU, EFA, HUGEPAGES = "nvidia.com/gpu", "vpc.amazonaws.com/efa", "hugepages-2Mi"
DISK = "ephemeral-storage"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_EFA_HUGEPAGES = 5128  # what the EFA installer reserves on a machine, 2 MiB each
_DISK = "90G"  # of a root volume of 100 GB


@dataclass
class Node:
    """A machine of a cluster, and the pods on it."""

    labels: dict[str, str]
    taints: list[Object]
    allocatable: dict[str, Fraction]
    pods: list[Pod] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.labels[HOSTNAME]

    def free(self, resource: str) -> Fraction:
        used = sum((pod.requests.get(resource, Fraction(0)) for pod in self.pods), Fraction(0))
        return self.allocatable.get(resource, Fraction(0)) - used


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the pods. pending: pod → reason → how many nodes it holds for."""

    placed: Mapping[str, Node]
    pending: Mapping[str, Mapping[str, int]]


def nodes(
    instance_type: str, count: int, zone: str = "use2-az1", *, health: str = "Schedulable", hyperpod: bool = True
) -> list[Node]:
    """Machines of one type. GPU machines are tainted, as their node groups commonly are.

    Off HyperPod an instance type has no "ml." and no health is written on a node. A HyperPod node that is
    not schedulable has its health as a taint, too.
    """
    kind = instances.find(instance_type)
    made = []
    for ordinal in range(count):
        labels = {
            HOSTNAME: f"{instance_type}-{zone}-{ordinal}",
            ZONE: zone,
            INSTANCE_TYPE: instance_type if hyperpod else instance_type.removeprefix("ml."),
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        taints: list[Object] = [{"key": GPU, "effect": "NoSchedule"}] if kind.gpus else []
        if hyperpod:
            labels[HEALTH] = health
            labels["sagemaker.amazonaws.com/compute-type"] = "hyperpod"
            if health != "Schedulable":
                taints.append({"key": HEALTH, "value": health, "effect": "NoSchedule"})
        made.append(Node(labels, taints, _allocatable(kind)))
    return made


def cpu_nodes(
    count: int, zone: str = "use2-az1", *, vcpus: int = 16, gib: int = 64, hyperpod: bool = True
) -> list[Node]:
    """Machines without a GPU and without a taint, for gateways and CPU recipes: like an ml.m5.4xlarge."""
    made = []
    for ordinal in range(count):
        labels = {HOSTNAME: f"cpu-{zone}-{ordinal}", ZONE: zone, INSTANCE_TYPE: "ml." * hyperpod + "m5.4xlarge"}
        labels |= {HEALTH: "Schedulable"} if hyperpod else {}
        labels |= {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        allocatable = {"cpu": Fraction(vcpus) - quantity("200m"), "memory": Fraction(gib * 2**30 * 9, 10)}
        allocatable[DISK] = quantity(_DISK)
        made.append(Node(labels, [], allocatable))
    return made


def _allocatable(kind: instances.InstanceType) -> dict[str, Fraction]:
    """What kubelet offers: a tenth of the memory goes to firmware, kernel and kubelet, huge pages besides."""
    huge = quantity(f"{_EFA_HUGEPAGES * 2}Mi") if kind.efa else Fraction(0)
    return {
        "cpu": Fraction(kind.vcpus) - quantity("200m"),
        "memory": Fraction(kind.ram_gib * 2**30 * 9, 10) - huge,
        DISK: quantity(_DISK),
        GPU: Fraction(kind.gpus),
        EFA: Fraction(kind.efa),
        HUGEPAGES: huge,
    }


def place(pods: Iterable[Pod], cluster: Sequence[Node]) -> Outcome:
    """Put each pod, in order, on a node of the cluster; pods that fit nowhere are tried again at the end.

    Nodes keep what is put on them. A pod that fits only once a later one runs (affinity) is no failure.
    """
    waiting, placed = list(pods), dict[str, Node]()
    while True:
        pending: dict[str, Mapping[str, int]] = {}
        for pod in waiting:
            reasons = {node.name: next(refusals(pod, node, cluster), "") for node in cluster}
            fitting = [node for node in cluster if not reasons[node.name]]
            if fitting:
                node = min(fitting, key=lambda node: (-preference(pod, node, cluster), *_load(node)))
                node.pods.append(pod)
                placed[pod.name] = node
            else:
                pending[pod.name] = Counter(reasons.values())
        if len(pending) in (0, len(waiting)):
            return Outcome(placed, pending)
        waiting = [pod for pod in waiting if pod.name in pending]


def _load(node: Node) -> tuple[Fraction, str]:
    shares = [
        1 - node.free(what) / has for what, has in node.allocatable.items() if what in ("cpu", "memory", GPU) and has
    ]
    return sum(shares, Fraction(0)) / len(shares), node.name


def preference(pod: Pod, node: Node, cluster: Sequence[Node]) -> int:
    """The weight of what a pod, and those that run, would like."""
    affinity = pod.spec.get("affinity", {})
    total = sum(
        term["weight"]
        for term in affinity.get("nodeAffinity", {}).get(_PREFERRED, ())
        if _node_term(term["preference"], node)
    )
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for wish in affinity.get(kind, {}).get(_PREFERRED, ()):
            term = wish["podAffinityTerm"]
            near = _domain(node, term["topologyKey"], cluster)
            total += sign * wish["weight"] * sum(_matches(term, pod, other) for other in near)
    return total


def refusals(pod: Pod, node: Node, cluster: Sequence[Node]) -> Iterator[str]:
    """Why a node does not take a pod."""
    spec = pod.spec
    for key, value in spec.get("nodeSelector", {}).items():
        if node.labels.get(key) != value:
            yield f"nodeSelector {key}: {value}, the node has {node.labels.get(key)}"
    wanted = spec.get("affinity", {}).get("nodeAffinity", {}).get(_REQUIRED)
    if wanted and not any(_node_term(term, node) for term in wanted["nodeSelectorTerms"]):
        yield "node affinity"
    for taint in node.taints:
        if taint["effect"] != "PreferNoSchedule" and not any(map(_tolerates(taint), spec.get("tolerations", ()))):
            yield f"taint {taint['key']}"
    for resource, amount in pod.requests.items():
        if amount > node.free(resource):
            yield f"insufficient {resource}"
    for port in _host_ports(pod) & {port for other in node.pods for port in _host_ports(other)}:
        yield f"port {port} of the node is taken"
    yield from _affinity(pod, node, cluster)
    yield from _anti_affinity(pod, node, cluster)
    yield from _spread(pod, node, cluster)


def _node_term(term: Object, node: Node) -> bool:
    fields = {"metadata.name": node.name}
    return all(expression(each, node.labels) for each in term.get("matchExpressions", ())) and all(
        expression(each, fields) for each in term.get("matchFields", ())
    )


def _tolerates(taint: Object) -> Callable[[Object], bool]:
    def check(toleration: Object) -> bool:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            return False
        if toleration.get("operator", "Equal") == "Exists":
            return toleration.get("key") in (None, "", taint["key"])
        return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")

    return check


def _host_ports(pod: Pod) -> set[int]:
    key = "containerPort" if pod.spec.get("hostNetwork") else "hostPort"
    return {port[key] for container in pod.containers for port in container.get("ports", ()) if key in port}


def _terms(pod: Pod, kind: str) -> Sequence[Object]:
    return pod.spec.get("affinity", {}).get(kind, {}).get(_REQUIRED, ())


def _matches(term: Object, owner: Pod, other: Pod) -> bool:
    """Whether `other` is one of those that a term of `owner` speaks of."""
    if "namespaceSelector" not in term and other.namespace not in term.get("namespaces", [owner.namespace]):
        return False
    same = all(other.labels.get(key) == owner.labels.get(key) for key in term.get("matchLabelKeys", ()))
    return same and selects(term.get("labelSelector"), other.labels)


def _domain(node: Node, key: str, cluster: Sequence[Node]) -> list[Pod]:
    """The pods in the same zone, on the same machine …"""
    return [pod for each in cluster if each.labels.get(key) == node.labels.get(key) for pod in each.pods]


def _affinity(pod: Pod, node: Node, cluster: Sequence[Node]) -> Iterator[str]:
    terms = _terms(pod, "podAffinity")
    everywhere = [other for each in cluster for other in each.pods]
    # The first of a set that wants to be together is let in where it matches its own terms.
    first = not any(_matches(term, pod, other) for term in terms for other in everywhere)
    if first and all(_matches(term, pod, pod) for term in terms):
        terms_to_meet: Sequence[Object] = ()
    else:
        terms_to_meet = terms
    for term in terms:
        if term["topologyKey"] not in node.labels:
            yield f"the node has no {term['topologyKey']}"
    for term in terms_to_meet:
        if not any(_matches(term, pod, other) for other in _domain(node, term["topologyKey"], cluster)):
            yield f"affinity by {term['topologyKey']}"


def _anti_affinity(pod: Pod, node: Node, cluster: Sequence[Node]) -> Iterator[str]:
    for term in _terms(pod, "podAntiAffinity"):
        key = term["topologyKey"]
        if key in node.labels and any(_matches(term, pod, other) for other in _domain(node, key, cluster)):
            yield f"anti-affinity by {key}"
    for each in cluster:
        for other in each.pods:
            for term in _terms(other, "podAntiAffinity"):
                key = term["topologyKey"]
                together = key in each.labels and each.labels[key] == node.labels.get(key)
                if together and _matches(term, other, pod):
                    yield f"anti-affinity by {key} of a pod that runs"


def _spread(pod: Pod, node: Node, cluster: Sequence[Node]) -> Iterator[str]:
    for rule in pod.spec.get("topologySpreadConstraints", ()):
        if rule.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule":
            continue
        key = rule["topologyKey"]
        if key not in node.labels:
            yield f"the node has no {key}"
            continue
        counts = {each.labels[key]: 0 for each in cluster if key in each.labels and _eligible(pod, each, rule)}
        for each in cluster:
            if each.labels.get(key) in counts:
                counts[each.labels[key]] += sum(_matches(rule, pod, other) for other in each.pods)
        fewest = 0 if len(counts) < rule.get("minDomains", 1) else min(counts.values(), default=0)
        own = int(_matches(rule, pod, pod))
        if counts.get(node.labels[key], 0) + own - fewest > rule["maxSkew"]:
            yield f"topology spread by {key}"


def _eligible(pod: Pod, node: Node, rule: Object) -> bool:
    """Which nodes count for a spread: by default those the pod selects, tainted ones too."""
    if rule.get("nodeAffinityPolicy", "Honor") == "Ignore":
        return True
    if any(node.labels.get(key) != value for key, value in pod.spec.get("nodeSelector", {}).items()):
        return False
    wanted = pod.spec.get("affinity", {}).get("nodeAffinity", {}).get(_REQUIRED)
    return not wanted or any(_node_term(term, node) for term in wanted["nodeSelectorTerms"])
