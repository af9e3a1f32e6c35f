"""Rendered objects as Kubernetes' controllers see them: the pods they become, selectors, quantities.

A LeaderWorkerSet's pods carry the labels that its controller adds (lws v0.10).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

Object = Mapping[str, Any]

LWS = "leaderworkerset.sigs.k8s.io"
_SUFFIXES = {"": Fraction(1), "m": Fraction(1, 1000), "k": Fraction(1000)}
_SUFFIXES |= {letter: Fraction(1000 ** (power + 2)) for power, letter in enumerate("MGT")}
_SUFFIXES |= {f"{letter}i": Fraction(1024 ** (power + 1)) for power, letter in enumerate("KMGT")}


@dataclass(frozen=True)
class Pod:
    """One pod that a controller makes. owner: "kind/name"; group: the LeaderWorkerSet's group, else empty."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: Object
    owner: str
    group: str = ""
    leads: bool = True

    @property
    def containers(self) -> Sequence[Object]:
        return self.spec["containers"]

    @cached_property
    def role(self) -> str:
        """What the container is told to be: a role, node (all in one) or gateway; empty for others."""
        for container in self.containers:
            for variable in container.get("env", ()):
                if variable["name"] == "HYPERPD_ROLE":
                    return str(variable["value"])
            words = [str(word) for key in ("command", "args") for word in container.get(key, ())]
            for word, after in zip(words, [*words[1:], ""], strict=True):
                if word == "--role" or word.startswith("--role="):
                    return word.partition("=")[2] or after
        return ""

    @property
    def serves(self) -> bool:
        """Whether it is a worker's pod, with an engine in it."""
        return self.role in ("prefill", "decode", "aggregated", "node")

    @cached_property
    def requests(self) -> dict[str, Fraction]:
        """What the scheduler counts: the sum of its containers, or its largest init container."""
        total: dict[str, Fraction] = {}
        sidecars = [c for c in self.spec.get("initContainers", ()) if c.get("restartPolicy") == "Always"]
        for container in [*self.containers, *sidecars]:
            for resource, amount in requests(container).items():
                total[resource] = total.get(resource, Fraction(0)) + amount
        for container in self.spec.get("initContainers", ()):
            for resource, amount in requests(container).items():
                total[resource] = max(total.get(resource, Fraction(0)), amount)
        return total


def requests(container: Object) -> dict[str, Fraction]:
    """A container's requests; a limit without a request is one."""
    resources = container.get("resources", {})
    given = {**resources.get("limits", {}), **resources.get("requests", {})}
    return {resource: quantity(amount) for resource, amount in given.items()}


def quantity(amount: str | int | float) -> Fraction:
    """Kubernetes' quantity as a number: "5120Mi", "500m", 8."""
    text = str(amount)
    digits = text.rstrip("kmKMGTi")
    return Fraction(digits) * _SUFFIXES[text[len(digits) :]]


def of(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """The objects of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def name(body: Object) -> str:
    """kind/name."""
    return f"{body['kind']}/{body['metadata']['name']}"


def namespace(body: Object) -> str:
    return str(body["metadata"].get("namespace", "default"))


def near(objects: Iterable[Object], body: Object) -> list[Pod]:
    """The pods in an object's namespace: selectors look no further."""
    return [pod for pod in pods(objects) if pod.namespace == namespace(body)]


def templates(body: Object) -> list[Object]:
    """The pod templates of a workload; of a LeaderWorkerSet the leader's, then the worker's."""
    if body["kind"] == "LeaderWorkerSet":
        group = body["spec"]["leaderWorkerTemplate"]
        return [group.get("leaderTemplate") or group["workerTemplate"], group["workerTemplate"]]
    return [body["spec"]["template"]] if body["kind"] in ("Deployment", "StatefulSet", "Job") else []


def pods(objects: Iterable[Object]) -> list[Pod]:
    """Every pod of every workload, in the order of the objects."""
    return [pod for body in objects for pod in _pods(body)]


def _pods(body: Object) -> Iterator[Pod]:
    own, where = body["metadata"]["name"], namespace(body)
    if body["kind"] == "LeaderWorkerSet":
        leader, worker = templates(body)
        for group in range(body["spec"].get("replicas", 1)):
            for rank in range(body["spec"]["leaderWorkerTemplate"].get("size", 1)):
                template = worker if rank else leader
                labels = {
                    **template.get("metadata", {}).get("labels", {}),
                    f"{LWS}/name": own,
                    f"{LWS}/group-index": str(group),
                    f"{LWS}/group-key": f"{own}-{group}",
                    f"{LWS}/worker-index": str(rank),
                }
                called = f"{own}-{group}-{rank}" if rank else f"{own}-{group}"
                spec = _exclusive(body, template["spec"], f"{own}-{group}")
                yield Pod(called, where, labels, spec, name(body), f"{own}-{group}", not rank)
    else:
        for template in templates(body):
            labels = template.get("metadata", {}).get("labels", {})
            for ordinal in range(body["spec"].get("replicas", 1)):
                yield Pod(f"{own}-{ordinal}", where, labels, template["spec"], name(body))


def _exclusive(body: Object, spec: Object, group: str) -> Object:
    """The affinity that the annotation exclusive-topology adds: a group alone, and whole, in one domain."""
    topology = body["metadata"].get("annotations", {}).get(f"{LWS}/exclusive-topology")
    if not topology:
        return spec
    key = f"{LWS}/group-key"
    own = {"matchExpressions": [{"key": key, "operator": "In", "values": [group]}]}
    others = {
        "matchExpressions": [{"key": key, "operator": "Exists"}, {"key": key, "operator": "NotIn", "values": [group]}]
    }
    affinity = dict(spec.get("affinity", {}))
    for kind, selector in (("podAffinity", own), ("podAntiAffinity", others)):
        block = dict(affinity.get(kind, {}))
        terms = block.get("requiredDuringSchedulingIgnoredDuringExecution", ())
        block["requiredDuringSchedulingIgnoredDuringExecution"] = [
            *terms,
            {"topologyKey": topology, "labelSelector": selector},
        ]
        affinity[kind] = block
    return {**spec, "affinity": affinity}


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """A label selector: none selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(expression(each, labels) for each in selector.get("matchExpressions", ()))


def expression(each: Object, labels: Mapping[str, str]) -> bool:
    """One entry of matchExpressions, of labels or of nodes."""
    key, operator, values = each["key"], each["operator"], each.get("values", ())
    have = labels.get(key)
    match operator:
        case "In":
            return have in values
        case "NotIn":
            return have not in values
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
        case "Gt":
            return have is not None and int(have) > int(values[0])
        case "Lt":
            return have is not None and int(have) < int(values[0])
    raise ValueError(f"operator {operator}")
