"""allowed(policies, source, destination, protocol, port): what NetworkPolicies let through.

A policy's ipBlock also holds for pods here, by their address: some network plugins do it so, and a rule
meant for the internet must not open the way to a pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from tests.deploy.objects import Object, namespace, selects


@dataclass(frozen=True, slots=True)
class Actor:
    """Who talks: a pod, or (without a namespace) a machine elsewhere. ports: names of its container ports."""

    name: str
    address: str
    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


def allowed(policies: Iterable[Object], source: Actor, destination: Actor, protocol: str, port: int) -> bool:
    """Whether a connection comes about: the source's egress and the destination's ingress both let it."""
    policies = list(policies)
    return _way(policies, "egress", source, destination, destination, protocol, port) and _way(
        policies, "ingress", destination, source, destination, protocol, port
    )


def _way(
    policies: Sequence[Object], way: str, pod: Actor, peer: Actor, listener: Actor, protocol: str, port: int
) -> bool:
    mine = [policy for policy in policies if pod.namespace == namespace(policy) and _applies(policy, way, pod)]
    if not pod.namespace or not mine:
        return True
    rules = [(policy, rule) for policy in mine for rule in policy["spec"].get(way) or ()]
    return any(
        _peers(rule.get("from" if way == "ingress" else "to"), namespace(policy), peer)
        and _ports(rule.get("ports"), listener, protocol, port)
        for policy, rule in rules
    )


def _applies(policy: Object, way: str, pod: Actor) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return way.capitalize() in types and selects(spec.get("podSelector", {}), pod.labels)


def _peers(peers: Sequence[Object] | None, where: str, actor: Actor) -> bool:
    """No list, or an empty one, is everybody."""
    return not peers or any(_peer(peer, where, actor) for peer in peers)


def _peer(peer: Object, where: str, actor: Actor) -> bool:
    if block := peer.get("ipBlock"):
        address = ip_address(actor.address)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(hole) for hole in block.get("except", ())
        )
    if not actor.namespace:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], actor.namespace_labels):
            return False
    elif actor.namespace != where:
        return False
    return selects(peer.get("podSelector", {}), actor.labels)


def _ports(ports: Sequence[Object] | None, listener: Actor, protocol: str, port: int) -> bool:
    if not ports:
        return True
    for each in ports:
        first = each.get("port")
        if isinstance(first, str):
            first = listener.ports.get(first, -1)
        last = each.get("endPort", first)
        if each.get("protocol", "TCP") == protocol and (first is None or first <= port <= last):
            return True
    return False
