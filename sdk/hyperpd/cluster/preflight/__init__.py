"""run(spec, aws) → Preflight: everything that can be checked of a cluster before money is spent, all at once.

Each subject has a file: what it reads of AWS, and a pure check of the cluster file against these facts. A read that
fails is an unknown finding and stops nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from hyperpd import price_list, prices
from hyperpd.cluster import file
from hyperpd.cluster.aws import Aws
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.names import Place
from hyperpd.cluster.permissions import policy
from hyperpd.cluster.preflight import (
    addons,
    addresses,
    boto,
    bucket,
    clusters,
    costs,
    eks,
    files,
    instance_types,
    keys,
    permissions,
    plans,
    quotas,
    roles,
    routes,
    secret,
    security,
    vpc,
    zones,
)
from hyperpd.cluster.preflight import nodes as nodes_
from hyperpd.cluster.preflight.caller import Caller
from hyperpd.cluster.preflight.caller import read as read_caller
from hyperpd.cluster.preflight.finding import Finding, Level, unknown
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object, Reading
from hyperpd.cluster.preflight.report import Preflight
from hyperpd.cluster.spec import ClusterSpec
from hyperpd.prices import Price

__all__ = ["Finding", "Level", "Preflight", "run"]

_NOWHERE = "unknown"  # the Region of a plan that is in none
_OFFLINE = ("instance types", "lifecycle files", "boto3's model")
_ASKED = (
    "credentials",
    "permissions",
    "roles",
    "bucket",
    "names",
    "quotas",
    "training plans",
    "subnets and zones",
    "free addresses",
    "security groups",
    "way to S3",
)
_ASKED_EKS = ("EKS version and access", "add-ons", "network policies")
_ASKED_ACCOUNTING = ("accounting secret",)


def run(
    spec: ClusterSpec,
    aws: Aws | None,
    *,
    overrides: Mapping[str, float] | None = None,
    now: datetime | None = None,
) -> Preflight:
    """aws: None asks nothing of AWS. overrides: instance type → dollars per hour. now: with a time zone.

    Raises RecipeError where the file itself cannot be used, CapacityError where its recipe does not fit.
    """
    now = now or datetime.now(UTC)
    groups = file.check(spec)
    scripts, found = files.read(spec, groups)
    caller = read_caller(aws) if aws else None
    if isinstance(caller, Finding):
        found.append(caller)
    place = caller.where if isinstance(caller, Caller) else Place("0" * 12, spec.region or _NOWHERE)
    plan = Blueprint(spec, place, groups, scripts)
    nodes = list(nodes_.of(plan))
    known = boto.shape()
    found += instance_types.check(nodes, boto.instance_types(known))
    nodes = instance_types.real(nodes, boto.instance_types(known))
    found += boto.check(plan, known)
    asked = (
        *_ASKED,
        *(_ASKED_EKS if spec.orchestrator.eks else ()),
        *(_ASKED_ACCOUNTING if plan.accounting_secret else ()),
    )
    training: dict[str, Object] = {}
    live: dict[str, Price] = {}
    if aws and isinstance(caller, Caller):
        reading = Reading(aws, caller)
        training = plans.read(reading, nodes)
        found += _account(reading, plan, nodes, training, now)
        live = _live(reading, nodes)
        found += reading.unread(policy(("cluster plan",), permissions.scope(plan, caller))["Statement"])
        checked = (*_OFFLINE, *asked)
    else:
        why = "AWS was not asked (--offline)" if aws is None else "without credentials AWS was not asked"
        found.append(
            unknown("offline", f"{why}: {', '.join(asked)} are not checked", "AWS", "hyperpd cluster plan FILE")
        )
        checked = _OFFLINE
    region = "" if place.region == _NOWHERE else place.region
    if not region:
        what = "no Region is known, so no price is looked up: the file names none, and AWS was not asked"
        found.append(unknown("region", what, "region", "add it to the cluster file, as in region: us-east-1"))
    cost = list(
        costs.of(
            nodes,
            region,
            training,
            overrides={name: prices.given(usd, now.date()) for name, usd in (overrides or {}).items()},
            live=live,
            cached=price_list.cached(region),
        )
    )
    found += costs.check(cost, now.date())
    return Preflight(tuple(found), tuple(cost), checked, place if isinstance(caller, Caller) else None, now.date())


def _account(
    reading: Reading, plan: Blueprint, nodes: list[Nodes], training: dict[str, Object], now: datetime
) -> Iterator[Finding]:
    """What only AWS knows."""
    yield from permissions.check(reading, plan, permissions.read(reading, plan))
    yield from roles.check(plan, list(roles.read(reading, plan)))
    yield from keys.check(plan)
    if (named := plan.accounting_secret) and (described := secret.read(reading, named)) is not None:
        yield from secret.check(plan, named, described)
    yield from bucket.check(plan, list(bucket.read(reading, plan, nodes)))
    others = clusters.read(reading, plan)
    coming = nodes
    if others:
        yield from clusters.check(plan, others)
        coming = clusters.coming(plan, nodes, others)
    limits = quotas.read(reading)
    if limits:
        yield from quotas.check(plan, nodes, limits, others)
    yield from plans.check(coming, training, now)
    network = vpc.read(reading, nodes)
    if network:
        yield from zones.check(nodes, network, plans.zones(training))
        yield from addresses.check(coming, network)
        yield from routes.check(nodes, network)
        yield from security.check(nodes, network, vpc.s3_prefix_lists(reading))
    if plan.spec.orchestrator.eks:
        yield from _eks(reading, plan, nodes, network)


def _eks(reading: Reading, plan: Blueprint, nodes: list[Nodes], network: vpc.Vpc | None) -> Iterator[Finding]:
    read = eks.read(reading, plan)
    if read is None:
        return
    yield from eks.check(plan, *read, network)
    if read[0]:
        there = addons.read(reading, read[0])
        if there is not None:
            yield from addons.check(eks.name(plan), plan.place.region, nodes, there)


def _live(reading: Reading, nodes: list[Nodes]) -> dict[str, Price]:
    types = sorted({name for one in nodes for name in one.types})
    found, failure = price_list.live(types, reading.caller.where.region, datetime.now(UTC).date())
    if failure:
        reading.note("prices of today", "pricing:GetProducts", failure)
    return found
