"""Availability zones: subnets where the capacity is, and P/D in one zone, since EFA does not leave it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.cluster.preflight import addresses
from hyperpd.cluster.preflight.finding import Finding, lacking, warning, written
from hyperpd.cluster.preflight.nodes import Nodes, ec2
from hyperpd.cluster.preflight.vpc import Vpc


def check(nodes: list[Nodes], vpc: Vpc, plans: dict[str, str]) -> Iterator[Finding]:
    """plans: training plan's ARN → id of its zone."""
    yield from _missing(nodes, vpc)
    for one in nodes:
        if not vpc.zones(one.subnets):
            continue
        if (arn := one.group.training_plan) and (zone := plans.get(arn)):
            if zone not in vpc.zones(one.subnets):
                what = f"{one.name}: its training plan is in {zone}, its subnets in {_spell(vpc.zones(one.subnets))}"
                yield lacking("zone", what, one.network, _move(one, vpc, nodes, zone))
        elif vpc.offers is not None and not arn:
            yield from _offered(one, vpc, nodes, vpc.offers)
    yield from _together(nodes, vpc)


def _missing(nodes: list[Nodes], vpc: Vpc) -> Iterator[Finding]:
    for path, subnets in {one.network: one.subnets for one in nodes}.items():
        gone = [subnet for subnet in subnets if subnet not in vpc.subnets]
        if gone:
            others = [str(one["SubnetId"]) for one in vpc.neighbours] or ["VPC console, Subnets"]
            left = [subnet for subnet in subnets if subnet in vpc.subnets] or others[:1]
            what = f"{', '.join(gone)}: there is no such subnet in {vpc.region} for this account"
            yield written("subnet", what, path, f"set {path}: [{', '.join(left)}]")
    if len(ids := sorted({str(one["VpcId"]) for one in vpc.subnets.values()})) > 1:
        what = f"subnets are in several VPCs: {', '.join(ids)}; a cluster has one"
        inside = [name for name, one in vpc.subnets.items() if one["VpcId"] == vpc.id]
        yield written("subnet", what, "network.subnets", f"set network.subnets: [{', '.join(inside)}]")


def _offered(one: Nodes, vpc: Vpc, nodes: list[Nodes], offers: dict[str, frozenset[str]]) -> Iterator[Finding]:
    offered = frozenset[str]().union(*(offers.get(ec2(name), frozenset()) for name in one.types))
    names = " or ".join(one.types)
    if not offered:
        what = f"{one.name}: EC2 names no zone of {vpc.region} that has {names}: on demand it will hardly come"
        place = "SageMaker console, HyperPod, Training plans: reserve it, and write its ARN as training_plan"
        yield warning("zone", what, f"{one.path}.instance_type", place)
    elif not offered & vpc.zones(one.subnets):
        what = f"{one.name}: {names} is in {_spell(offered)}, the subnets are in {_spell(vpc.zones(one.subnets))}"
        near = [zone for zone in sorted(offered) if any(each["AvailabilityZoneId"] == zone for each in vpc.neighbours)]
        yield lacking("zone", what, one.network, _move(one, vpc, nodes, [*near, *sorted(offered)][0]))


def _together(nodes: list[Nodes], vpc: Vpc) -> Iterator[Finding]:
    """KV transfer over EFA stays in one zone; several subnets leave the choice to AWS."""
    pair = [one for one in nodes if one.exchanges and one.efa]
    if {one.exchanges for one in pair} != {"prefill", "decode"}:
        return
    zones = {one.name: vpc.zones(one.subnets) for one in pair}
    if len(set().union(*zones.values())) < 2:
        return
    where = ", ".join(f"{name} in {_spell(found)}" for name, found in zones.items())
    shared = set.intersection(*zones.values())
    zone = min(shared or set().union(*zones.values()))
    moved = {one.network: f"[{_in(one, vpc, zone)}]" for one in pair if _in(one, vpc, zone)}
    fix = "\n".join(f"set {path}: {value}" for path, value in moved.items())
    if shared:
        yield warning(
            "one-zone", f"EFA does not leave its zone, and nodes may come in several: {where}", "network", fix
        )
    else:
        apart = next(one for one in pair if zone not in vpc.zones(one.subnets))
        what = f"EFA does not leave its zone: prefill and decode could exchange no KV cache: {where}"
        yield written("one-zone", what, apart.network, _move(apart, vpc, nodes, zone))


def _in(one: Nodes, vpc: Vpc, zone: str) -> str:
    return ", ".join(subnet for subnet in one.subnets if vpc.zone(subnet) == zone)


def _move(one: Nodes, vpc: Vpc, nodes: list[Nodes], zone: str) -> str:
    """To a subnet of the VPC in that zone with room, or to one that is made."""
    needed = sum(addresses.needed(each, vpc) for each in nodes if each.network == one.network)
    for each in vpc.neighbours:
        room = int(each.get("AvailableIpAddressCount", 0)) >= needed
        if each["AvailabilityZoneId"] == zone and each["VpcId"] == vpc.id and room:
            return f"set {one.network}: [{each['SubnetId']}]"
    return f"{vpc.create(zone, needed)}\nset {one.network}: [ID]"


def _spell(zones: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(zones)) or "none"
