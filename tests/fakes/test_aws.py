"""The other services behind the gate: told apart, written down, denied in their own words, cut off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from tests.fakes.aws import Aws
from tests.fakes.gate import ACCOUNT, CALLER, REGION
from tests.fakes.hyperpod import Cut, Expire, LifecycleFailure, Throttle, example

BUCKET, REGIONAL = "sagemaker-pd", {"LocationConstraint": REGION}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})


def prepare(aws: Aws) -> dict[str, Any]:
    """What a cluster on EKS needs, behind the gate; the request that names it."""
    ec2, iam, s3 = (aws.stage.client(name) for name in ("ec2", "iam", "s3"))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    zone = {"VpcId": vpc, "CidrBlock": "10.0.1.0/24", "AvailabilityZone": "us-east-2b"}
    subnet = ec2.create_subnet(**zone)["Subnet"]["SubnetId"]
    firewall = ec2.create_security_group(GroupName="pd", Description="pd", VpcId=vpc)["GroupId"]
    role = iam.create_role(RoleName="hyperpod", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    network = {"subnetIds": [subnet]}
    arn = aws.stage.client("eks").create_cluster(name="pd", roleArn=role, resourcesVpcConfig=network)["cluster"]["arn"]
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=REGIONAL)
    s3.put_object(Bucket=BUCKET, Key="lifecycle/on_create.sh", Body=b"#!/bin/sh\n")
    assert (role, arn) == (example.ROLE, example.EKS)
    return example.eks(VpcConfig={"SecurityGroupIds": [firewall], "Subnets": [subnet]})


@pytest.fixture
def aws() -> Iterator[Aws]:
    with Aws() as aws:
        yield aws


def test_a_cluster_sees_what_is_in_the_other_services(aws: Aws) -> None:
    request = prepare(aws)
    client = aws.client("sagemaker")
    client.create_cluster(**request)
    aws.control.advance(3600)
    (first, _) = client.list_cluster_nodes(ClusterName="pd")["ClusterNodeSummaries"]
    node = client.describe_cluster_node(ClusterName="pd", NodeId=first["InstanceId"])["NodeDetails"]
    assert node["Placement"]["AvailabilityZone"] == "us-east-2b"
    assert [call.service for call in aws.calls] == ["sagemaker"] * 3  # setting the stage is not written down


def test_a_cluster_misses_what_is_not_there(aws: Aws) -> None:
    client = aws.client("sagemaker")
    with pytest.raises(client.exceptions.ClientError) as refused:
        client.create_cluster(**example.eks())
    said = refused.value.response["Error"]["Message"]
    for one in (example.ROLE, "subnet-0a", "sg-0a", "No EKS cluster found for name: pd"):
        assert one in said
    aws.stage.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=REGIONAL)
    aws.stage.client("iam").create_role(RoleName="hyperpod", AssumeRolePolicyDocument=TRUST)
    client.create_cluster(**example.slurm())
    aws.control.advance(3600)
    assert "on_create.sh is not there" in client.describe_cluster(ClusterName="pd")["FailureMessage"]


def test_a_failed_script_leaves_its_log() -> None:
    with Aws(LifecycleFailure(log=("mounting", "no route to host"))) as aws:
        arn = aws.client("sagemaker").create_cluster(**prepare(aws))["ClusterArn"]
        aws.control.advance(600)
        node = aws.control.nodes("pd")[0]
        logs = aws.client("logs")
        group = f"/aws/sagemaker/Clusters/pd/{arn.rpartition('/')[2]}"
        found = logs.get_log_events(logGroupName=group, logStreamName=f"LifecycleConfig/prefill/{node.instance_id}")
        assert [event["message"] for event in found["events"]] == ["mounting", "no route to host"]


def call_each(aws: Aws) -> None:
    """One call to each service in each of its protocols, through the gate."""
    s3 = aws.client("s3", config=ONCE)
    s3.create_bucket(Bucket="pd-1", CreateBucketConfiguration=REGIONAL)
    s3.put_object(Bucket="pd-1", Key="a/b c", Body=b"x" * 100_000)
    assert s3.head_object(Bucket="pd-1", Key="a/b c")["ContentLength"] == 100_000
    assert len(s3.get_object(Bucket="pd-1", Key="a/b c")["Body"].read()) == 100_000
    s3.copy_object(Bucket="pd-1", Key="c", CopySource={"Bucket": "pd-1", "Key": "a/b c"})
    assert s3.list_objects_v2(Bucket="pd-1", Prefix="a/")["KeyCount"] == 1
    s3.put_bucket_tagging(Bucket="pd-1", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.get_bucket_location(Bucket="pd-1")
    s3.delete_objects(Bucket="pd-1", Delete={"Objects": [{"Key": "c"}]})
    s3.list_buckets()
    iam = aws.client("iam")
    iam.create_role(RoleName="a", AssumeRolePolicyDocument=TRUST)
    iam.get_role(RoleName="a")
    aws.client("ec2").describe_subnets()
    aws.client("eks").create_cluster(
        name="a", roleArn=f"arn:aws:iam::{ACCOUNT}:role/a", resourcesVpcConfig={"subnetIds": ["subnet-1"]}
    )
    aws.client("eks").list_addons(clusterName="a", maxResults=5)
    aws.client("logs").create_log_group(logGroupName="/a")
    aws.client("cloudwatch").list_metrics()
    aws.client("cloudformation").list_stacks()
    aws.client("service-quotas").list_service_quotas(ServiceCode="sagemaker")
    aws.client("pricing").get_products(ServiceCode="AmazonSageMaker")


ASKED = {
    ("s3:CreateBucket", "arn:aws:s3:::pd-1"),
    ("s3:PutObject", "arn:aws:s3:::pd-1/a/b c"),
    ("s3:GetObject", "arn:aws:s3:::pd-1/a/b c"),
    ("s3:PutObject", "arn:aws:s3:::pd-1/c"),
    ("s3:ListBucket", "arn:aws:s3:::pd-1"),
    ("s3:PutBucketTagging", "arn:aws:s3:::pd-1"),
    ("s3:GetBucketLocation", "arn:aws:s3:::pd-1"),
    ("s3:DeleteObject", "arn:aws:s3:::pd-1/c"),
    ("s3:ListAllMyBuckets", "*"),
    ("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/a"),
    ("iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/a"),
    ("ec2:DescribeSubnets", "*"),
    ("eks:CreateCluster", f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/a"),
    ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/a"),
    ("eks:ListAddons", f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/a"),
    ("logs:CreateLogGroup", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/a:*"),
    ("cloudwatch:ListMetrics", "*"),
    ("cloudformation:ListStacks", "*"),
    ("servicequotas:ListServiceQuotas", "*"),
    ("pricing:GetProducts", "*"),
}


STATEMENTS = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in sorted(ASKED)]


def test_a_policy_of_every_action_and_resource_that_was_told_is_enough() -> None:
    with Aws(allow={"Statement": STATEMENTS}) as aws:
        call_each(aws)
        assert {call.error for call in aws.calls} == {""}
        assert aws.gate.actions() == ASKED


@pytest.mark.parametrize("left_out", ["s3:GetObject", "iam:PassRole"])
def test_one_action_less_is_not(left_out: str) -> None:
    with Aws(allow={"Statement": [one for one in STATEMENTS if one["Action"] != left_out]}) as aws:
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            call_each(aws)
        said = refused.value.response["Error"]
        assert left_out in said["Message"] or said["Code"] == "403", said


@pytest.mark.parametrize(
    ("service", "operation", "asked", "code"),
    [
        ("s3", "list_buckets", {}, "AccessDenied"),
        ("s3", "head_object", {"Bucket": "a", "Key": "b"}, "403"),
        ("iam", "get_role", {"RoleName": "a"}, "AccessDenied"),
        ("ec2", "describe_vpcs", {}, "UnauthorizedOperation"),
        ("eks", "list_clusters", {}, "AccessDeniedException"),
        ("logs", "describe_log_groups", {}, "AccessDeniedException"),
        ("cloudwatch", "list_metrics", {}, "AccessDeniedException"),
        ("cloudformation", "list_stacks", {}, "AccessDeniedException"),
        ("service-quotas", "list_service_quotas", {"ServiceCode": "sagemaker"}, "AccessDeniedException"),
        ("sagemaker", "list_clusters", {}, "AccessDeniedException"),
    ],
)
def test_each_service_denies_in_its_own_words(service: str, operation: str, asked: dict[str, Any], code: str) -> None:
    with Aws(allow=["none:None"]) as aws:
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            getattr(aws.client(service), operation)(**asked)
        assert refused.value.response["Error"]["Code"] == code
        assert "not authorized" in refused.value.response["Error"]["Message"] or code == "403"


def test_one_counter_for_all_services() -> None:
    with Aws(Cut(3, after_effect=True), Throttle(1, "s3:ListBuckets")) as aws:
        s3 = aws.client("s3", config=ONCE)
        with pytest.raises(botocore.exceptions.ClientError, match="SlowDown"):
            s3.list_buckets()
        aws.client("sagemaker").list_clusters()
        with pytest.raises(botocore.exceptions.ConnectionClosedError):
            s3.create_bucket(Bucket="pd-2", CreateBucketConfiguration=REGIONAL)
        assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["pd-2"]


def test_keys_expire_for_all_services_at_once() -> None:
    with Aws(Expire(at=2)) as aws:
        aws.client("s3").list_buckets()
        for service, operation, code in (
            ("sts", "get_caller_identity", "ExpiredToken"),
            ("s3", "list_buckets", "ExpiredToken"),
            ("sagemaker", "list_clusters", "ExpiredTokenException"),
        ):
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                getattr(aws.client(service), operation)()
            assert refused.value.response["Error"]["Code"] == code


def test_the_caller_and_what_he_may() -> None:
    statement = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": example.ROLE}
    statement["Condition"] = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}  # type: ignore[assignment]
    may = {"Effect": "Allow", "Action": "iam:SimulatePrincipalPolicy", "Resource": "*"}
    with Aws(allow={"Statement": [statement, may]}) as aws:
        who = aws.client("sts").get_caller_identity()
        assert (who["Arn"], who["Account"]) == (CALLER, ACCOUNT)
        service = {"ContextKeyName": "iam:PassedToService", "ContextKeyType": "string"}
        asked = {"ActionNames": ["iam:PassRole", "sagemaker:CreateCluster"], "ResourceArns": [example.ROLE]}
        context = [{**service, "ContextKeyValues": ["sagemaker.amazonaws.com"]}]
        found = aws.client("iam").simulate_principal_policy(PolicySourceArn=CALLER, ContextEntries=context, **asked)
        assert [one["EvalDecision"] for one in found["EvaluationResults"]] == ["allowed", "implicitDeny"]


def test_what_moto_lacks_stands_beside_it(aws: Aws) -> None:
    prepare(aws)
    aws.quotas.clusters |= {f"ml.g6.{size}xlarge": 4 for size in range(2, 130)}
    aws.quotas.clusters["ml.p5.48xlarge"] = 2
    quotas = aws.client("service-quotas")
    pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    found = {one["QuotaName"]: one for page in pages for one in page["Quotas"]}
    assert (len(found), found["ml.p5.48xlarge for cluster usage"]["Value"]) == (129, 2.0)
    code = found["ml.p5.48xlarge for cluster usage"]["QuotaCode"]
    assert quotas.get_service_quota(ServiceCode="sagemaker", QuotaCode=code)["Quota"]["Value"] == 2.0
    with pytest.raises(quotas.exceptions.NoSuchResourceException):
        quotas.get_service_quota(ServiceCode="sagemaker", QuotaCode="L-00000000")

    eks = aws.client("eks")
    aws.eks.addon("pd", "vpc-cni", "v1.20.4-eksbuild.2", enableNetworkPolicy="false")
    assert eks.list_addons(clusterName="pd")["addons"] == ["vpc-cni"]
    settings = eks.describe_addon(clusterName="pd", addonName="vpc-cni")["addon"]["configurationValues"]
    assert json.loads(settings) == {"enableNetworkPolicy": "false"}
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        eks.describe_addon(clusterName="pd", addonName="aws-efa-k8s-device-plugin")
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        eks.list_addons(clusterName="no-such")
    with pytest.raises(eks.exceptions.ResourceInUseException):
        eks.create_addon(clusterName="pd", addonName="vpc-cni")
    eks.create_access_entry(clusterName="pd", principalArn=example.ROLE)
    scope = {"clusterName": "pd", "principalArn": example.ROLE, "accessScope": {"type": "cluster"}}
    policy = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
    eks.associate_access_policy(**scope, policyArn=policy)
    assert eks.list_access_entries(clusterName="pd")["accessEntries"] == [example.ROLE]
    listed = eks.list_associated_access_policies(clusterName="pd", principalArn=example.ROLE)
    assert [one["policyArn"] for one in listed["associatedAccessPolicies"]] == [policy]

    aws.prices.hourly["ml.p5.48xlarge"] = 60.5
    wanted = {"Type": "TERM_MATCH", "Field": "instanceName", "Value": "ml.p5.48xlarge"}
    (product,) = aws.client("pricing").get_products(ServiceCode="AmazonSageMaker", Filters=[wanted])["PriceList"]
    assert '"USD": "60.5000000000"' in product


def test_a_process_finds_everything_by_its_environment(aws: Aws) -> None:
    script = "import boto3; print([boto3.client(one).meta.endpoint_url for one in ('sagemaker', 's3', 'iam')])"
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{script}\nboto3.client('sagemaker').list_clusters(); boto3.client('s3').list_buckets()",
        ],
        env={"PATH": os.environ["PATH"], **aws.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == str([aws.control.url, aws.url, aws.url])
    assert [(call.service, call.operation) for call in aws.calls] == [
        ("sagemaker", "ListClusters"),
        ("s3", "ListBuckets"),
    ]


def test_managed_policies_can_be_attached(aws: Aws) -> None:
    iam = aws.client("iam")
    iam.create_role(RoleName="a", AssumeRolePolicyDocument=TRUST)
    managed = "arn:aws:iam::aws:policy/AmazonSageMakerClusterInstanceRolePolicy"
    iam.attach_role_policy(RoleName="a", PolicyArn=managed)
    assert [one["PolicyArn"] for one in iam.list_attached_role_policies(RoleName="a")["AttachedPolicies"]] == [managed]


def test_an_eks_cluster_says_how_its_api_authenticates(aws: Aws) -> None:
    eks, network = aws.client("eks"), {"subnetIds": ["subnet-1"]}
    made = {"roleArn": example.ROLE, "resourcesVpcConfig": network}
    eks.create_cluster(name="old", **made)
    aws.stage.client("eks").create_cluster(name="new", **made, accessConfig={"authenticationMode": "API"})
    modes = {name: eks.describe_cluster(name=name)["cluster"]["accessConfig"] for name in ("old", "new")}
    assert modes == {"old": {"authenticationMode": "CONFIG_MAP"}, "new": {"authenticationMode": "API"}}
    aws.eks.clusters["new"]["version"] = "1.27"
    assert eks.describe_cluster(name="new")["cluster"]["version"] == "1.27"
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        eks.describe_cluster(name="no")
    assert {call.operation for call in aws.calls} == {"CreateCluster", "DescribeCluster"}
    assert len(aws.calls) == 5


def test_the_cause_of_a_failed_stack_is_levels_below(aws: Aws) -> None:
    client = aws.client("cloudformation")
    arn = aws.stacks.fail("pd", ("Outer", "Inner"), "AWS::SageMaker::Cluster", "EFA health checks did not run")
    client.create_stack(StackName="other", TemplateBody=json.dumps({"Resources": {"B": {"Type": "AWS::S3::Bucket"}}}))
    assert client.describe_stacks(StackName="other")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    (root,) = client.describe_stacks(StackName=arn)["Stacks"]
    assert (root["StackName"], root["StackStatus"]) == ("pd", "ROLLBACK_COMPLETE")
    seen, asked = [], arn
    while asked.startswith("arn:aws:cloudformation:"):
        events = client.describe_stack_events(StackName=asked)["StackEvents"]
        failed = [one for one in reversed(events) if one["ResourceStatus"] == "CREATE_FAILED"]
        seen.append(failed[0]["ResourceStatusReason"])
        asked = failed[0]["PhysicalResourceId"]
        assert events[0]["Timestamp"] > events[-1]["Timestamp"]
    assert [("Embedded stack" in one) for one in seen] == [True, True, False]
    assert seen[-1] == "EFA health checks did not run"
    summaries = client.list_stack_resources(StackName="pd")["StackResourceSummaries"]
    assert [one["LogicalResourceId"] for one in summaries] == ["Outer"]


def test_one_url_is_enough(aws: Aws) -> None:
    aws.client("sagemaker", endpoint_url=aws.url).list_clusters()
    runtime = aws.client("sagemaker-runtime")
    runtime.invoke_endpoint(EndpointName="pd", Body=b"{}")
    assert [call.operation for call in aws.calls] == ["ListClusters", "InvokeEndpoint"]


def test_a_call_that_nobody_knows_is_an_error_of_the_test() -> None:
    aws = Aws()
    with aws:
        request = AWSRequest("GET", f"{aws.url}/no/such/path")
        SigV4Auth(Credentials("a", "b"), "eks", REGION).add_auth(request)
        httpx.get(request.url, headers=dict(request.headers))
        (wrong,), aws.broken = aws.broken, []
    assert wrong == "no operation of eks: GET /no/such/path"


def test_nothing_is_left_for_the_next() -> None:
    for _ in range(2):
        with Aws() as aws:
            assert aws.client("s3").list_buckets()["Buckets"] == []
            aws.client("s3").create_bucket(Bucket="pd-3", CreateBucketConfiguration=REGIONAL)
