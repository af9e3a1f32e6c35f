"""What nodes may do: as the console's stack lets them, and no wider than AWS demands."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpd.cluster import rights
from hyperpd.cluster.blueprint import blueprint
from hyperpd.cluster.names import Place
from hyperpd.deploy.console import access
from tests.cluster.files import EKS, SLURM, merged, plan, spec
from tests.deploy.console_stacks import ACCOUNT, GIVEN, IMAGE, ORCHESTRATORS, REGION, Stack, templates

RECIPE = "qwen3-32b-p5-4p2d"


def by_sid(statements: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """In an order of their own: actions and resources sorted."""
    found = {}
    for one in statements:
        resources = one["Resource"] if one["Resource"] == "*" else sorted(one["Resource"])
        found[one["Sid"]] = {**one, "Action": sorted(one["Action"]), "Resource": resources}
    return found


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_rights_are_those_of_the_consoles_stack(orchestrator, monkeypatch):
    stack = Stack(templates(RECIPE, orchestrator)["1-cluster.yaml"], GIVEN)
    theirs = stack.resources()["ExecutionRole"]["Properties"]
    assert theirs["AssumeRolePolicyDocument"] == rights.trust()
    group = "sg-0aaaaaaaaaaaaaaaa"  # the stack's own
    network = {"subnets": [GIVEN["SubnetId"]], "security_groups": [group]}
    if orchestrator == "eks":
        network["security_groups"].append(GIVEN["EksSecurityGroupId"])
    document = merged(EKS if orchestrator == "eks" else SLURM, {"name": "hyperpd", "network": network})
    made = blueprint(spec(document, bucket="sagemaker-example-files"), Place(ACCOUNT, REGION))
    monkeypatch.setattr(rights, "_repository", lambda _: f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/hyperpd")
    ours = by_sid(rights.policy(made)["Statement"])
    expected = by_sid(theirs["Policies"][0]["PolicyDocument"]["Statement"])
    assert IMAGE.startswith(f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/team/hyperpd")
    for sid in ("LifecycleRead", "LifecycleList"):  # the folder has another name, and that alone differs
        text = repr(ours.pop(sid)).replace("hyperpd/hyperpd/lifecycle", "FOLDER")
        assert text == repr(expected.pop(sid)).replace("hyperpd/lifecycle", "FOLDER")
    assert ours == expected


@pytest.mark.parametrize("document", [EKS, SLURM, merged(SLURM, {"network": EKS["network"]})])
def test_no_right_is_wider_than_aws_demands(document):
    for statement in rights.policy(plan(document))["Statement"]:
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Resource"] == "*":
            assert set(statement["Action"]) <= set(access.EVERYTHING)
    text = str(rights.policy(plan(document)))
    assert ("CreateNetworkInterface" in text) == ("network" in document)
    assert ("eks-auth" in text) == ("eks" in document["orchestrator"])


def test_a_group_of_its_own_network_is_in_the_policy():
    own = {"subnets": ["subnet-0fedcba9876543210"], "security_groups": ["sg-0fedcba9876543210"]}
    text = str(rights.policy(plan(EKS, groups={"decode": {"network": own}})))
    for one in (*own["subnets"], *own["security_groups"], *EKS["network"]["subnets"]):
        assert one in text


def test_the_image_is_that_of_the_recipe_where_it_names_one_in_ecr(tmp_path):
    assert "repository/*" in str(rights.policy(plan(EKS)))
    recipe = tmp_path / "r.yaml"
    text = f"version: 1\nname: r\nimage: {IMAGE}\nmodel: {{huggingface: Qwen/Qwen3-32B}}\n"
    recipe.write_text(text + "aggregated: {instance_type: ml.p5.48xlarge}\n")
    made = blueprint(spec({**EKS, "groups": {}, "recipe": str(recipe)}), Place(ACCOUNT, REGION))
    pull = next(one for one in rights.policy(made)["Statement"] if one["Sid"] == "PullImage")
    assert pull["Resource"] == [f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/hyperpd"]
