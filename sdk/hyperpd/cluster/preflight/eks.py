"""The EKS cluster: there, of a version and access mode that HyperPod takes, in the nodes' VPC."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.preflight.finding import Finding, refused, unknown, written
from hyperpd.cluster.preflight.reading import Object, Reading
from hyperpd.cluster.preflight.vpc import Vpc

OLDEST, NEWEST = (1, 28), (1, 34)  # HyperPod's user guide, as of 2026-11
_MODES = ("API", "API_AND_CONFIG_MAP")


def name(plan: Blueprint) -> str:
    """Of the EKS cluster."""
    return plan.eks_arn.rpartition("/")[2]


def read(reading: Reading, plan: Blueprint) -> tuple[Object, list[str]] | None:
    """The cluster ({} where there is none) and, then, names of others; None where it could not be read."""
    found = reading.ask(f"EKS cluster {name(plan)}", "eks", "describe_cluster", name=name(plan))
    if found is None:
        return None
    if found:
        return found["cluster"], []
    return {}, reading.pages("names of EKS clusters", "eks", "list_clusters", "clusters") or []


def check(plan: Blueprint, cluster: Object, others: list[str], vpc: Vpc | None) -> Iterator[Finding]:
    """others: names, where there is no such cluster."""
    at, region = name(plan), plan.place.region
    place = f"EKS console, Clusters, {at}"
    if not cluster:
        near = difflib.get_close_matches(at, others, 1) or others[:1]
        fix = f"set orchestrator.eks: {near[0]}" if near else "EKS console, Create cluster"
        yield written("eks", f"there is no EKS cluster {at} in {region}", "orchestrator.eks", fix)
        return
    if cluster.get("status") != "ACTIVE":
        what = f"EKS cluster {at} is {cluster.get('status')}, not ACTIVE"
        yield refused("eks", what, place, f"aws eks wait cluster-active --name {at} --region {region}")
    yield from _version(at, region, str(cluster.get("version", "")), place)
    mode = cluster.get("accessConfig", {}).get("authenticationMode")
    if mode is None:
        what = f"EKS did not say which access mode {at} has; HyperPod needs {' or '.join(_MODES)}"
        yield unknown("eks-access", what, f"{place}, Access", f"aws eks describe-cluster --name {at} --region {region}")
    elif mode not in _MODES:
        what = f"access mode of {at} is {mode}; HyperPod needs {' or '.join(_MODES)}"
        fix = f"aws eks update-cluster-config --name {at} --region {region}"
        yield refused("eks-access", what, f"{place}, Access", f"{fix} --access-config authenticationMode={_MODES[1]}")
    theirs = cluster.get("resourcesVpcConfig", {}).get("vpcId")
    if vpc and theirs and vpc.id and vpc.id != theirs:
        what = f"the subnets are in {vpc.id}, EKS cluster {at} is in {theirs}: nodes would not reach its API"
        subnets = ", ".join(cluster["resourcesVpcConfig"].get("subnetIds", ())[:1])
        groups = cluster["resourcesVpcConfig"].get("clusterSecurityGroupId") or "sg-…"
        fix = f"set network.subnets: [{subnets}]\nset network.security_groups: [{groups}]"
        yield written("eks-vpc", what, "network.subnets", fix)


def _version(at: str, region: str, version: str, place: str) -> Iterator[Finding]:
    parts = tuple(map(int, re.findall(r"\d+", version)[:2]))
    said = f"EKS cluster {at} has Kubernetes {version}; HyperPod takes 1.{OLDEST[1]} to 1.{NEWEST[1]}"
    if parts < OLDEST:
        # EKS goes one minor version at a time.
        steps = [f"1.{minor}" for minor in range(parts[1] + 1, OLDEST[1] + 1)]
        fix = "\n".join(
            f"aws eks update-cluster-version --name {at} --kubernetes-version {step} --region {region}"
            for step in steps
        )
        yield refused("eks-version", said, place, fix)
    elif parts > NEWEST:
        fix = "set orchestrator.eks to a cluster of such a version: EKS takes no version back"
        yield refused("eks-version", said, place, fix)
