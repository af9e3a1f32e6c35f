"""The target console: rights, network, addresses, uploads, and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hyperpd import deploy
from hyperpd.deploy.console import Options, access, links, page
from hyperpd.deploy.console.site import Site
from hyperpd.errors import RecipeError
from hyperpd.recipe import load
from tests.deploy import botocore_shapes
from tests.deploy.console_stacks import (
    GIVEN,
    IMAGE,
    ORCHESTRATORS,
    SETTINGS,
    Stack,
    gpu_recipes,
    rendered,
    templates,
    texts,
)

CASES = [(name, orchestrator) for name in gpu_recipes() for orchestrator in ORCHESTRATORS]
EVERYWHERE = ("0.0.0.0/0", "::/0")


def _statements(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("Effect") == "Allow" and "Resource" in value:
            yield value
        for inner in value.values():
            yield from _statements(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _statements(inner)


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_no_right_is_wider_than_aws_demands(orchestrator):
    used = set()
    for name in gpu_recipes():
        for file, template in templates(name, orchestrator).items():
            for statement in _statements(Stack(template, GIVEN).resources()):
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
    assert {one["Sid"] for one in _statements(template)} >= {"LifecycleRead", "MakeInterfaces", "PodIdentity"}


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_the_security_group_is_open_to_itself_both_ways_and_to_nobody_else(orchestrator):
    for name in gpu_recipes():
        template = templates(name, orchestrator)["1-cluster.yaml"]
        made = Stack(template, GIVEN).resources()
        itself = {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}
        raw = template["Resources"]
        ingress, egress = raw["FromItself"]["Properties"], raw["ToItself"]["Properties"]
        assert ingress["GroupId"] == ingress["SourceSecurityGroupId"] == itself
        assert egress["GroupId"] == egress["DestinationSecurityGroupId"] == itself
        assert ingress["IpProtocol"] == egress["IpProtocol"] == "-1"
        assert "SecurityGroupIngress" not in made["SecurityGroup"]["Properties"]
        (out,) = made["SecurityGroup"]["Properties"]["SecurityGroupEgress"]
        assert (out["FromPort"], out["DestinationPrefixListId"]) == (443, GIVEN["S3PrefixListId"])
        assert set(raw["Cluster"]["DependsOn"]) == {"FromItself", "ToItself"}
        for file, text in texts(name, orchestrator).items():
            if file.endswith("1-cluster.yaml"):
                assert not [wide for wide in EVERYWHERE if wide in text]


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_machines_are_in_one_subnet(orchestrator):
    given = {key: value for key, value in GIVEN.items() if orchestrator == "eks" or not key.endswith("Id")}
    given["S3PrefixListId"] = GIVEN["S3PrefixListId"]
    made = Stack(templates("qwen3-32b-p5-4p2d", orchestrator)["1-cluster.yaml"], given).resources()
    (subnet,) = made["Cluster"]["Properties"]["VpcConfig"]["Subnets"]
    assert ("Vpc" in made) == (orchestrator == "slurm")
    assert subnet.startswith("subnet-")
    assert len([one for one in made.values() if one["Type"] == "AWS::EC2::Subnet"]) == (orchestrator == "slurm")


def test_the_stack_makes_an_s3_way_where_it_is_asked_to():
    template = templates("qwen3-32b-p5-4p2d", "eks")["1-cluster.yaml"]
    assert "S3Endpoint" not in Stack(template, GIVEN).resources()
    made = Stack(template, GIVEN | {"RouteTableId": "rtb-0123456789abcdef0"}).resources()
    assert made["S3Endpoint"]["Properties"]["RouteTableIds"] == ["rtb-0123456789abcdef0"]


def test_role_and_network_alone_for_a_cluster_made_elsewhere():
    template = templates("qwen3-32b-p5-4p2d", "eks")["1-cluster.yaml"]
    made = Stack(template, GIVEN | {"CreateCluster": "no"}).resources()
    assert {"ExecutionRole", "SecurityGroup"} <= set(made)
    assert "Cluster" not in made


@pytest.mark.parametrize(("name", "orchestrator"), CASES)
def test_addresses_fill_in_what_the_templates_ask(name, orchestrator):
    found = re.findall(r"^    (https://\S+)$", texts(name, orchestrator)["console.md"], re.MULTILINE)
    of_files = templates(name, orchestrator)
    assert len(found) == len(of_files) - 1  # the bucket's template is uploaded by hand
    for url in found:
        assert len(url) <= links.URL_MAX
        assert urlsplit(url).netloc == "console.aws.amazon.com"
        path, _, query = urlsplit(url).fragment.partition("?")
        assert path == "/stacks/create/review"
        values = {key: one for key, (one,) in parse_qs(query).items()}
        template = of_files[values.pop("templateURL").rpartition("/")[2]]
        assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{0,127}", values.pop("stackName"))
        for key, value in values.items():
            declared = template["Parameters"][key.removeprefix("param_")]
            assert re.search(declared.get("AllowedPattern", ""), value)


def test_the_longest_options_still_fit_in_an_address():
    prefix = "a" * 128
    settings = [*(one for one in SETTINGS if not one.startswith("bucket")), "bucket=sagemaker-" + "b" * 53]
    settings += [f"prefix={prefix}", "stack_name=" + "c" * 32, f"vpc_id=vpc-{'0' * 17}", f"subnet_id=subnet-{'0' * 17}"]
    settings += [f"route_table_id=rtb-{'0' * 17}", f"s3_prefix_list_id=pl-{'0' * 17}"]
    settings += [f"eks_security_group_id=sg-{'0' * 17}", f"eks_cluster_arn={GIVEN['EksClusterArn']}" + "d" * 90]
    settings.append("training_plan_arn=arn:aws:sagemaker:us-east-1:123456789012:training-plan/" + "e" * 64)
    deploy.render(load("qwen3-32b-p5-4p2d"), "console", settings)
    longer = [*settings[:-1], "training_plan_arn=arn:aws:sagemaker:us-east-1:123456789012:training-plan/" + "e" * 1500]
    with pytest.raises(RecipeError, match=r"prefix: the address that creates 1-cluster\.yaml has"):
        deploy.render(load("qwen3-32b-p5-4p2d"), "console", longer)


@pytest.mark.parametrize(("name", "orchestrator"), CASES)
def test_the_page_marks_every_screen_and_ends_in_a_request(name, orchestrator):
    text = texts(name, orchestrator)["console.md"]
    blocks = [block for block in text.split("\n\n") if block.startswith("Shows:")]
    assert len(blocks) >= 4
    assert not [block for block in blocks if not block.rstrip().endswith("[unverified]")]
    asked = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    one = "2-endpoint.yaml" in templates(name, orchestrator)
    assert len(asked) == one + (orchestrator == "eks")
    assert all(body["model"] == load(name).recipe.model.name for body in asked)
    assert ("the clicks end here" in text) == (not asked)


def test_what_is_uploaded_lies_as_it_must_lie_in_the_bucket():
    found = texts("gpt-oss-120b-p6-b200-4p1d", "eks")
    folder = Path(__file__).parents[2] / "lifecycle_scripts"
    for hook in ("on_create.sh", "lib.sh", "node.py", "fabric.py", "hyperpd.env", "steps/10-storage.sh"):
        assert found[f"upload/hyperpd/lifecycle/{hook}"] == (folder / hook).read_text()
    steps = {f"upload/hyperpd/lifecycle/steps/{path.name}" for path in (folder / "steps").iterdir()}
    assert steps <= set(found)
    recipe = load("gpt-oss-120b-p6-b200-4p1d").path.read_text()
    assert found["upload/hyperpd/recipe/recipe.yaml"] == recipe
    template = templates("gpt-oss-120b-p6-b200-4p1d", "eks")["2-endpoint.yaml"]
    container = Stack(template, {}).resources()["Model"]["Properties"]["PrimaryContainer"]
    uploaded = container["ModelDataSource"]["S3DataSource"]["S3Uri"]
    assert uploaded == "s3://sagemaker-example-files/hyperpd/recipe/"
    assert container["Environment"]["HYPERPD_RECIPE"] == "/opt/ml/model/recipe.yaml"


def test_the_containers_environment_is_one_it_reads():
    from hyperpd_runtime import settings

    template = templates("gpt-oss-120b-p6-b200-4p1d", "eks")["2-endpoint.yaml"]
    environ = Stack(template, {}).resources()["Model"]["Properties"]["PrimaryContainer"]["Environment"]
    assert settings.read([], environ).environment.role == "node"


def test_the_same_recipe_gives_the_same_bytes():
    file, settings = load("qwen3-32b-p5-4p2d"), SETTINGS
    one, other = (deploy.texts(deploy.render(file, "console", settings), file, settings) for _ in range(2))
    assert one == other


def test_no_option_is_dead():
    """Each option changes some file, where it is not refused."""
    changes = {
        "region": ("us-west-2", "eks"),
        "bucket": ("sagemaker-other", "eks"),
        "image": (IMAGE.replace("0" * 64, "1" * 64), "eks"),
        "orchestrator": ("slurm", "eks"),
        "stack_name": ("other", "eks"),
        "prefix": ("other", "eks"),
        "account": ("999999999999", "eks"),
        "gateway_instance_type": ("ml.m5.xlarge", "eks"),
        "volume_gb": ("100", "eks"),
        "training_plan_arn": ("arn:aws:sagemaker:us-east-1:123456789012:training-plan/plan-1", "eks"),
        "vpc_id": (GIVEN["VpcId"], "eks"),
        "subnet_id": (GIVEN["SubnetId"], "eks"),
        "availability_zone": ("us-east-1b", "slurm"),
        "route_table_id": ("rtb-01234567", "eks"),
        "s3_prefix_list_id": ("pl-63a5400a", "eks"),
        "extra_security_group_id": ("sg-01234567", "eks"),
        "eks_cluster_arn": (GIVEN["EksClusterArn"], "eks"),
        "eks_security_group_id": ("sg-01234567", "eks"),
        "namespace": ("other", "eks"),
    }
    assert set(changes) == set(Options.model_fields) - {"instance_type"}  # held by tiny-gpu-1p1d, refused without it
    for name, (value, orchestrator) in changes.items():
        before = [document.body for document in rendered("qwen3-32b-p5-4p2d", orchestrator).documents]
        after = [document.body for document in rendered("qwen3-32b-p5-4p2d", orchestrator, f"{name}={value}").documents]
        assert before != after, name


def _of(document: dict[str, Any], *settings: str) -> dict[str, dict[str, Any]]:
    """Templates of a recipe of one's own."""
    path = Path(mkdtemp()) / "own.yaml"
    path.write_text(json.dumps({"version": 1, "name": "own"} | document))
    found = deploy.render(load(path), "console", [*SETTINGS, *settings]).documents
    path.unlink()
    path.parent.rmdir()
    return {one.file.rpartition("/")[2]: dict(one.body) for one in found if not isinstance(one.body, str)}


def test_managed_tiers_are_the_clusters():
    machine = {"instance_type": "ml.p5en.48xlarge"}
    prefill = machine | {"kv_tiers": {"managed": True}}
    made = _of({"model": {"huggingface": "example/small"}, "prefill": prefill, "decode": machine})
    cluster = Stack(made["1-cluster.yaml"], GIVEN).resources()["Cluster"]["Properties"]
    assert cluster["TieredStorageConfig"] == {"Mode": "Enable"}
    assert botocore_shapes.problems("sagemaker", "CreateCluster", cluster) == []
    plain = templates("qwen3-32b-p5-4p2d", "eks")["1-cluster.yaml"]
    assert "TieredStorageConfig" not in plain["Resources"]["Cluster"]["Properties"]


def test_an_endpoint_reads_its_model_and_nothing_else():
    model = {"s3": "s3://models-example/llama/v3/"}
    made = _of({"model": model, "aggregated": {"instance_type": "ml.g6e.12xlarge"}}, "orchestrator=slurm")
    role = Stack(made["2-endpoint.yaml"], {}).resources()["ExecutionRole"]
    found = {one["Sid"]: one["Resource"] for one in _statements(role)}
    assert found["ModelRead"] == ["arn:aws:s3:::models-example/llama/v3/*"]
    assert found["ModelList"] == ["arn:aws:s3:::models-example"]
    assert found["PullImage"] == ["arn:aws:ecr:us-east-1:123456789012:repository/team/hyperpd"]


def test_a_model_of_the_machine_is_no_endpoint():
    made = _of({"model": {"path": "/opt/models/a"}, "aggregated": {"instance_type": "ml.g6e.12xlarge"}})
    assert "2-endpoint.yaml" not in made


def test_a_group_of_ones_own_is_added():
    template = templates("qwen3-32b-p5-4p2d", "slurm")["1-cluster.yaml"]
    for given, count in ((GIVEN, 1), (GIVEN | {"ExtraSecurityGroupId": "sg-01234567"}, 2)):
        made = Stack(template, given).resources()
        assert len(made["Cluster"]["Properties"]["VpcConfig"]["SecurityGroupIds"]) == count
        (may,) = [one for one in _statements(made["ExecutionRole"]) if one["Sid"] == "MakeInterfaces"]
        assert len([arn for arn in may["Resource"] if ":security-group/" in arn]) == count


def test_losses_are_said():
    recipe = load("qwen3-32b-p5-4p2d").recipe
    many = recipe.model_copy(update={"gateway": recipe.gateway.model_copy(update={"replicas": 4})})
    options = Options(region="us-east-1", bucket="sagemaker-example", image=IMAGE)
    assert [one for one in deploy.target("console").losses(many, options) if one.startswith("gateway.replicas")]
    slow = load("gpt-oss-120b-p6-b200-4p1d").recipe.model_copy(update={"start_timeout_s": 7200})
    assert [one for one in deploy.target("console").losses(slow, options) if one.startswith("start_timeout_s")]


def test_china_and_govcloud_have_consoles_of_their_own():
    file = load("qwen3-32b-p5-4p2d")
    for region, console, host in (
        ("cn-north-1", "console.amazonaws.cn", "amazonaws.com.cn"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com", "amazonaws.com"),
    ):
        site = Site(file, Options(region=region, bucket="sagemaker-example", image=IMAGE))
        url = page.urls(site)["1-cluster.yaml"]
        assert url.startswith(f"https://{console}/")
        assert f"{region}.{host}%2F" in url
