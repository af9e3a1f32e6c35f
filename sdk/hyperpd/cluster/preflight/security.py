"""Security groups: nodes reach each other both ways, and S3; nobody else reaches them. Pure.

EFA's packets are not IP: a rule for an address range does not let them through, only one that names a security group,
in and out, for all protocols. Its absence is the commonest reason for "EFA health checks did not run successfully".
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from itertools import product

from hyperpd.cluster.preflight.finding import Finding, refused, warning, written
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object
from hyperpd.cluster.preflight.vpc import Vpc

Groups = dict[str, Object]
_ALL = "-1"
_ANYWHERE = ("0.0.0.0/0", "::/0")
_RULES = {"in": "IpPermissions", "out": "IpPermissionsEgress"}
_WORDS = {"in": ("ingress", "from"), "out": ("egress", "to")}


def check(nodes: list[Nodes], vpc: Vpc, s3_prefix_lists: Iterable[str] | None) -> Iterator[Finding]:
    """s3_prefix_lists: ids of S3's prefix lists in the Region; None where they could not be read."""
    if (there := vpc.groups) is None:
        return
    named = {group for one in nodes for group in one.security_groups}
    for group in sorted(named - there.keys()):
        what = f"{group}: there is no such security group in {vpc.id}"
        near = sorted(there, key=lambda one: sum(_names(there[one], way, (one,)) for way in _RULES), reverse=True)
        fix = f"set network.security_groups: [{near[0]}]" if near else "VPC console, Security groups, Create"
        yield written("security-group", what, "network.security_groups", fix)
    if named - there.keys():
        return
    yield from _among(nodes, there, vpc.region)
    for groups in dict.fromkeys(one.security_groups for one in nodes):
        yield from _to_s3(groups, there, vpc.region, s3_prefix_lists)
        yield from _open(groups, there, vpc.region)


def _among(nodes: list[Nodes], there: Groups, region: str) -> Iterator[Finding]:
    """Every group of nodes to every other; each carries all of its security groups. Only between nodes with EFA all
    traffic has to pass: a gateway's security group may let in and out what it needs, and no more."""
    sets = list(dict.fromkeys(one.security_groups for one in nodes if one.security_groups))
    with_efa = {one.security_groups for one in nodes if one.efa}
    gateways = set(sets) - {one.security_groups for one in nodes if one.serves != "gateway"}
    seen = set()
    for ours, theirs in product(sets, sets):
        efa = {ours, theirs} <= with_efa
        if not efa and ours != theirs and (_leads(there, ours, theirs) or _leads(there, theirs, ours)):
            continue
        if ours == theirs and ours in gateways:
            continue  # they have nothing to say to each other
        for way in ("in", "out"):
            if any(_names(there[group], way, theirs) for group in ours):
                continue
            if not efa and any(_anything(there[group], way) for group in ours):
                continue  # plain IP
            group, other = ours[0], (ours[0] if ours == theirs else theirs[0])
            if (group, other, way) in seen:
                continue
            seen.add((group, other, way))
            verb, word = _WORDS[way]
            whom = "itself" if group == other else other
            what = f"{group} has no {verb} rule for all traffic {word} {whom}"
            what += ": EFA's health check fails, and so does the cluster" if efa else ": nodes do not reach each other"
            yield refused("security-group", what, _place(group, way), _allow(group, other, way, region))


def _names(group: Object, way: str, others: tuple[str, ...]) -> bool:
    """Whether a rule for all traffic names one of these security groups."""
    return any(
        rule.get("IpProtocol") == _ALL
        and any(pair.get("GroupId") in others for pair in rule.get("UserIdGroupPairs", ()))
        for rule in group.get(_RULES[way], ())
    )


def _leads(there: Groups, ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether rules let something out of one and into the other; which ports, and whether a range of addresses holds
    the nodes, is not judged."""
    return _lets(there, ours, "out", theirs) and _lets(there, theirs, "in", ours)


def _lets(there: Groups, groups: tuple[str, ...], way: str, others: tuple[str, ...]) -> bool:
    return any(
        rule.get("IpRanges")
        or rule.get("Ipv6Ranges")
        or any(pair.get("GroupId") in others for pair in rule.get("UserIdGroupPairs", ()))
        for group in groups
        for rule in there[group].get(_RULES[way], ())
    )


def _anything(group: Object, way: str) -> bool:
    return any(rule.get("IpProtocol") == _ALL and _ranges(rule) for rule in group.get(_RULES[way], ()))


def _ranges(rule: Object) -> list[str]:
    """Of a rule, those ranges that are everything."""
    found = [one["CidrIp"] for one in rule.get("IpRanges", ())] + [
        one["CidrIpv6"] for one in rule.get("Ipv6Ranges", ())
    ]
    return [one for one in found if one in _ANYWHERE]


def _to_s3(groups: tuple[str, ...], there: Groups, region: str, lists: Iterable[str] | None) -> Iterator[Finding]:
    """Lifecycle files come over HTTPS; a rule for a part of the internet is not counted."""
    if not groups:
        return
    for group in groups:
        for rule in there[group].get("IpPermissionsEgress", ()):
            if rule.get("IpProtocol") == _ALL or int(rule.get("FromPort", 0)) <= 443 <= int(rule.get("ToPort", 65535)):
                named = {one.get("PrefixListId") for one in rule.get("PrefixListIds", ())}
                if _ranges(rule) or (named if lists is None else named & set(lists)):
                    return
    what = f"{', '.join(groups)}: no egress rule to S3 on port 443: nodes cannot fetch their lifecycle files"
    target = next(iter(lists or ()), None)
    peer = {"PrefixListIds": [{"PrefixListId": target}]} if target else {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, **peer}
    yield refused("security-group-s3", what, _place(groups[0], "out"), _authorize(groups[0], "out", rule, region))


def _open(groups: tuple[str, ...], there: Groups, region: str) -> Iterator[Finding]:
    for group in groups:
        for rule in there[group].get("IpPermissions", ()):
            if ranges := _ranges(rule):
                said = (
                    "everything" if rule.get("IpProtocol") == _ALL else f"{rule['IpProtocol']} {rule.get('FromPort')}"
                )
                what = (
                    f"{group} lets {' and '.join(ranges)} in ({said}): engines and their ports trust who reaches them"
                )
                peer = [{"CidrIp": one} for one in ranges if ":" not in one]
                kept = {key: rule[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in rule}
                six = [{"CidrIpv6": one} for one in ranges if ":" in one]
                gone = kept | ({"IpRanges": peer} if peer else {}) | ({"Ipv6Ranges": six} if six else {})
                fix = _authorize(group, "in", gone, region, verb="revoke")
                yield warning("security-group-open", what, _place(group, "in"), fix)


def _allow(group: str, other: str, way: str, region: str) -> str:
    return _authorize(group, way, {"IpProtocol": _ALL, "UserIdGroupPairs": [{"GroupId": other}]}, region)


def _authorize(group: str, way: str, rule: Object, region: str, verb: str = "authorize") -> str:
    permissions = shlex.quote(json.dumps([rule]))
    name = f"{verb}-security-group-{_WORDS[way][0]}"
    return f"aws ec2 {name} --group-id {group} --ip-permissions {permissions} --region {region}"


def _place(group: str, way: str) -> str:
    return f"VPC console, Security groups, {group}, {'Inbound' if way == 'in' else 'Outbound'} rules"
