"""Free IP addresses: enough for every node. Pure.

On Slurm each EFA device that carries an address takes one: 32 on a p5. On EKS the VPC CNI fills one interface with
addresses for pods, 50 on a p5: 31 + 50 = 81. Both sums are what the HyperPod guide says of p5; that the same count
holds for other types is inferred, unverified on a live account.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.cluster.preflight.finding import Finding, lacking
from hyperpd.cluster.preflight.nodes import Nodes, ec2, instance
from hyperpd.cluster.preflight.vpc import Vpc

_PER_INTERFACE = 50  # of the types HyperPod has beyond 4xlarge, where EC2 could not be asked


def per_node(name: str, interface: str | None, eks: bool, described: dict[str, object]) -> int:
    """Addresses of one node. described: NetworkInfo of EC2's DescribeInstanceTypes, {} where there is none."""
    efa_info = described.get("EfaInfo")
    facts = instance(name)
    devices = int(efa_info["MaximumEfaInterfaces"]) if isinstance(efa_info, dict) else facts.efa if facts else 0
    carrying = 1 if interface == "efa-only" else max(1, devices)
    pods = int(str(described.get("Ipv4AddressesPerInterface", _PER_INTERFACE)))
    return carrying - 1 + pods if eks else carrying


def needed(one: Nodes, vpc: Vpc) -> int:
    """Addresses of a group, by its type that takes most."""
    described = {name: vpc.types.get(ec2(name), {}).get("NetworkInfo", {}) for name in one.types}
    return one.count * max(
        (per_node(name, one.group.interface, one.eks, described[name]) for name in one.types), default=1
    )


def check(nodes: list[Nodes], vpc: Vpc) -> Iterator[Finding]:
    """Groups that share subnets are counted together."""
    for path, subnets in {one.network: one.subnets for one in nodes}.items():
        there = [vpc.subnets[subnet] for subnet in subnets if subnet in vpc.subnets]
        if not there:
            continue
        inside = [one for one in nodes if one.subnets and set(one.subnets) <= set(subnets)]
        wanted = sum(needed(one, vpc) for one in inside)
        free = sum(int(one["AvailableIpAddressCount"]) for one in there)
        if wanted > free:
            sums = ", ".join(f"{one.name} {one.count} × {needed(one, vpc) // max(1, one.count)}" for one in inside)
            what = f"{wanted} addresses are needed ({sums}), {free} are free in {', '.join(subnets)}"
            zone = str(there[0]["AvailabilityZoneId"])
            yield lacking("addresses", what, path, f"{vpc.create(zone, wanted)}\nset {path}: [ID]")
