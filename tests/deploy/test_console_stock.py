"""The target console and AWS's own stack for HyperPod, as hyp 3.12.0 has it: its parameters, the groups it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperpd.deploy.console import Options, page, stock
from hyperpd.deploy.console.site import Site
from hyperpd.recipe import load
from tests.deploy import botocore_shapes
from tests.deploy.console_stacks import GIVEN, IMAGE, REGION, Stack, addresses, gpu_recipes, rendered, texts

STOCK: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "hyp" / "cluster-stack-1.0.2.json").read_text()
)
FIELDS: dict[str, Any] = STOCK["Parameters"]
VALUE_MAX_BYTES = 4096  # of a parameter of CloudFormation


def _addresses(name: str, *settings: str) -> list[dict[str, str]]:
    """Those of AWS's stack: an EKS cluster, then nodes."""
    page = next(str(one.body) for one in rendered(name, "eks", *settings).documents if one.file == "console.md")
    return [one for one in addresses(page) if "main-stack-eks" in one["templateURL"]]


def _made(values: dict[str, str]) -> set[str]:
    """Names of the stacks that AWS's would make: those whose condition holds."""
    given = {key.removeprefix("param_"): value for key, value in values.items() if key.startswith("param_")}
    stack = Stack(STOCK, given)
    return {
        logical
        for logical, one in STOCK["Resources"].items()
        if "Condition" not in one or stack.holds(one["Condition"])
    }


@pytest.mark.parametrize("name", gpu_recipes())
def test_addresses_fill_in_what_the_stack_asks(name):
    eks, nodes = _addresses(name, f"eks_cluster_arn={GIVEN['EksClusterArn']}", f"subnet_id={GIVEN['SubnetId']}")
    for values in (eks, nodes):
        assert values["templateURL"] == (
            f"https://aws-sagemaker-hyperpod-cluster-setup-{REGION}-prod.s3.amazonaws.com/1/templates/"
            "main-stack-eks-based-template.yaml"
        )
        for key, value in values.items():
            if key.startswith("param_"):
                asked = FIELDS[key.removeprefix("param_")]
                assert value in asked.get("AllowedValues", [value])
    assert nodes["param_EKSClusterName"] == "prod"
    assert nodes["param_PrivateSubnetIds"] == GIVEN["SubnetId"]
    assert _made(eks) == {
        *("VPCStack", "PrivateSubnetStack", "SecurityGroupStack", "EKSClusterStack", "S3EndpointStack"),
        "HelmChartStack",
    }
    assert _made(nodes) == {"HyperPodClusterStack"}
    assert {f"Create{part}Stack" for part in stock.PARTS} == {key for key in FIELDS if key.startswith("Create")}


@pytest.mark.parametrize("name", gpu_recipes())
def test_the_pasted_groups_are_a_value_of_the_field(name):
    """A JSON list, as the field's own default is, and short enough. Its keys are the API's; what AWS's function would
    add is there already."""
    text = texts(name, "eks")["instance-group-settings.json"]
    assert f"| {stock.FIELD} | all of `instance-group-settings.json`" in texts(name, "eks")["console.md"]
    assert stock.FIELD in FIELDS
    assert len(text.encode()) <= VALUE_MAX_BYTES
    groups, default = json.loads(text), json.loads(FIELDS[stock.FIELD]["Default"])
    assert isinstance(default, list)
    of_the_stack = {
        "TargetAvailabilityZoneId"
    }  # which AWS's function turns into a subnet; here the stack has one alone
    for group in groups:
        assert set(default[0]) - of_the_stack - {"InstanceStorageConfigs"} <= set(group)
        assert {"ExecutionRole", "LifeCycleConfig"} <= set(group)
        assert not of_the_stack & set(group)
    assert botocore_shapes.problems("sagemaker", "CreateCluster", {"ClusterName": "a", "InstanceGroups": groups}) == []
    assert len(groups) <= 20


def test_slurm_has_no_field_for_them_and_says_so():
    words = " ".join(texts("qwen3-32b-p5-4p2d", "slurm")["console.md"].split())
    assert "AWS's own stack for Slurm takes groups of another form (with InstanceGroupType), not these" in words
    assert "Nothing is known here that they could be pasted in: they are for a request to the API." in words
    assert stock.FIELD not in words


def test_other_partitions_have_no_such_stack():
    site = Site(load("qwen3-32b-p5-4p2d"), Options(region="cn-north-1", bucket="sagemaker-example", image=IMAGE))
    words = str(page.document(site).body)
    assert "Nothing is known here" in words
    assert "main-stack-eks" not in words
    assert "InstanceGroupType" not in words
