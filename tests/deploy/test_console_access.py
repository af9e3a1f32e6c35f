"""The target console: who takes on a role, and what each may do."""

from __future__ import annotations

import pytest

from hyperpd import deploy
from hyperpd.deploy.console import access
from tests.deploy.console_stacks import (
    ACCOUNT,
    GIVEN,
    IMAGE,
    ORCHESTRATORS,
    Stack,
    from_s3,
    gpu_recipes,
    own,
    own_file,
    statements,
    templates,
)


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_no_right_is_wider_than_aws_demands(orchestrator):
    used = set()
    for name in gpu_recipes():
        for file, template in templates(name, orchestrator).items():
            for statement in statements(Stack(template, GIVEN).resources()):
                where = f"{name} {file} {statement['Sid']}"
                actions, resources = statement["Action"], statement["Resource"]
                assert not [action for action in actions if "*" in action or "?" in action], where
                assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement), where
                if resources == "*":
                    assert [action for action in actions if action not in access.EVERYTHING] == [], where
                    used |= set(actions)
                    continue
                for arn in resources:
                    _, _, service, _, _, rest = arn.split(":", 5)
                    assert service not in ("", "*"), where
                    assert not rest.startswith("*"), where
                    assert service in {action.partition(":")[0] for action in actions} | {"eks"}, where
    assert used  # and none of the list is there for nothing
    if orchestrator == "eks":
        assert used == set(access.EVERYTHING)
    assert all(access.EVERYTHING.values())


def test_the_walk_over_rights_finds_statements():
    template = templates("qwen3-32b-p5-4p2d", "eks")["1-cluster.yaml"]
    assert {one["Sid"] for one in statements(template)} >= {"LifecycleRead", "MakeInterfaces", "PodIdentity"}


def test_an_endpoint_reads_its_model_and_nothing_else():
    model = {"s3": "s3://models-example/llama/v3/"}
    made = own({"model": model, "aggregated": {"instance_type": "ml.g6e.12xlarge"}}, "orchestrator=slurm")
    role = Stack(made["2-endpoint.yaml"], {}).resources()["ExecutionRole"]
    found = {one["Sid"]: one["Resource"] for one in statements(role)}
    assert found["ModelRead"] == ["arn:aws:s3:::models-example/llama/v3/*"]
    assert found["ModelList"] == ["arn:aws:s3:::models-example"]
    assert found["PullImage"] == ["arn:aws:ecr:us-east-1:123456789012:repository/team/hyperpd"]


def test_an_endpoint_may_do_what_the_target_sagemaker_endpoint_says():
    text = {"model": {"s3": "s3://models-example/llama"}, "aggregated": {"instance_type": "ml.g6e.12xlarge"}}
    of_stack = Stack(own(text, "orchestrator=slurm")["2-endpoint.yaml"], {}).resources()["ExecutionRole"]
    settings = (f"image={IMAGE}", f"role_arn=arn:aws:iam::{ACCOUNT}:role/a", "endpoint_name=hyperpd")
    documents = deploy.render(own_file(text), "sagemaker_endpoint", settings).documents
    (policy,) = [one.body for one in documents if one.file == "1-role-policy.json"]
    assert [*statements(of_stack)] == [*statements(policy)]


def test_nothing_is_read_from_buckets_of_other_accounts():
    """As the target sagemaker_endpoint has it."""
    model, node = {"s3": "s3://models-example/llama"}, {"instance_type": "ml.g6e.12xlarge"}
    read = 0
    for orchestrator in ORCHESTRATORS:
        for template in own({"model": model, "aggregated": node}, f"orchestrator={orchestrator}").values():
            for one in statements(Stack(template, GIVEN).resources()):
                if one["Action"][0].startswith("s3:"):
                    assert one["Condition"]["StringEquals"] == {"aws:ResourceAccount": ACCOUNT}, one["Sid"]
                    read += 1
    assert read >= 8


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_services_take_on_roles_for_this_account_only(orchestrator):
    """But for HyperPod, of which it is not documented that it says for whom it acts."""
    seen = set()
    for name in gpu_recipes():
        for file, template in templates(name, orchestrator).items():
            for logical, one in Stack(template, GIVEN).resources().items():
                if one["Type"] == "AWS::IAM::Role":
                    (trust,) = one["Properties"]["AssumeRolePolicyDocument"]["Statement"]
                    said = trust.get("Condition", {}).get("StringEquals", {}).get("aws:SourceAccount")
                    assert said == (None if file == "1-cluster.yaml" else ACCOUNT), f"{name} {file} {logical}"
                    seen.add(trust["Principal"]["Service"])
    assert seen >= {"sagemaker.amazonaws.com", "codebuild.amazonaws.com", "lambda.amazonaws.com"}


def test_pods_read_their_model_from_s3_and_nothing_else():
    made = from_s3()["3-serve.yaml"]
    resources = Stack(made, GIVEN).resources()
    role, association = resources["ModelRole"], resources["ModelAccess"]["Properties"]
    found = {one["Sid"]: one["Resource"] for one in statements(role)}
    assert found == {
        "ModelRead": ["arn:aws:s3:::models-example/llama/v3/*"],
        "ModelList": ["arn:aws:s3:::models-example"],
    }
    (trust,) = role["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert trust["Condition"]["StringEquals"] == {
        "aws:SourceAccount": ACCOUNT,
        "aws:RequestTag/eks-cluster-name": "prod",
        "aws:RequestTag/kubernetes-namespace": "team-engines",
        "aws:RequestTag/kubernetes-service-account": "engines",
    }
    # The account that the engines' pods have.
    names = made["Resources"]["Objects"]["Properties"]["Objects"]
    assert f"v1 ServiceAccount {association['Namespace']} {association['ServiceAccount']}" in names
    assert association["ClusterName"] == "prod"
    assert "ModelAccess" in made["Resources"]["Objects"]["DependsOn"]  # pods are given it as they start


def test_who_asks_may_do_nothing_else():
    """In AWS: find the cluster, write a log. In Kubernetes: a group, whose one right test_console_function tries."""
    made = Stack(templates("qwen3-32b-p5-4p2d", "eks")["3-serve.yaml"], GIVEN).resources()
    assert {action for one in statements(made["AskRole"]) for action in one["Action"]} == {
        *("eks:DescribeCluster", "logs:CreateLogStream", "logs:PutLogEvents")
    }
    entry = made["AskEntry"]["Properties"]
    assert entry["KubernetesGroups"] == ["hyperpd:ask"]
    assert "AccessPolicies" not in entry
    assert made["ApplyEntry"]["Properties"]["AccessPolicies"][0]["AccessScope"] == {"Type": "cluster"}
    assert "OBJECTS = " not in made["Ask"]["Properties"]["Code"]["ZipFile"]


def test_nodes_pull_the_image_and_nothing_else_of_the_account():
    role = Stack(templates("qwen3-32b-p5-4p2d", "eks")["1-cluster.yaml"], GIVEN).resources()["ExecutionRole"]
    pulls = {one["Sid"]: one for one in statements(role) if "ecr:BatchGetImage" in one["Action"]}
    assert set(pulls) == {"PullImage", "PullAddOns"}
    assert pulls["PullImage"]["Resource"] == ["arn:aws:ecr:us-east-1:123456789012:repository/team/hyperpd"]
    assert pulls["PullAddOns"]["Condition"] == {"StringNotEquals": {"aws:ResourceAccount": "123456789012"}}


def test_a_group_of_ones_own_is_added():
    template = templates("qwen3-32b-p5-4p2d", "slurm")["1-cluster.yaml"]
    for given, count in ((GIVEN, 1), (GIVEN | {"ExtraSecurityGroupId": "sg-01234567"}, 2)):
        made = Stack(template, given).resources()
        assert len(made["Cluster"]["Properties"]["VpcConfig"]["SecurityGroupIds"]) == count
        (may,) = [one for one in statements(made["ExecutionRole"]) if one["Sid"] == "MakeInterfaces"]
        assert len([arn for arn in may["Resource"] if ":security-group/" in arn]) == count
