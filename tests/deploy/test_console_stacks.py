"""The console's stacks: linted, created where moto knows the resources, held to API models where it does not."""

from __future__ import annotations

import io
import json
import os
import re
import time
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import boto3
import pytest
import requests
from cfnlint import lint
from cfnlint.config import ManualArgs
from moto import mock_aws, settings
from moto.awslambda.models import LambdaFunction

from hyperpd.cluster.groups import THREADS_PER_CORE
from hyperpd.deploy.console import function
from hyperpd.recipe import load
from tests.deploy import botocore_shapes
from tests.deploy.console_cluster import NATIVE, Server
from tests.deploy.console_stacks import (
    GIVEN,
    IMAGE,
    ORCHESTRATORS,
    REGION,
    Stack,
    from_s3,
    gpu_recipes,
    rendered,
    templates,
    texts,
)

CASES = [(name, orchestrator) for name in gpu_recipes() for orchestrator in ORCHESTRATORS]
# moto says CREATE_COMPLETE of these and creates nothing: the cluster is held to SageMaker's API model above, all to the
# resources' schemas (cfn-lint).
NOT_CREATED = {
    *("AWS::SageMaker::Cluster", "AWS::EC2::SecurityGroupEgress", "AWS::S3::BucketPolicy"),
    *("AWS::CodeBuild::Project", "AWS::EKS::AccessEntry", "AWS::EKS::PodIdentityAssociation"),
}
DEADLINE_S = 60
TEMPLATE_MAX_BYTES = 1_048_576  # of one in S3


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_every_template_of_every_shipped_recipe_is_clean(orchestrator, capsys):
    """cfn-lint, warnings and all. Templates alike but for names, types and counts are linted once."""
    seen: set[str] = set()
    renderings = [(name, load(name).digest, templates(name, orchestrator)) for name in gpu_recipes()]
    for name, digest, rendering in [*renderings, *([("own", "none", from_s3())] if orchestrator == "eks" else [])]:
        for file, template in rendering.items():
            text = json.dumps(template)
            like = re.sub(r"ml\.[a-z0-9-]+\.\w+|Count\": \d+", "", text.replace(name, "").replace(digest, ""))
            like = like if file != "3-serve.yaml" else _without_objects(like)
            if like in seen:
                continue
            seen.add(like)
            found = lint(text, regions=[REGION], config=ManualArgs(regions=[REGION], include_checks=["W", "E"]))
            assert not found, f"{name} {file}: " + "\n".join(str(one) for one in found)
            assert len(text.encode()) < TEMPLATE_MAX_BYTES
    assert len(seen) >= 4
    with capsys.disabled():
        print(f"\n{orchestrator}: {len(seen)} templates linted")


def _without_objects(text: str) -> str:
    return text.partition("OBJECTS = json.loads(")[0]


def test_the_lint_notices():
    template = templates("qwen3-32b-p5-4p2d", "eks")["1-cluster.yaml"]
    template["Resources"]["Cluster"]["Properties"]["InstanceGroups"][0]["InstanceType"] = 8
    template["Resources"]["SecurityGroup"]["Properties"]["Vpc"] = "x"
    found = lint(json.dumps(template), regions=[REGION], config=ManualArgs(regions=[REGION]))
    assert any("Vpc" in one.message for one in found)


@pytest.mark.parametrize(("name", "orchestrator"), CASES)
def test_requests_are_what_sagemaker_takes(name, orchestrator):
    for file, template in templates(name, orchestrator).items():
        for logical, made in Stack(template, GIVEN).resources().items():
            if made["Type"].startswith("AWS::SageMaker::"):
                operation = f"Create{made['Type'].rpartition('::')[2]}"
                request = made["Properties"] | _named(operation)
                assert botocore_shapes.problems("sagemaker", operation, request) == [], f"{file} {logical}"


def _named(operation: str) -> dict[str, str]:
    """CloudFormation makes up names that a template leaves out."""
    return {"CreateModel": {"ModelName": "a"}, "CreateEndpointConfig": {"EndpointConfigName": "a"}}.get(operation, {})


@pytest.mark.parametrize(("name", "orchestrator"), CASES)
def test_the_pasted_groups_are_what_the_stack_makes_and_what_sagemaker_takes(name, orchestrator):
    pasted = json.loads(texts(name, orchestrator)["instance-group-settings.json"])
    request = {"ClusterName": "a", "InstanceGroups": pasted}
    assert botocore_shapes.problems("sagemaker", "CreateCluster", request) == []
    template = templates(name, orchestrator)["1-cluster.yaml"]
    of_stack = Stack(template, GIVEN).resources()["Cluster"]["Properties"]["InstanceGroups"]
    role = Stack(template, GIVEN).resources()["ExecutionRole"]["Properties"]["RoleName"]
    for group, other in zip(pasted, of_stack, strict=True):
        assert group.pop("ExecutionRole").endswith(f":role/{role}")
        other.pop("ExecutionRole")
        assert group == other


@pytest.mark.parametrize("group", ["InstanceTypo", "InstanceCount"])
def test_the_api_model_notices(group):
    pasted = json.loads(texts("qwen3-32b-p5-4p2d", "eks")["instance-group-settings.json"])
    pasted[0][group] = "many"
    assert botocore_shapes.problems("sagemaker", "CreateCluster", {"ClusterName": "a", "InstanceGroups": pasted})
    assert botocore_shapes.problems("sagemaker", "CreateCluster", {"ClusterName": "-"})


@pytest.mark.parametrize(("name", "orchestrator"), CASES)
def test_nodes_are_those_of_the_recipe(name, orchestrator):
    from hyperpd import capacity

    pasted = json.loads(texts(name, orchestrator)["instance-group-settings.json"])
    made = {one["InstanceGroupName"]: (one["InstanceType"], one["InstanceCount"]) for one in pasted}
    made.pop("gateway", None)
    controller = made.pop("controller", None)
    assert (controller is not None) == (orchestrator == "slurm")
    file = load(name)
    if file.recipe.fabric == "local" and not file.recipe.aggregated:
        assert [count for _, count in made.values()] == [1]
    else:
        taken = capacity.check(file.recipe)
        assert made == {part.role: (part.instance.name, part.nodes) for part in taken.roles}
    for one in pasted:
        assert one["ThreadsPerCore"] == THREADS_PER_CORE
        assert ("SlurmConfig" in one) == (orchestrator == "slurm")


@pytest.fixture
def account(monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


def _create(name: str, template: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """Type → physical name of what a stack made."""
    client = boto3.client("cloudformation", region_name=REGION)
    known = [
        {"ParameterKey": key, "ParameterValue": given[key]} for key in template.get("Parameters", {}) if key in given
    ]
    body = json.dumps(template)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        client.create_stack(StackName=name, TemplateBody=body, Parameters=known, Capabilities=["CAPABILITY_NAMED_IAM"])
        ended = time.monotonic() + DEADLINE_S
        while (stack := client.describe_stacks(StackName=name)["Stacks"][0])["StackStatus"] == "CREATE_IN_PROGRESS":
            assert time.monotonic() < ended, "a custom resource was not answered for"
            time.sleep(0.05)
        found = client.list_stack_resources(StackName=name)["StackResourceSummaries"]
    left_out = {str(one.message).split()[3] for one in said if "not supported by moto" in str(one.message)}
    assert left_out == {one["Type"] for one in template["Resources"].values()} & NOT_CREATED
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found}


def test_the_stand_in_creates_bucket_and_slurm_network(account):
    made = templates("qwen3-32b-p5-4p2d", "slurm")
    _create("files", made["0-bucket.yaml"], {})
    buckets = boto3.client("s3", region_name=REGION).list_buckets()["Buckets"]
    assert [one["Name"] for one in buckets] == ["sagemaker-example-files"]

    given = {"S3PrefixListId": "pl-63a5400a", "AvailabilityZone": f"{REGION}a"}
    created = _create("hyperpd", made["1-cluster.yaml"], given)
    ec2 = boto3.client("ec2", region_name=REGION)
    (subnet,) = ec2.describe_subnets(SubnetIds=[created["Subnet"]])["Subnets"]
    assert subnet["AvailabilityZone"] == f"{REGION}a"
    (group,) = ec2.describe_security_groups(GroupIds=[created["SecurityGroup"]])["SecurityGroups"]
    (inward,) = group["IpPermissions"]
    assert [one["GroupId"] for one in inward["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not inward["IpRanges"]
    endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    (s3_way,) = [one for one in endpoints if one["VpcEndpointType"] == "Gateway"]
    assert s3_way["RouteTableIds"] == [created["Routes"]]
    role = boto3.client("iam").get_role(RoleName=f"hyperpd-{REGION}-execution")["Role"]
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert not boto3.client("sagemaker", region_name=REGION).list_clusters()["ClusterSummaries"]  # NOT_CREATED


def test_the_stand_in_creates_the_endpoint(account):
    template = templates("gpt-oss-120b-p6-b200-4p1d", "eks")["2-endpoint.yaml"]
    of_template = template["Resources"]["Configuration"]["Properties"]["ProductionVariants"][0]
    assert of_template["InstanceType"] == "ml.p6-b200.48xlarge"
    of_template["InstanceType"] = "ml.g4dn.12xlarge"  # moto's list of types ends in 2020
    _create("hyperpd-endpoint", template, {})
    client = boto3.client("sagemaker", region_name=REGION)
    (listed,) = client.list_endpoints()["Endpoints"]  # moto makes a name up, whatever EndpointName says
    endpoint = client.describe_endpoint(EndpointName=listed["EndpointName"])
    configuration = client.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    (variant,) = configuration["ProductionVariants"]
    container = client.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
    assert variant["InitialInstanceCount"] == 1
    assert container["Environment"]["HYPERPD_ROLE"] == "node"
    assert container["Environment"]["HYPERPD_API_ADDRESS"] == "0.0.0.0"


def test_the_stand_in_creates_the_images_repository(account):
    template = templates("qwen3-32b-p5-4p2d", "eks")["0-image.yaml"]
    _create("hyperpd-image", template, GIVEN)
    (repository,) = boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"]
    assert f"{repository['repositoryUri']}:0.1.0" == IMAGE
    assert repository["imageTagMutability"] == "IMMUTABLE"
    (role,) = boto3.client("iam").list_roles()["Roles"]
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "codebuild.amazonaws.com"}


def _run(url: str) -> Callable[..., bytes]:
    """Lambda without a container: the function that moto was given, run here. Kubernetes is at `url`."""

    def invoke(function: Any, body: str, *_: Any) -> bytes:
        event, names = json.loads(body), {"__name__": "index"}
        with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as code:
            exec(compile(code.read("index.py"), "index.py", "exec"), names)
        event["ResponseURL"] = event["ResponseURL"].replace(":5000", "")
        names["connect"] = lambda: names["Kubernetes"](url, "token", None, [].append)
        names["tell"] = lambda where, answer: requests.put(where, json=answer, timeout=10).raise_for_status()
        os.environ.update(function.environment_vars)
        names[function.handler.removeprefix("index.")](event, None)
        return b""

    return invoke


def test_the_stand_in_creates_what_serves_and_its_function_applies_the_objects(account, monkeypatch):
    """Rights are not looked at: moto has no access entries, and lets everybody do everything."""
    server = Server(NATIVE)
    for key in ("STACK", "CLUSTER"):
        monkeypatch.setenv(key, "")  # put back afterwards
    monkeypatch.setattr(LambdaFunction, "invoke", _run(server.url))
    monkeypatch.setattr(settings, "moto_server_host", lambda: f"https://cloudformation.{REGION}.amazonaws.com")
    try:
        created = _create("hyperpd-serve", templates("qwen3-32b-p5-4p2d", "eks")["3-serve.yaml"], GIVEN)
    finally:
        server.shutdown()
        server.server_close()
    listed = {
        one["FunctionName"]: one for one in boto3.client("lambda", region_name=REGION).list_functions()["Functions"]
    }
    assert set(listed) == {"hyperpd-serve", "hyperpd-serve-apply"}
    assert listed["hyperpd-serve"]["Role"] != listed["hyperpd-serve-apply"]["Role"]
    assert created["Ask"] == "hyperpd-serve"
    (stack,) = boto3.client("cloudformation", region_name=REGION).describe_stacks(StackName="hyperpd-serve")["Stacks"]
    said = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}["Said"]
    assert re.match(r"applied \d+ objects", said)
    namespaces = [one for one in server.objects.values() if one["kind"] == "Namespace"]
    assert {one["metadata"]["annotations"][function.OWNER] for one in namespaces} == {stack["StackId"]}
    assert [path for path in server.objects if path.endswith("/namespaces/hyperpd/rolebindings/ask")]


def test_one_node_is_an_endpoint_and_several_are_none():
    for name in gpu_recipes():
        one = rendered(name, "slurm")
        assert ("2-endpoint.yaml" in {document.file.rpartition("/")[2] for document in one.documents}) == (
            name in ONE_NODE
        )
        ends_early = any(lost.startswith("model: Slurm") for lost in one.not_expressed)
        assert ends_early == (name not in ONE_NODE)


ONE_NODE = {
    "gpt-oss-120b-p6-b200-2xtp4",
    "gpt-oss-120b-p6-b200-4p1d",
    "gpt-oss-120b-p6-b200-8xtp1",
    "tiny-gpu-1p1d",
}
