"""The VPC's facts: subnets, security groups, routes and endpoints, as EC2 describes them; and where more would fit."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from hyperpd.cluster.preflight.nodes import Nodes, ec2
from hyperpd.cluster.preflight.reading import Object, Reading

_RESERVED = 5  # addresses of each subnet that are AWS's


@dataclass(frozen=True)
class Vpc:
    """What was asked for and is there, by id. None: it could not be read."""

    region: str
    subnets: dict[str, Object]  # those named, wherever they are
    neighbours: list[Object]  # every subnet of their VPCs
    groups: dict[str, Object] | None  # every security group of their VPCs
    tables: list[Object] | None
    endpoints: list[Object] | None
    vpcs: dict[str, Object]
    types: dict[str, Object]  # EC2's name → its description
    offers: dict[str, frozenset[str]] | None  # EC2's name → ids of zones that have it

    @cached_property
    def id(self) -> str:
        """The VPC of the subnets; that of the first where they differ."""
        return next((str(one["VpcId"]) for one in self.subnets.values()), "")

    def zone(self, subnet: str) -> str:
        """Id of its zone; empty for a subnet that is not there."""
        return str(self.subnets.get(subnet, {}).get("AvailabilityZoneId", ""))

    def zones(self, subnets: Iterable[str]) -> set[str]:
        """Ids of zones."""
        return {zone for one in subnets if (zone := self.zone(one))}

    def create(self, zone: str, addresses: int) -> str:
        """The command that makes a subnet in `zone` with room for `addresses`; in the console where none fits."""
        length = next((n for n in range(28, 15, -1) if 2 ** (32 - n) - _RESERVED >= addresses), 16)
        block = self._free(length)
        if block is None:
            return f"VPC console, {self.id}, Edit CIDRs: add a block, then make a /{length} subnet in {zone} of it"
        return (
            f"aws ec2 create-subnet --vpc-id {self.id} --cidr-block {block} --availability-zone-id {zone}"
            f" --region {self.region} --query Subnet.SubnetId --output text"
        )

    def _free(self, length: int) -> ipaddress.IPv4Network | None:
        """The first free block of that length in the VPC's own."""
        taken = [ipaddress.IPv4Network(one["CidrBlock"]) for one in self.neighbours if one["VpcId"] == self.id]
        vpc = self.vpcs.get(self.id, {})
        blocks = [one["CidrBlock"] for one in vpc.get("CidrBlockAssociationSet", ())] or [vpc.get("CidrBlock")]
        for block in map(ipaddress.IPv4Network, filter(None, blocks)):
            if block.prefixlen <= length:
                for one in block.subnets(new_prefix=length):
                    if not any(one.overlaps(other) for other in taken):
                        return one
        return None


def read(reading: Reading, nodes: list[Nodes]) -> Vpc | None:
    """None where subnets could not be read, or none are named (Slurm in AWS's own network)."""
    wanted = sorted({subnet for one in nodes for subnet in one.subnets})
    if not wanted:
        return None
    purpose = "subnets, their zones and free addresses"
    named = reading.pages(
        purpose, "ec2", "describe_subnets", "Subnets", Filters=[{"Name": "subnet-id", "Values": wanted}]
    )
    if named is None:
        return None
    inside = [{"Name": "vpc-id", "Values": sorted({one["VpcId"] for one in named}) or ["vpc-none"]}]
    ask = reading.pages
    security = ask("security groups", "ec2", "describe_security_groups", "SecurityGroups", Filters=inside)
    return Vpc(
        reading.caller.where.region,
        {one["SubnetId"]: one for one in named},
        ask("room for more subnets", "ec2", "describe_subnets", "Subnets", Filters=inside) or [],
        None if security is None else _by_id(security, "GroupId"),
        ask("routes to S3", "ec2", "describe_route_tables", "RouteTables", Filters=inside),
        ask("the S3 gateway endpoint", "ec2", "describe_vpc_endpoints", "VpcEndpoints", Filters=inside),
        _by_id(ask("room for more subnets", "ec2", "describe_vpcs", "Vpcs", Filters=inside), "VpcId"),
        _types(reading, nodes),
        _offers(reading, nodes),
    )


def s3_prefix_lists(reading: Reading) -> list[str] | None:
    """Ids of S3's prefix lists in the Region, which egress rules may name."""
    name = f"com.amazonaws.{reading.caller.where.region}.s3"
    found = reading.pages(
        "egress rules to S3",
        "ec2",
        "describe_managed_prefix_lists",
        "PrefixLists",
        Filters=[{"Name": "prefix-list-name", "Values": [name]}],
    )
    return None if found is None else [one["PrefixListId"] for one in found]


def _types(reading: Reading, nodes: list[Nodes]) -> dict[str, Object]:
    """A filter, since a name that EC2 does not know would refuse the whole call."""
    names = [{"Name": "instance-type", "Values": sorted({ec2(name) for one in nodes for name in one.types})}]
    found = reading.pages(
        "addresses that a node takes", "ec2", "describe_instance_types", "InstanceTypes", Filters=names
    )
    return _by_id(found, "InstanceType")


def _offers(reading: Reading, nodes: list[Nodes]) -> dict[str, frozenset[str]] | None:
    names = sorted({ec2(name) for one in nodes for name in one.types})
    found = reading.pages(
        "zones that have the instance types",
        "ec2",
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone-id",
        Filters=[{"Name": "instance-type", "Values": names}],
    )
    if found is None:
        return None
    return {name: frozenset(one["Location"] for one in found if one["InstanceType"] == name) for name in names}


def _by_id(found: list[Object] | None, key: str) -> dict[str, Object]:
    return {one[key]: one for one in found or ()}
