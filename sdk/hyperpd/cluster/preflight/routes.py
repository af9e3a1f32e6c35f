"""The way to S3: a gateway endpoint in the route tables of the subnets. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.cluster.preflight.finding import Finding, refused, warning
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object
from hyperpd.cluster.preflight.vpc import Vpc

_WAYS = (
    *("NatGatewayId", "TransitGatewayId", "CoreNetworkArn", "NetworkInterfaceId", "VpcPeeringConnectionId"),
    *("LocalGatewayId", "CarrierGatewayId"),
)
_ALIVE = ("available", "pending")  # EC2 goes on to describe endpoints that are deleted


def check(nodes: list[Nodes], vpc: Vpc) -> Iterator[Finding]:
    """Without any way lifecycle files do not arrive; with a NAT gateway they do, and each gigabyte is billed."""
    if vpc.tables is None or vpc.endpoints is None:
        return
    tables = {
        table["RouteTableId"]: table
        for subnet in _subnets(nodes, vpc)
        if (table := _table(vpc.tables, subnet, str(vpc.subnets[subnet]["VpcId"])))
    }
    there = [
        one
        for one in vpc.endpoints
        if one["ServiceName"] == f"com.amazonaws.{vpc.region}.s3"
        and str(one.get("State", "available")).lower() in _ALIVE
    ]
    gateways = [one for one in there if one.get("VpcEndpointType", "Gateway") == "Gateway"]
    interfaces = [one for one in there if _resolves(one)]
    covered = {table for one in gateways for table in one.get("RouteTableIds", ())}
    bare = [name for name in tables if name not in covered]
    if not bare:
        return
    ids = " ".join(bare)
    if gateways:
        fix = (
            f"aws ec2 modify-vpc-endpoint --vpc-endpoint-id {gateways[0]['VpcEndpointId']} --add-route-table-ids {ids}"
        )
    else:
        fix = (
            f"aws ec2 create-vpc-endpoint --vpc-id {vpc.id} --vpc-endpoint-type Gateway"
            f" --service-name com.amazonaws.{vpc.region}.s3 --route-table-ids {ids}"
        )
    fix += f" --region {vpc.region}"
    place = f"VPC console, Endpoints; Route tables, {', '.join(bare)}"
    shut = [name for name in bare if not _leaves(tables[name])]
    if interfaces:
        what = f"no S3 gateway endpoint in {', '.join(bare)}: what nodes read from S3 is billed by"
        yield warning("s3-endpoint", f"{what} the interface endpoint {interfaces[0]['VpcEndpointId']}", place, fix)
    elif shut:
        what = f"no S3 gateway endpoint and no way out in {', '.join(shut)}: lifecycle files do not reach the nodes"
        yield refused("s3-endpoint", what, place, fix)
    else:
        what = f"no S3 gateway endpoint in {', '.join(bare)}: what nodes read from S3 is billed by the NAT gateway"
        yield warning("s3-endpoint", what, place, fix)


def _resolves(endpoint: Object) -> bool:
    """Whether it is an interface endpoint that the VPC's own names lead to."""
    inbound = endpoint.get("DnsOptions", {}).get("PrivateDnsOnlyForInboundResolverEndpoint", False)
    return endpoint.get("VpcEndpointType") == "Interface" and bool(endpoint.get("PrivateDnsEnabled")) and not inbound


def _subnets(nodes: list[Nodes], vpc: Vpc) -> list[str]:
    return sorted({subnet for one in nodes for subnet in one.subnets if subnet in vpc.subnets})


def _table(tables: list[Object], subnet: str, vpc: str) -> Object | None:
    """The subnet's own route table, else its VPC's main one."""
    main = None
    for table in tables:
        for one in table.get("Associations", ()):
            if one.get("SubnetId") == subnet:
                return table
            if one.get("Main") and table["VpcId"] == vpc:
                main = table
    return main


def _leaves(table: Object) -> bool:
    """Whether a route leads out: to a NAT gateway, an internet gateway, or another network that may have one. One whose
    target is gone leads nowhere."""
    return any(
        route.get("DestinationCidrBlock") == "0.0.0.0/0"
        and route.get("State") != "blackhole"
        and (any(route.get(way) for way in _WAYS) or str(route.get("GatewayId", "local")) != "local")
        for route in table.get("Routes", ())
    )
