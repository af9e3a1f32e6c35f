"""Instance groups from recipes: as the console renders them, and what a file puts over them."""

from __future__ import annotations

from typing import Any

import pytest

from hyperpd.cluster import file
from hyperpd.cluster.blueprint import blueprint
from hyperpd.cluster.encryption import in_transit
from hyperpd.cluster.names import Place
from hyperpd.cluster.requests import instance_groups
from hyperpd.deploy.console import groups as console
from hyperpd.deploy.console.options import Options
from hyperpd.deploy.console.site import Site
from hyperpd.errors import RecipeError
from hyperpd.recipe import load
from tests.cluster.files import EKS, NETWORK, PLACE, ROLE, SLURM, spec
from tests.deploy.console_stacks import gpu_recipes

PD = "qwen3-32b-p5-4p2d"


def from_recipe(orchestrator: str, recipe: str, **change: Any) -> Any:
    base = EKS if orchestrator == "eks" else SLURM
    return spec({**base, "groups": {}, "recipe": recipe, "network": NETWORK}, **change)


@pytest.mark.parametrize("orchestrator", ["eks", "slurm"])
@pytest.mark.parametrize("name", [name for name in gpu_recipes() if name != "tiny-gpu-1p1d"])
def test_groups_are_those_of_the_console(name, orchestrator):
    made = blueprint(from_recipe(orchestrator, name, role=ROLE, bucket="sagemaker-files"), PLACE)
    site = Site(load(name), Options(orchestrator=orchestrator, bucket="sagemaker-files", region="us-east-1"))
    folder = f"s3://sagemaker-files/{made.names.prefix}/{made.scripts['hyperpd'].digest}/"
    theirs = console.groups(site, ROLE, folder, None)
    ours = [{k: v for k, v in group.items() if k != "KubernetesConfig"} for group in instance_groups(made)]
    assert ours == theirs


def test_prompts_pass_no_machine_whose_network_is_not_encrypted():
    for name in set(gpu_recipes()) - {"tiny-gpu-1p1d"}:
        for group in file.check(from_recipe("slurm", name)).values():
            assert in_transit(str(group.instance_type)), (name, group.instance_type)


def test_on_eks_nodes_are_labelled_with_their_role():
    made = file.check(from_recipe("eks", PD))
    assert {name: group.labels for name, group in made.items()} == {
        name: {"hyperpd.io/role": name} for name in ("prefill", "decode", "gateway")
    }
    assert not any(group.labels for group in file.check(from_recipe("slurm", PD)).values())


def test_written_groups_win_field_by_field_and_add_to_the_recipes():
    given = from_recipe(
        "eks",
        PD,
        groups={
            "prefill": {"instance_types": ["ml.p5.48xlarge", "ml.p5en.48xlarge"], "labels": {"a": "b"}},
            "decode": {"count": 3, "volumes": []},
            "extra": {"instance_type": "ml.c5.xlarge", "count": 1},
        },
    )
    made, plain = file.check(given), file.check(from_recipe("eks", PD))
    assert list(made) == ["prefill", "decode", "gateway", "extra"]
    assert made["prefill"].instance_type is None
    assert made["prefill"].instance_types == ("ml.p5.48xlarge", "ml.p5en.48xlarge")
    assert made["prefill"].count == plain["prefill"].count
    assert made["prefill"].labels == {"hyperpd.io/role": "prefill", "a": "b"}
    assert (made["decode"].count, made["decode"].volumes) == (3, ())
    assert made["gateway"] == plain["gateway"]


def test_two_right_halves_that_do_not_go_together():
    with pytest.raises(RecipeError, match=r"min_count \(9\) is above count \(1\)"):
        from_recipe("eks", PD, groups={"prefill": {"min_count": 9}})


def test_a_recipe_without_machines_wants_them_written():
    with pytest.raises(RecipeError) as error:
        from_recipe("eks", "tiny-cpu-1p1d")
    assert [one.split(":")[0] for one in error.value.problems] == [
        f"groups.{role}.{field}" for role in ("prefill", "decode") for field in ("instance_type", "count")
    ]
    given = {role: {"instance_type": "ml.c5.4xlarge", "count": 1} for role in ("prefill", "decode")}
    assert file.check(from_recipe("eks", "tiny-cpu-1p1d", groups=given))["decode"].count == 1


def test_names_follow_from_cluster_account_and_region_alone():
    one = blueprint(from_recipe("eks", PD), PLACE)
    assert blueprint(from_recipe("eks", PD, tags={"a": "b"}), PLACE).bucket == one.bucket
    others = [
        blueprint(from_recipe("eks", PD, name="pd2"), PLACE),
        blueprint(from_recipe("eks", PD), Place("123456789012", "us-gov-east-1")),
        blueprint(from_recipe("eks", PD), Place("210987654321", "us-east-1")),
    ]
    assert len({one.bucket, *(other.bucket for other in others)}) == 4
    assert others[1].role_arn(others[1].groups["decode"]).startswith("arn:aws-us-gov:iam::")
    longest = blueprint(from_recipe("eks", PD, name="a" * 63), Place("123456789012", "ap-southeast-1"))
    assert (len(longest.names.role), len(longest.bucket) <= 63) == (64, True)
    assert one.makes_role
    assert one.makes_bucket
