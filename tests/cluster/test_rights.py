"""What nodes may do: as the console's stack lets them, and no wider than AWS demands."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpd.cluster import rights
from hyperpd.cluster.blueprint import blueprint
from hyperpd.cluster.names import Place
from hyperpd.deploy.console import access
from tests.cluster.files import EKS, PLACE, SLURM, SLURM_FULL, merged, plan, spec
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


def test_every_source_of_lifecycle_files_in_use_may_be_read_and_no_other():
    own = {"source": "s3://sagemaker-ours/team/a/", "on_create": "a.sh"}
    other = {"source": "s3://sagemaker-ours/b", "on_create": "b.sh"}
    whole = {"source": "s3://sagemaker-whole", "on_create": "c.sh"}
    said = by_sid(rights.policy(plan(EKS, lifecycle=own))["Statement"])
    assert said["LifecycleRead"]["Resource"] == ["arn:aws:s3:::sagemaker-ours/team/a/*"]
    assert said["LifecycleList"]["Resource"] == ["arn:aws:s3:::sagemaker-ours"]
    assert said["LifecycleList"]["Condition"]["StringLike"] == {"s3:prefix": ["team/a", "team/a/*"]}
    assert "LifecycleRead" not in by_sid(rights.policy(plan(EKS, lifecycle={"source": "none"}))["Statement"])
    more = {"instance_type": "ml.c5.2xlarge", "count": 1}
    groups = {"prefill": {"lifecycle": own}, "decode": {"lifecycle": other}, "more": {**more, "lifecycle": whole}}
    made = plan(EKS, groups={**groups, "last": more})
    said = by_sid(rights.policy(made)["Statement"])
    bucket = f"arn:aws:s3:::{made.bucket}"
    assert said["LifecycleRead"]["Resource"] == sorted(
        [
            "arn:aws:s3:::sagemaker-ours/team/a/*",
            "arn:aws:s3:::sagemaker-ours/b/*",
            "arn:aws:s3:::sagemaker-whole/*",
            f"{bucket}/{made.names.prefix}/*",
        ]
    )
    ours, whole_bucket = "arn:aws:s3:::sagemaker-ours", "arn:aws:s3:::sagemaker-whole"
    lists = [one for sid, one in said.items() if sid.startswith("LifecycleList")]
    assert {one["Resource"][0] for one in lists} == {ours, whole_bucket, bucket}
    assert [one["Resource"][0] for one in lists if "StringLike" not in one["Condition"]] == [whole_bucket]


def test_the_secret_of_an_accounting_database_may_be_read():
    said = by_sid(rights.policy(plan(SLURM_FULL))["Statement"])
    accounting = SLURM_FULL["orchestrator"]["slurm"]["accounting"]
    assert said["AccountingSecret"]["Resource"] == [accounting["secret"]]
    assert "secretsmanager" not in str(rights.policy(plan(SLURM)))


def test_keys_of_volumes_may_be_granted_on_and_no_others():
    arn = "arn:aws:kms:us-east-1:210987654321:key/aaaa"
    volumes = [{"size_gb": 5, "kms_key": arn}, {"root": True, "kms_key": "bbbb"}]
    groups = {"prefill": {"volumes": volumes}, "decode": {"volumes": [{"size_gb": 5, "kms_key": "alias/nodes"}]}}
    said = by_sid(rights.policy(plan(EKS, continuous=True, groups=groups))["Statement"])
    assert said["VolumeKeys"]["Resource"] == [f"arn:aws:kms:us-east-1:{PLACE.account}:key/bbbb", arn]
    assert said["VolumeKeys"]["Action"] == ["kms:CreateGrant", "kms:DescribeKey"]
    aliases = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": ["alias/nodes"]}}
    assert said["VolumeKeysByAlias"]["Condition"] == aliases
    assert "kms:" not in str(rights.policy(plan(EKS)))


def test_the_image_is_that_of_the_recipe_where_it_names_one_in_ecr(tmp_path):
    assert "repository/*" in str(rights.policy(plan(EKS)))
    recipe = tmp_path / "r.yaml"
    text = f"version: 1\nname: r\nimage: {IMAGE}\nmodel: {{huggingface: Qwen/Qwen3-32B}}\n"
    recipe.write_text(text + "aggregated: {instance_type: ml.p5.48xlarge}\n")
    made = blueprint(spec({**EKS, "groups": {}, "recipe": str(recipe)}), Place(ACCOUNT, REGION))
    pull = next(one for one in rights.policy(made)["Statement"] if one["Sid"] == "PullImage")
    assert pull["Resource"] == [f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/hyperpd"]
