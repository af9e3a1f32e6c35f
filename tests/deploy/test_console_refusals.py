"""What the target console refuses, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyperpd import deploy
from hyperpd.deploy.console import Options
from hyperpd.errors import RecipeError
from hyperpd.recipe import RecipeFile, load, parse, shipped
from tests.deploy.console_stacks import (
    GIVEN,
    IMAGE,
    ORCHESTRATORS,
    PINNED,
    SETTINGS,
    gated_recipes,
    own_rendered,
)


@pytest.mark.parametrize("name", [name for name in shipped() if load(name).recipe.accelerator == "cpu"])
def test_recipes_for_cpus_are_refused_with_the_reason(name):
    with pytest.raises(RecipeError, match="accelerator: cpu: no instance type is named"):
        deploy.render(load(name), "console", SETTINGS)


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_gated_models_are_refused_before_nodes_are_paid_for(orchestrator):
    assert len(gated_recipes()) == 2
    for name in gated_recipes():
        with pytest.raises(RecipeError) as error:
            deploy.render(load(name), "console", [*SETTINGS, f"orchestrator={orchestrator}"])
        (said,) = error.value.problems
        assert said.startswith("model.huggingface: meta-llama/Llama-3.3-70B-Instruct is gated")
        assert said.endswith("put its files in S3 and say model.s3 instead")


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_from_s3_a_gated_model_is_as_any_other(orchestrator):
    document = load(gated_recipes()[0]).recipe.model_dump(mode="json", exclude_unset=True)
    document["model"] = {"s3": "s3://models-example/llama", "served_as": "meta-llama/Llama-3.3-70B-Instruct"}
    assert own_rendered(document, f"orchestrator={orchestrator}").documents


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "region: missing"),
        ((), "bucket: missing"),
        ((), "image: the recipe names none"),
        (("bucket=files",), "bucket"),
        (("region=us-east-1", "orchestrator=slurm", "availability_zone=us-west-2a"), "availability_zone: us-west-2a"),
        (("orchestrator=slurm", f"eks_cluster_arn={GIVEN['EksClusterArn']}"), "eks_cluster_arn: has no meaning"),
        (("availability_zone=us-east-1a",), "availability_zone: has no meaning"),
        (("orchestrator=slurm", "namespace=a"), "namespace: has no meaning"),
        (("orchestrator=slurm", f"vpc_id={GIVEN['VpcId']}"), "vpc_id, subnet_id: one goes with the other"),
        (("orchestrator=slurm", "route_table_id=rtb-01234567"), "route_table_id: goes with vpc_id"),
        (("region=eu-west-1", f"eks_cluster_arn={GIVEN['EksClusterArn']}"), "eks_cluster_arn: is in us-east-1"),
        ((*SETTINGS[:3], "account=999999999999"), "account: 999999999999, but the image that a stack builds there"),
        (
            (*SETTINGS[:3], "eks_cluster_arn=arn:aws:eks:us-east-1:999999999999:cluster/prod"),
            "eks_cluster_arn: is of the account 999999999999, the stacks are of 123456789012",
        ),
        (("leader_worker_set=true",), "leader_worker_set: no LeaderWorkerSet is made here"),
        (("orchestrator=slurm", "leader_worker_set=true"), "leader_worker_set: no LeaderWorkerSet is made here"),
        ((*SETTINGS[:2], f"image={PINNED}", f"efa_sha256={'0' * 64}"), "efa_sha256: no stack builds the image"),
        (("instance_type=ml.p5.48xlarge",), "instance_type: the recipe names every role's instance type"),
    ],
)
def test_options_that_cannot_be_are_refused(settings, said):
    with pytest.raises(RecipeError) as error:
        deploy.render(load("qwen3-32b-p5-4p2d"), "console", settings)
    assert [one for one in error.value.problems if one.startswith(said)]


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        ({"gateway": {"auth": "keys"}}, (), "gateway.auth: keys"),
        ({"kv_transfer": {"fabric": "infiniband"}}, (), "kv_transfer.fabric: HyperPod has no InfiniBand"),
        ({"image": "docker.example/a"}, ("image",), "image: docker.example/a is not in ECR"),
        ({"prefill": {"kv_tiers": {"managed": True}}}, ("slurm",), "prefill.kv_tiers.managed: HyperPod has its tiered"),
        ({"prefill": {"instance_type": None}}, (), "prefill.instance_type: missing"),
        ({"prefill": {"instance_type": "ml.p5.47xlarge"}}, (), "prefill.instance_type: nothing is known"),
        ({"model": {"max_len_tokens": 1000000}}, (), "own-1p1d does not fit"),
        ({"kv_transfer": {"fabric": "local"}}, ("gateway_instance_type",), "gateway_instance_type: with"),
        ({"kv_transfer": {"fabric": "local"}}, ("eu",), "image: is in us-east-1"),
        ({}, ("eu",), "image: is in us-east-1"),
        ({"model": {"huggingface": None, "s3": "s3://models//"}}, (), "model.s3: a whole bucket"),
        (
            {"decode": {"parallel": {"data": 16, "nodes": 2}}},
            (),
            "decode.parallel.nodes: a worker over several nodes takes",
        ),
        ({"decode": {"instance_type": "ml.g6e.12xlarge"}}, (), "orchestrator eks, as target kubernetes: "),
    ],
)
def test_recipes_that_cannot_be_are_refused(change, settings, said):
    document: dict[str, Any] = {
        "version": 1,
        "name": "own-1p1d",
        "model": {"huggingface": "openai/gpt-oss-20b"},
        "prefill": {"instance_type": "ml.p5.48xlarge"},
        "decode": {"instance_type": "ml.p5.48xlarge"},
    }
    for key, value in change.items():
        document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
    options: dict[str, str] = {"region": "us-east-1", "bucket": "sagemaker-example", "image": IMAGE}
    if "image" in settings:
        del options["image"]
    options |= {"orchestrator": "slurm"} if "slurm" in settings else {}
    options |= {"region": "eu-west-1"} if "eu" in settings else {}
    options |= {"gateway_instance_type": "ml.c5.xlarge"} if "gateway_instance_type" in settings else {}
    file = RecipeFile(parse(document, "own"), Path("own.yaml"), "0" * 64)
    found = deploy.target("console").problems(file.recipe, Options.model_validate(options))
    assert [one for one in found if one.startswith(said)], found


@pytest.mark.parametrize("prefix", ["a*", "a?", "${aws:username}"])
def test_a_prefix_that_would_widen_a_right_is_refused(prefix):
    """Whatever recipes themselves refuse of it."""
    recipe = load("gpt-oss-120b-p6-b200-4p1d").recipe
    model = recipe.model.model_copy(update={"huggingface": None, "s3": f"s3://models/{prefix}"})
    options = Options(region="us-east-1", bucket="sagemaker-example", image=IMAGE, orchestrator="slurm")
    found = deploy.target("console").problems(recipe.model_copy(update={"model": model}), options)
    assert [one for one in found if one.startswith(f"model.s3: s3://models/{prefix} has one of")]
