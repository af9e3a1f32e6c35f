"""The pack for a network and compliance review: flows and ports, encryption, endpoints, every IAM action and why. Pure.

What is said without a proof is marked unverified; what is not encrypted is said plainly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date as Day
from typing import Any

from hyperpd.cluster import encryption, rights
from hyperpd.cluster.actions import COMMANDS
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.encryption import Claim
from hyperpd.cluster.permissions import Permission, Scope, permissions
from hyperpd.engine import MANAGED_TIER_PORT
from hyperpd.instances import INSTANCES
from hyperpd.placement import Ports
from hyperpd.recipe import Recipe

Object = Mapping[str, Any]
_AT = Ports()
_PORTS = {
    _AT.gateway_api: "gateway: API",
    _AT.gateway_admin: "gateway: metrics, status, drain",
    _AT.worker_api: "worker: API",
    _AT.worker_admin: "worker: metrics, status, drain",
    _AT.side_channel: "NIXL: handshake",
    _AT.kv_events: "KV events",
    _AT.kv_replay: "KV events that were missed",
    _AT.data_parallel: "torch: rendezvous",
    53: "DNS",
    443: "HTTPS",
    80: "EKS Pod Identity agent, on the machine",
    MANAGED_TIER_PORT: "HyperPod's tiered storage, on the machine",
}
_CLOSED = "nothing but what these lines open (NetworkPolicy; the VPC CNI has to enforce them)"
# Services by the prefix of the actions that use them, as their interface endpoints are called.
_ENDPOINTS = {
    "s3": ("s3", "Gateway"),
    "logs": ("logs", "Interface"),
    "cloudwatch": ("monitoring", "Interface"),
    "ssmmessages": ("ssmmessages", "Interface"),
    "ec2": ("ec2", "Interface"),
    "ecr": ("ecr.api, ecr.dkr", "Interface"),
    "eks-auth": ("eks-auth", "Interface"),
}


@dataclass(frozen=True, slots=True)
class Flow:
    """Who reaches whom. ports: "8080/TCP", or "any"."""

    source: str
    target: str
    ports: tuple[str, ...]
    what: str
    encrypted: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A VPC endpoint (com.amazonaws.REGION.…), needed where the subnets have no other way to that service."""

    service: str
    kind: str
    why: str
    proof: str = ""


@dataclass(frozen=True, slots=True)
class Review:
    """All of it."""

    cluster: str
    date: Day
    account: str
    region: str
    orchestrator: str
    flows: tuple[Flow, ...]
    transit: tuple[Claim, ...]
    rest: tuple[Claim, ...]
    endpoints: tuple[Endpoint, ...]
    callers: Mapping[str, tuple[Permission, ...]]  # by command
    nodes: tuple[Object, ...]  # statements of the role that nodes take on
    made_role: bool

    @property
    def claims(self) -> tuple[Claim, ...]:
        return (*self.transit, *self.rest)

    def document(self) -> dict[str, Any]:
        """For a program."""
        found: dict[str, Any] = {**asdict(self), "date": self.date.isoformat()}
        found["not_encrypted"] = [one.what for one in self.claims if one.encrypted is False]
        found["unverified"] = [one.what for one in self.claims if not one.proof]
        found["unverified"] += [f"VPC endpoint {one.service}" for one in self.endpoints if not one.proof]
        return found


def review(plan: Blueprint, recipe: Recipe | None, policies: Iterable[Object], today: Day) -> Review:
    """policies: NetworkPolicies of the rendered fleet; none on Slurm, where security groups alone say who reaches
    whom."""
    scope = Scope(plan.place, plan.spec.name, plan)
    commands = [one for one in COMMANDS if one.startswith("cluster ")]
    statements = tuple(rights.policy(plan)["Statement"])
    on_eks = plan.spec.orchestrator.kind == "eks"
    transit = [*encryption.machines(plan)]
    if recipe and not recipe.aggregated:
        transit += encryption.fabric(plan, recipe.fabric)
    transit.append(
        Claim(
            "requests and answers between clients, gateway and workers",
            False,
            "HTTP, unless TLS is set: tls-cert-file and workers-ca-file of a container, tls_secret and"
            " workers_tls_secret of the target kubernetes. KV cache between workers never: what nodes encrypt",
            "container/hyperpd_runtime/listen.py",
        )
    )
    transit.append(Claim("calls of AWS, by hyperpd and by nodes", True, "TLS", "https is botocore's default"))
    rest = [*encryption.at_rest(plan)]
    for role, spec in recipe.roles().items() if recipe else ():
        if tiers := spec.kv_tiers:
            rest += encryption.tiers(role, bool(tiers.memory_gib), tiers.disk, tiers.managed)
    return Review(
        plan.spec.name,
        today,
        plan.place.account,
        plan.place.region,
        plan.spec.orchestrator.kind,
        (*(fleet(policies) if on_eks else slurm(recipe)), *nodes(plan)),
        tuple(transit),
        tuple(rest),
        tuple(endpoints(plan, statements)),
        {one: tuple(permissions([one], scope)) for one in commands},
        statements,
        plan.makes_role,
    )


def fleet(policies: Iterable[Object]) -> Iterator[Flow]:
    """What NetworkPolicies open, and that all else is closed."""
    for one in policies:
        meta, spec = one["metadata"], one["spec"]
        labels = spec["podSelector"].get("matchLabels", {})
        name = f"{meta['namespace']}: {labels.get('app.kubernetes.io/component', 'engines') if labels else 'every pod'}"
        if not spec.get("ingress") and not spec.get("egress"):
            yield Flow("anybody", name, ("none",), _CLOSED, "-")
        for key, peers in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(key, ()):
                other = " or ".join(_peer(each) for each in rule.get(peers, ())) or "anybody"
                ports = [(int(each["port"]), each["protocol"]) for each in rule.get("ports", ())]
                ends = (other, name) if key == "ingress" else (name, other)
                written = tuple(f"{port}/{protocol}" for port, protocol in ports) or ("any",)
                what = ", ".join(dict.fromkeys(_PORTS.get(port, f"port {port}") for port, _ in ports))
                what = what or "KV transfer (NIXL) and torch, whose ports are chosen at run time"
                yield Flow(*ends, written, what, _transit(port for port, _ in ports))


def slurm(recipe: Recipe | None) -> Iterator[Flow]:
    """No policy knows pods here: the ports of placement.py, and whoever the security group lets in."""
    nodes = "nodes of the security group"
    plain = "by their types alone"
    yield Flow("clients", "gateway", (f"{_AT.gateway_api}/TCP",), _PORTS[_AT.gateway_api], "no: HTTP")
    yield Flow("monitoring", "gateway", (f"{_AT.gateway_admin}/TCP",), _PORTS[_AT.gateway_admin], "no: HTTP")
    for port in (_AT.worker_api, _AT.worker_admin):
        yield Flow("gateway and monitoring", "workers", (f"{port}+n/TCP",), _PORTS[port], plain)
    if recipe is None or recipe.gateway.prefix_view == "exact":
        for port in (_AT.kv_events, _AT.kv_replay):
            yield Flow("gateway", "workers", (f"{port}+n/TCP",), _PORTS[port], plain)
    if recipe is None or not recipe.aggregated:
        yield Flow("workers", "workers", (f"{_AT.side_channel}+n/TCP",), _PORTS[_AT.side_channel], plain)
        yield Flow(nodes, nodes, ("any",), "KV transfer (NIXL): EFA, or ports chosen at run time", "see below")
    if recipe is None or any(spec.parallel.nodes > 1 for spec in recipe.roles().values()):
        yield Flow("workers", "workers", (f"{_AT.data_parallel}/TCP",), _PORTS[_AT.data_parallel], plain)


def nodes(plan: Blueprint) -> Iterator[Flow]:
    """Nodes, whatever runs on them."""
    groups = {one for network in _networks(plan) for one in network.security_groups} or {"AWS' own (no VPC is named)"}
    group = ", ".join(sorted(groups))
    with_efa = {facts.name for facts in INSTANCES if facts.efa}
    if any(with_efa & set(encryption.types(group)) for group in plan.groups.values()):
        what = "EFA needs the security group open to itself, both ways, and to no one else"
        yield Flow(group, group, ("all traffic",), what, "see below")
    if plan.spec.orchestrator.kind == "eks":
        yield Flow("nodes", f"EKS API of {plan.eks_arn}", ("443/TCP",), "Kubernetes", "TLS")
        yield Flow(f"EKS API of {plan.eks_arn}", "nodes", ("10250/TCP",), "kubelet: logs, exec", "TLS")
    yield Flow("nodes", "AWS", ("443/TCP",), "the endpoints below", "TLS")
    for name, one in plan.groups.items():
        for lustre in one.lustre:
            yield Flow(name, lustre.dns, ("988/TCP", "1018-1023/TCP"), "FSx for Lustre", "see below")
        for zfs in one.openzfs:
            ports = ("111/TCP+UDP", "2049/TCP+UDP", "20001-20003/TCP+UDP")
            yield Flow(name, zfs.dns, ports, "FSx for OpenZFS (NFS)", "see below")
    accounting = plan.spec.orchestrator.slurm and plan.spec.orchestrator.slurm.accounting
    if accounting:
        yield Flow(
            "controller", accounting.endpoint, (f"{accounting.port or 3306}/TCP",), "Slurm accounting", "unknown"
        )
    yield Flow("whoever runs hyperpd", "AWS", ("443/TCP",), "its commands", "TLS")


def endpoints(plan: Blueprint, statements: Sequence[Object]) -> Iterator[Endpoint]:
    """What nodes call, by the policy of their role; and what comes before it."""
    used: dict[str, list[str]] = {}
    for one in statements:
        for action in one["Action"]:
            used.setdefault(action.partition(":")[0], []).append(action)
    for prefix, actions in used.items():
        service, kind = _ENDPOINTS.get(prefix, (prefix, "Interface"))
        yield Endpoint(service, kind, f"nodes: {', '.join(sorted(set(actions)))}", "sdk/hyperpd/cluster/rights.py")
    if "ssmmessages" in used:
        yield Endpoint("ssm, ec2messages", "Interface", "nodes: the agent of Session Manager")
    yield Endpoint("sts", "Interface", "nodes: the credentials of their role")
    if plan.spec.orchestrator.kind == "eks":
        yield Endpoint("eks", "Interface", "nodes: joining the EKS cluster")


def _networks(plan: Blueprint) -> list[Any]:
    return [plan.spec.network, *(group.network for group in plan.groups.values() if group.network)]


def _peer(peer: Object) -> str:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return str(block["cidr"]) + (f" without {', '.join(block['except'])}" if block.get("except") else "")
    space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    pods = peer.get("podSelector", {}).get("matchLabels", {})
    named = ", ".join(f"{key.rpartition('/')[2]}={value}" for key, value in pods.items()) or "every pod"
    return f"{space}: {named}" if space else f"the same namespace: {named}"


def _transit(ports: Iterable[int]) -> str:
    found = set(ports)
    if found == {443}:
        return "TLS"
    return "DNS: no" if 53 in found else "no by hyperpd; between nodes by their types" if found else "see below"
