"""Checks one by one, where the table of broken accounts does not reach."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.names import OWNER_TAG, Place
from hyperpd.cluster.preflight import (
    addons,
    addresses,
    boto,
    bucket,
    clusters,
    eks,
    instance_types,
    keys,
    nodes,
    plans,
    routes,
    secret,
    security,
)
from hyperpd.cluster.preflight.addons import Installed
from hyperpd.cluster.preflight.bucket import Bucket
from hyperpd.cluster.preflight.caller import Caller
from hyperpd.cluster.preflight.clusters import Clusters
from hyperpd.cluster.preflight.daemonsets import DaemonSets
from hyperpd.cluster.preflight.finding import Finding
from hyperpd.cluster.preflight.vpc import Vpc
from tests.cluster.files import EKS, NETWORK, PLACE, SLURM, SLURM_FULL, plan

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def said(findings: Any) -> list[tuple[str, str]]:
    return [(one.level, one.check) for one in findings]


def vpc(**given: Any) -> Vpc:
    """One with a subnet, and what is given."""
    subnet = {"SubnetId": NETWORK["subnets"][0], "VpcId": "vpc-1", "AvailabilityZoneId": "use1-az1"}
    subnet |= {"AvailableIpAddressCount": 250, "CidrBlock": "10.0.0.0/24"}
    facts: dict[str, Any] = {
        "subnets": {subnet["SubnetId"]: subnet},
        "neighbours": [subnet],
        "groups": {},
        "tables": [],
        "endpoints": [],
        "vpcs": {"vpc-1": {"CidrBlock": "10.0.0.0/16"}},
        "types": {},
        "offers": None,
    }
    return Vpc("us-east-1", **(facts | given))


# ── boto3 and types ──


class Shape:
    """A shape of botocore's without some members."""

    def __init__(self, shape: Any, *without: str) -> None:
        self._shape, self._without = shape, without

    @property
    def members(self) -> Mapping[str, Any]:
        return {name: one for name, one in self._shape.members.items() if name not in self._without}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shape, name)


def test_an_old_boto3_lacks_a_field_and_the_newer_one_is_named() -> None:
    made = plan(EKS, continuous=True)
    (one,) = boto.check(made, Shape(boto.shape(), "NodeProvisioningMode"))
    assert (one.level, one.check, one.fix) == ("problem", "boto3", "pip install -U boto3")
    assert one.what.startswith("needs boto3 ≥ 1.")
    assert "NodeProvisioningMode" in one.what
    assert list(boto.check(made, boto.shape())) == []


def test_without_boto3_that_is_said() -> None:
    assert said(boto.check(plan(EKS), None)) == [("unknown", "boto3")]


def of(made: Blueprint) -> list[nodes.Nodes]:
    return list(nodes.of(made))


def test_types_that_only_boto3_knows_are_a_warning_where_kv_cache_is_exchanged() -> None:
    known = boto.instance_types(boto.shape())
    assert known
    assert "ml.trn2.48xlarge" in known
    made = plan(
        EKS,
        groups={"prefill": {"instance_type": "ml.trn2.48xlarge"}, "web": {"instance_type": "ml.c5.xlarge", "count": 1}},
    )
    found = list(instance_types.check(of(made), known))
    assert said(found) == [("warning", "instance-type")]
    assert "prefill" in found[0].what
    several = plan(
        EKS, groups={"prefill": {"instance_type": None, "instance_types": ["ml.p5.48xlarge", "ml.p5en.48xlagre"]}}
    )
    (one,) = instance_types.check(of(several), known)
    assert one.fix == "set groups.prefill.instance_types: [ml.p5.48xlarge, ml.p5en.48xlarge]"
    assert [each.name for each in instance_types.real(of(several), known)] == ["decode"]
    assert len(instance_types.real(of(several), None)) == 2


# ── addresses ──


@pytest.mark.parametrize(
    ("name", "interface", "slurm", "kubernetes"),
    [("ml.p5.48xlarge", None, 32, 81), ("ml.p5.48xlarge", "efa-only", 1, 50), ("ml.p5en.48xlarge", "efa", 16, 65)],
)
def test_addresses_of_a_node(name: str, interface: str | None, slurm: int, kubernetes: int) -> None:
    assert addresses.per_node(name, interface, False, {}) == slurm
    assert addresses.per_node(name, interface, True, {}) == kubernetes


def test_ec2s_own_numbers_win() -> None:
    described = {"EfaInfo": {"MaximumEfaInterfaces": 4}, "Ipv4AddressesPerInterface": 30}
    assert addresses.per_node("ml.p5.48xlarge", None, True, described) == 33
    assert addresses.per_node("ml.c5.2xlarge", None, True, {"Ipv4AddressesPerInterface": 15}) == 15


def test_groups_that_share_subnets_are_counted_together() -> None:
    made = of(plan(EKS))  # 3 nodes of 81
    assert list(addresses.check(made, vpc())) == []
    few = vpc()
    few.subnets[NETWORK["subnets"][0]]["AvailableIpAddressCount"] = 242
    (one,) = addresses.check(made, few)
    assert "243 addresses are needed (prefill 2 × 81, decode 1 × 81), 242 are free" in one.what
    # The first free block that has room, beside the subnet that is there.
    assert "--cidr-block 10.0.1.0/24 --availability-zone-id use1-az1" in one.fix
    full = vpc(vpcs={"vpc-1": {"CidrBlock": "10.0.0.0/24"}})
    full.subnets[NETWORK["subnets"][0]]["AvailableIpAddressCount"] = 0
    (one,) = addresses.check(made, full)
    assert one.fix.startswith("VPC console, vpc-1, Edit CIDRs: add a block, then make a /24")


# ── security groups ──


def rules(*others: str) -> list[dict[str, Any]]:
    return [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": one} for one in others]}]


ANYWHERE = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


def test_groups_of_nodes_with_security_groups_of_their_own_reach_each_other() -> None:
    a, b = NETWORK["security_groups"][0], "sg-0fedcba9876543210"
    own = {"subnets": NETWORK["subnets"], "security_groups": [b]}
    made = of(plan(EKS, groups={"decode": {"network": own}}))
    apart = {
        one: {"VpcId": "vpc-1", "IpPermissions": rules(one), "IpPermissionsEgress": [*rules(one), *ANYWHERE]}
        for one in (a, b)
    }
    found = list(security.check(made, vpc(groups=apart), []))
    assert {one.what.partition(":")[0] for one in found} == {
        f"{a} has no ingress rule for all traffic from {b}",
        f"{a} has no egress rule for all traffic to {b}",
        f"{b} has no ingress rule for all traffic from {a}",
        f"{b} has no egress rule for all traffic to {a}",
    }
    joined = {
        one: {"VpcId": "vpc-1", "IpPermissions": rules(a, b), "IpPermissionsEgress": [*rules(a, b), *ANYWHERE]}
        for one in (a, b)
    }
    assert list(security.check(made, vpc(groups=joined), [])) == []


def test_a_gateways_security_group_may_be_narrow() -> None:
    """Workers take its requests on their ports; it takes nothing of theirs, and nothing of itself."""
    workers, gateway = NETWORK["security_groups"][0], "sg-0fedcba9876543210"
    own = {"subnets": NETWORK["subnets"], "security_groups": [gateway]}
    made = of(plan(EKS, groups={"gateway": {"instance_type": "ml.c6i.2xlarge", "count": 1, "network": own}}))
    ports = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8100}

    def facts(let_in: list[dict[str, Any]]) -> dict[str, Any]:
        inside, out = [*rules(workers), *let_in], [*rules(workers), *ANYWHERE]
        https = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        to_workers = {**ports, "UserIdGroupPairs": [{"GroupId": workers}]}
        return {
            workers: {"VpcId": "vpc-1", "IpPermissions": inside, "IpPermissionsEgress": out},
            gateway: {"VpcId": "vpc-1", "IpPermissions": [], "IpPermissionsEgress": [to_workers, https]},
        }

    from_gateway = [{**ports, "UserIdGroupPairs": [{"GroupId": gateway}]}]
    assert list(security.check(made, vpc(groups=facts(from_gateway)), [])) == []
    shut = list(security.check(made, vpc(groups=facts([])), []))
    assert f"{workers} has no ingress rule for all traffic from {gateway}: nodes do not reach each other" in [
        one.what for one in shut
    ]
    assert not [one for one in shut if "EFA" in one.what]


def test_addresses_do_for_nodes_without_efa_and_not_for_efa() -> None:
    group = NETWORK["security_groups"][0]
    inside = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}]
    facts = {group: {"VpcId": "vpc-1", "IpPermissions": rules(group), "IpPermissionsEgress": ANYWHERE}}
    plain = {name: {"instance_type": "ml.g5.xlarge"} for name in ("prefill", "decode")}
    assert said(security.check(of(plan(EKS)), vpc(groups=facts), [])) == [("problem", "security-group")]
    assert list(security.check(of(plan(EKS, groups=plain)), vpc(groups=facts), [])) == []
    facts[group]["IpPermissions"] = inside
    (one, *_) = security.check(of(plan(EKS, groups=plain)), vpc(groups=facts), [])
    assert "no ingress rule" in one.what


def test_s3_by_its_prefix_list_will_do() -> None:
    group = NETWORK["security_groups"][0]
    to_s3 = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": [{"PrefixListId": "pl-1"}]}]
    facts = {group: {"VpcId": "vpc-1", "IpPermissions": rules(group), "IpPermissionsEgress": [*rules(group), *to_s3]}}
    made = of(plan(EKS))
    assert list(security.check(made, vpc(groups=facts), ["pl-1"])) == []
    assert list(security.check(made, vpc(groups=facts), None)) == []  # not known which it is
    (one,) = security.check(made, vpc(groups=facts), ["pl-2"])
    assert (one.check, '"pl-2"' in one.fix) == ("security-group-s3", True)


def endpoint(kind: str, **given: Any) -> dict[str, Any]:
    service = "com.amazonaws.us-east-1.s3"
    return {"VpcEndpointId": "vpce-1", "ServiceName": service, "VpcEndpointType": kind, "State": "available", **given}


@pytest.mark.parametrize(
    ("route", "endpoints", "level"),
    [
        ({}, [], "problem"),
        ({"NatGatewayId": "nat-1"}, [], "warning"),
        ({"CoreNetworkArn": "arn:aws:networkmanager::1:core-network/a"}, [], "warning"),
        ({"NatGatewayId": "nat-1", "State": "blackhole"}, [], "problem"),
        ({}, [endpoint("Interface", PrivateDnsEnabled=True)], "warning"),
        ({}, [endpoint("Interface", PrivateDnsEnabled=False)], "problem"),
        (
            {},
            [
                endpoint(
                    "Interface", PrivateDnsEnabled=True, DnsOptions={"PrivateDnsOnlyForInboundResolverEndpoint": True}
                )
            ],
            "problem",
        ),
        ({}, [endpoint("Gateway", RouteTableIds=["rtb-1"])], ""),
    ],
)
def test_ways_to_s3(route: dict[str, str], endpoints: list[dict[str, Any]], level: str) -> None:
    leads = [{"DestinationCidrBlock": "0.0.0.0/0", **route}] if route else []
    table = {"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Associations": [{"Main": True}], "Routes": leads}
    found = said(routes.check(of(plan(EKS)), vpc(tables=[table], endpoints=endpoints)))
    assert found == ([(level, "s3-endpoint")] if level else [])


# ── training plans ──


def training(**given: Any) -> dict[str, Any]:
    window = {"StartTime": NOW - timedelta(days=1), "EndTime": NOW + timedelta(days=9)}
    return {"Status": "Active", "TargetResources": ["hyperpod-cluster"], **window, **given}


@pytest.mark.parametrize(
    ("given", "level", "says"),
    [
        ({"StartTime": NOW + timedelta(hours=2), "Status": "Scheduled"}, "problem", "begins 2026-11-25 02:00 UTC"),
        ({"EndTime": NOW + timedelta(hours=3)}, "warning", "ends in 3 h"),
        ({"EndTime": NOW}, "problem", "it ended 2026-11-25 00:00 UTC"),
        ({"TargetResources": ["endpoint"]}, "problem", "is for endpoint, not for hyperpod-cluster"),
        ({"Status": "Failed"}, "problem", "is Failed"),
    ],
)
def test_the_window_of_a_training_plan(given: dict[str, Any], level: str, says: str) -> None:
    arn = f"arn:aws:sagemaker:{PLACE.region}:{PLACE.account}:training-plan/may"
    made = of(plan(EKS, groups={"prefill": {"training_plan": arn}}))
    assert list(plans.check(made, {arn: training()}, NOW)) == []
    (one,) = plans.check(made, {arn: training(**given)}, NOW)
    assert (one.level, says in one.what) == (level, True)


# ── clusters ──


def described(name: str, **given: Any) -> dict[str, Any]:
    return {"ClusterName": name, "ClusterStatus": "InService", "InstanceGroups": [], **given}


def test_whose_cluster_it_is() -> None:
    made = plan(EKS)
    ours = {OWNER_TAG: "pd"}
    assert said(clusters.check(made, Clusters((described("pd"),), ours))) == [("warning", "name")]
    assert said(clusters.check(made, Clusters((described("pd"),), {}))) == [("problem", "name")]
    failed = Clusters((described("pd", ClusterStatus="Failed", FailureMessage="no capacity"),), ours)
    (one,) = clusters.check(made, failed)
    assert ("no capacity" in one.what, one.fix) == (True, "hyperpd cluster delete pd --region us-east-1")
    (one,) = clusters.check(made, Clusters((described("pd"), described("pd-2")), None))
    assert one.fix == "set name: pd-3"


def test_an_eks_cluster_takes_one_hyperpod_cluster() -> None:
    made = plan(EKS)
    other = described("other", Orchestrator={"Eks": {"ClusterArn": made.eks_arn}})
    assert said(clusters.check(made, Clusters((other,), None))) == [("problem", "eks-taken")]
    assert list(clusters.check(made, Clusters((other | {"ClusterStatus": "Deleting"},), None))) == []
    assert list(clusters.check(plan(SLURM), Clusters((other,), None))) == []


def test_nodes_that_are_there_need_nothing_more() -> None:
    made = plan(EKS)
    there = described("pd", InstanceGroups=[{"InstanceGroupName": "prefill", "CurrentCount": 1}])
    coming = clusters.coming(made, of(made), Clusters((there,), None))
    assert {one.name: one.count for one in coming} == {"prefill": 1, "decode": 1}
    # While it is created: what was asked for is not asked for again.
    there["InstanceGroups"] = [{"InstanceGroupName": "prefill", "CurrentCount": 0, "TargetCount": 2}]
    coming = clusters.coming(made, of(made), Clusters((there,), None))
    assert {one.name: one.count for one in coming} == {"prefill": 0, "decode": 1}


# ── EKS ──


def cluster(**given: Any) -> dict[str, Any]:
    return {"status": "ACTIVE", "version": "1.33", "accessConfig": {"authenticationMode": "API"}, **given}


@pytest.mark.parametrize(("version", "right"), [("1.27", False), ("1.28", True), ("1.34", True), ("1.35", False)])
def test_versions_of_eks(version: str, right: bool) -> None:
    found = said(eks.check(plan(EKS), cluster(version=version), [], None))
    assert found == ([] if right else [("problem", "eks-version")])


def test_access_and_status_of_eks() -> None:
    assert said(eks.check(plan(EKS), cluster(accessConfig={}), [], None)) == [("unknown", "eks-access")]
    assert said(eks.check(plan(EKS), cluster(status="UPDATING"), [], None)) == [("problem", "eks")]


CNI = {"status": "ACTIVE", "addonVersion": "v1.18.3-eksbuild.1", "configurationValues": "enableNetworkPolicy: 'true'"}
OPERATOR = {"status": "ACTIVE", "addonVersion": "v2.2.1-eksbuild.1"}
RIGHT = {addons.CNI: CNI, addons.OPERATOR: OPERATOR}
PLUGINS = DaemonSets(("aws-efa-k8s-device-plugin", "nvidia-device-plugin"))


def installed(there: dict[str, Any], daemonsets: DaemonSets = PLUGINS, **newest: str) -> list[Finding]:
    """Findings of what is installed."""
    return list(addons.check("prod", "us-east-1", of(plan(EKS)), Installed(there, newest, daemonsets)))


def test_add_ons() -> None:
    assert installed(RIGHT) == []
    assert said(installed({addons.OPERATOR: OPERATOR})) == [("unknown", "vpc-cni")]
    (one,) = installed({addons.CNI: CNI})
    assert (one.level, one.check, "Quick install" in one.fix) == ("warning", "inference-operator", True)
    kept = installed(RIGHT | {addons.CNI: CNI | {"configurationValues": '{"env": {"A": "1"}}'}})
    assert said(kept) == [("warning", "network-policy")]
    assert '"env": {"A": "1"}, "enableNetworkPolicy": "true"' in kept[0].fix  # what was set stays
    for unread in RIGHT:
        assert installed(RIGHT | {unread: {}}) == []
    (one,) = installed(RIGHT | {addons.CNI: CNI | {"addonVersion": "v1.18.2-eksbuild.9"}})
    assert one.fix.startswith("EKS console")  # which version there is could not be read


def test_device_plugins() -> None:
    found = installed(RIGHT, DaemonSets((), "its API does not answer from here: ConnectTimeout"))
    assert said(found) == [("unknown", "efa-plugin"), ("unknown", "nvidia-plugin")]
    assert "ConnectTimeout" in found[0].what
    assert "kubectl get daemonsets" in found[0].fix
    assert said(installed(RIGHT, DaemonSets(("nvidia-device-plugin",)))) == [("problem", "efa-plugin")]
    # EKS's own, where it has them.
    assert installed(RIGHT | {"aws-efa-device-plugin": {}, "nvidia-gpu": {}}, DaemonSets(())) == []


# ── keys, buckets and callers ──


def test_the_policy_of_each_key_is_named_as_unknown() -> None:
    key, role = "arn:aws:kms:us-east-1:123456789012:key/abc", "arn:aws:iam::123456789012:role/other"
    volumes = [{"root": True, "kms_key": key}, {"size_gb": 9, "kms_key": key}]
    groups = {"prefill": {"volumes": volumes}, "decode": {"volumes": volumes[:1], "role": role}}
    made = plan(EKS, continuous=True, groups=groups)
    (one,) = keys.check(made)
    assert (one.level, one.check, key in one.what) == ("unknown", "key-policy", True)
    assert f"kms:CreateGrant and kms:DescribeKey to {made.names.role_arn}, {role}" in one.what
    assert one.where == "KMS console, Customer managed keys, abc, Key policy"
    assert list(keys.check(plan(EKS))) == []


def test_the_secret_of_the_accounting_database() -> None:
    made, key = plan(SLURM_FULL), "arn:aws:kms:us-east-1:123456789012:key/abc"
    named = made.accounting_secret
    assert named
    assert plan(SLURM).accounting_secret is plan(EKS).accounting_secret is None
    assert list(secret.check(made, named, {"ARN": named})) == []
    assert list(secret.check(made, named, {"ARN": named, "KmsKeyId": "alias/aws/secretsmanager"})) == []
    (one,) = secret.check(made, named, {})
    assert (one.level, one.check) == ("problem", "accounting-secret")
    assert "there is no secret slurm-AbCdEf in us-east-1" in one.what
    (one,) = secret.check(made, named, {"ARN": named, "KmsKeyId": key})
    assert (one.level, one.check) == ("unknown", "key-policy")
    assert f"whether it lets {made.names.role_arn} kms:Decrypt" in one.what


def test_classic_slurm_lists_its_groups_in_a_file() -> None:
    made = plan(SLURM)
    listed = {"controller_group": "controller", "worker_groups": [{"instance_group_name": "prefill"}]}
    one = Bucket("sagemaker-a", "lifecycle.source", "there", PLACE.region, {}, listed)
    assert said(bucket.check(made, [one])) == [("warning", "provisioning-parameters")]
    lost = Bucket("sagemaker-a", "lifecycle.source", "there", PLACE.region, {}, {"controller_group": "controller"})
    (found,) = bucket.check(made, [lost])
    assert (found.level, "names no group prefill" in found.what) == ("problem", True)


@pytest.mark.parametrize(
    ("arn", "fix"),
    [
        ("user/path/ada", "aws iam put-user-policy --user-name ada "),
        ("assumed-role/ops/i-1", "aws iam put-role-policy --role-name ops "),
        (
            "assumed-role/AWSReservedSSO_Admins_0123456789abcdef/ada",
            "IAM Identity Center console, Permission sets, Admins: allow it with ",
        ),
        ("federated-user/ada", "arn:aws:sts::1:federated-user/ada: allow it with "),
    ],
)
def test_who_is_given_a_permission_where(arn: str, fix: str) -> None:
    caller = Caller(f"arn:aws:sts::1:{arn}", Place("1", "us-east-1"))
    granted = caller.grant([{"Effect": "Allow", "Action": ["a:B"], "Resource": "*"}], "hyperpd-plan")
    assert granted.startswith(fix)
    assert '"Action": ["a:B"], "Resource": "*"' in granted
