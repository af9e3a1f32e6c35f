"""The target console: rights, network, addresses, uploads, and the page."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hyperpd import deploy
from hyperpd.deploy.console import Options, page, serve
from hyperpd.deploy.console.site import Site
from hyperpd.errors import RecipeError
from hyperpd.recipe import load
from tests.deploy import botocore_shapes
from tests.deploy.console_stacks import (
    GIVEN,
    IMAGE,
    ORCHESTRATORS,
    PINNED,
    SETTINGS,
    Stack,
    addresses,
    gpu_recipes,
    own,
    own_file,
    own_rendered,
    rendered,
    statements,
    templates,
    texts,
)
from tests.deploy.snapshot import hold, notes_meet_keys

CASES = [(name, orchestrator) for name in gpu_recipes() for orchestrator in ORCHESTRATORS]
EVERYWHERE = ("0.0.0.0/0", "::/0")


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
        ways = {name for name, one in raw.items() if one["Type"] == "AWS::EC2::VPCEndpoint"}
        routes = {"SubnetRoutes"} if orchestrator == "slurm" else set()
        assert len(ways) == (10 if orchestrator == "slurm" else 1)
        assert set(raw["Cluster"]["DependsOn"]) == {"FromItself", "ToItself"}
        assert raw["Cluster"]["Metadata"] == {  # waited for, too, where it is made
            name: {"Fn::If": [raw[name]["Condition"], {"Ref": name}, ""]} for name in ways | routes
        }
        for file, text in texts(name, orchestrator).items():
            if file.endswith("1-cluster.yaml"):
                assert not [wide for wide in EVERYWHERE if wide in text]


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_nodes_are_in_one_subnet(orchestrator):
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
    of_files = templates(name, orchestrator)
    found = [
        one for one in addresses(texts(name, orchestrator)["console.md"]) if "sagemaker-example" in one["templateURL"]
    ]
    assert len(found) == len(of_files) - 1  # the bucket's template is uploaded by hand
    for values in found:
        template = of_files[values.pop("templateURL").rpartition("/")[2]]
        assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{0,127}", values.pop("stackName"))
        for key, value in values.items():
            declared = template["Parameters"][key.removeprefix("param_")]
            assert re.search(declared.get("AllowedPattern", ""), value)


@pytest.mark.parametrize(("name", "orchestrator"), CASES)
def test_the_last_section_deletes_every_stack_that_the_page_makes(name, orchestrator):
    said = texts(name, orchestrator)["console.md"]
    before, _, last = said.partition("## When you are done")
    made = {one["stackName"] for one in addresses(before)} | set(re.findall(r"Stack name `([^`]+)`", before))
    deleted = re.findall(r"^[0-9]\. `([^`]+)`", last, re.MULTILINE)
    assert "hyperpd-bucket" in made
    assert sorted(deleted) == sorted(made)
    order = [f"hyperpd{part}" for part in ("-serve", "-endpoint", "-nodes", "", "-image", "-eks", "-bucket")]
    assert deleted == [one for one in order if one in made]  # what uses another's security group or image goes first


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


def test_a_recipe_that_the_image_has_not_travels_to_the_endpoint():
    """From the stacks' bucket where its model comes from the hub, beside the model's files where those are in S3."""
    shipped = templates("gpt-oss-120b-p6-b200-4p1d", "eks")["2-endpoint.yaml"]
    model = Stack(shipped, {}).resources()["Model"]["Properties"]
    assert model["PrimaryContainer"]["Environment"]["HYPERPD_RECIPE"] == "gpt-oss-120b-p6-b200-4p1d"
    assert "ModelDataSource" not in model["PrimaryContainer"]
    assert "Parameters" not in shipped
    aggregated = {"instance_type": "ml.g6e.12xlarge"}
    for given, folder, uploaded, isolated in (
        ({"huggingface": "a/b"}, "s3://sagemaker-example-files/hyperpd/recipe/", "upload/hyperpd/recipe", False),
        ({"s3": "s3://models/llama"}, "s3://models/llama/", "beside-the-model", True),
    ):
        rendering = own_rendered({"model": given, "aggregated": aggregated}, "orchestrator=slurm")
        made = {one.file: one.body for one in rendering.documents}
        template = next(body for file, body in made.items() if file.endswith("2-endpoint.yaml"))
        model = Stack(template, {}).resources()["Model"]["Properties"]
        container = model["PrimaryContainer"]
        assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == folder
        name = container["Environment"]["HYPERPD_RECIPE"].removeprefix("/opt/ml/model/")
        assert json.loads(made[f"{uploaded}/{name}"])["name"] == "own"
        assert model["EnableNetworkIsolation"] is isolated
        assert ("HYPERPD_MODEL" in container["Environment"]) == isolated
        assert (f"beside-the-model/{name}" in str(made["console.md"])) == isolated
        reads = {one["Sid"]: one["Resource"] for one in statements(Stack(template, {}).resources())}
        assert [arns for sid, arns in reads.items() if sid.endswith("Read")] == [
            [f"arn:aws:s3:::{folder.removeprefix('s3://')}*"]
        ]


@pytest.mark.parametrize("given", [{"huggingface": "a/b"}, {"s3": "s3://models/llama"}])
def test_model_and_configuration_are_those_of_the_target_sagemaker_endpoint(given):
    """But for what a stack names: the role, the model, the tags."""
    from hyperpd.deploy.console import hosted
    from hyperpd.deploy.sagemaker_endpoint import requests

    text = {"model": given, "aggregated": {"instance_type": "ml.g6e.12xlarge"}, "start_timeout_s": 1000}
    site = Site(
        own_file(text), Options(region="us-east-1", bucket="sagemaker-example", image=IMAGE, orchestrator="slurm")
    )
    made = Stack(own(text, "orchestrator=slurm")["2-endpoint.yaml"], {}).resources()
    wanted = requests.model(hosted.endpoint(site))
    of_model = made["Model"]["Properties"]
    assert of_model["PrimaryContainer"]["Environment"] == wanted["PrimaryContainer"]["Environment"]
    assert of_model["PrimaryContainer"]["Environment"]["HYPERPD_API_ADDRESS"] == "0.0.0.0"
    for key in set(wanted) - {"ModelName", "ExecutionRoleArn", "PrimaryContainer", "Tags"}:
        assert of_model[key] == wanted[key]
    (variant,) = made["Configuration"]["Properties"]["ProductionVariants"]
    (of_target,) = requests.config(hosted.endpoint(site))["ProductionVariants"]
    assert variant | {"ModelName": ""} == of_target | {"ModelName": "", "InitialVariantWeight": 1}
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 1240
    assert ("ModelDataDownloadTimeoutInSeconds" in variant) == ("s3" in given)


def test_the_containers_environment_is_one_it_reads():
    from hyperpd_runtime import settings

    template = templates("gpt-oss-120b-p6-b200-4p1d", "eks")["2-endpoint.yaml"]
    environ = Stack(template, {}).resources()["Model"]["Properties"]["PrimaryContainer"]["Environment"]
    read = settings.read([], environ).environment
    assert read.role == "node"
    assert read.api_address == "0.0.0.0"


def test_the_same_recipe_gives_the_same_bytes():
    file, settings = load("qwen3-32b-p5-4p2d"), SETTINGS
    one, other = (deploy.texts(deploy.render(file, "console", settings), file, settings) for _ in range(2))
    assert one == other


def test_rendering_costs_little():
    file = load("qwen3-32b-p5-4p2d")
    deploy.render(file, "console", SETTINGS)  # what is read once
    began = time.process_time()
    deploy.texts(deploy.render(file, "console", SETTINGS), file, SETTINGS)
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")


def test_no_option_is_dead():
    """Each option changes some file, where it is not refused."""
    changes = {
        "region": ("us-west-2", "slurm"),
        "bucket": ("sagemaker-other", "eks"),
        "image": (PINNED, "eks"),
        "orchestrator": ("slurm", "eks"),
        "stack_name": ("other", "eks"),
        "prefix": ("other", "eks"),
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
        "efa_sha256": ("1" * 64, "eks"),
    }
    # Held by recipes that are refused without them: tiny-gpu-1p1d and deepseek-r1-p5en-2xdp16; account below.
    assert set(changes) == set(Options.model_fields) - {"account", "instance_type", "leader_worker_set"}
    for name, (value, orchestrator) in changes.items():
        before = [document.body for document in rendered("qwen3-32b-p5-4p2d", orchestrator).documents]
        after = [document.body for document in rendered("qwen3-32b-p5-4p2d", orchestrator, f"{name}={value}").documents]
        assert before != after, name


def test_the_account_is_the_images_or_where_it_is_another_the_given_one():
    """An image that is there may be of another account; one that a stack builds is not."""

    def roles(*settings: str) -> set[str]:
        made = rendered("qwen3-32b-p5-4p2d", "eks", *settings).documents
        pasted = next(str(one.body) for one in made if one.file == "instance-group-settings.json")
        return {one["ExecutionRole"] for one in json.loads(pasted)}

    file, given = load("qwen3-32b-p5-4p2d"), [one for one in SETTINGS if not one.startswith("account=")]
    without = {one.file: one.body for one in deploy.render(file, "console", given).documents}
    pasted = json.loads(str(without["instance-group-settings.json"]))
    assert {one["ExecutionRole"] for one in pasted} == roles()
    assert roles() == {"arn:aws:iam::123456789012:role/hyperpd-us-east-1-execution"}
    assert "111122223333" not in str(without["console.md"])
    other = roles(f"image={PINNED}", "account=999999999999")
    assert other == {"arn:aws:iam::999999999999:role/hyperpd-us-east-1-execution"}


def test_managed_tiers_are_the_clusters():
    machine = {"instance_type": "ml.p5en.48xlarge"}
    prefill = machine | {"kv_tiers": {"managed": True}}
    made = own({"model": {"huggingface": "example/small"}, "prefill": prefill, "decode": machine})
    cluster = Stack(made["1-cluster.yaml"], GIVEN).resources()["Cluster"]["Properties"]
    assert cluster["TieredStorageConfig"] == {"Mode": "Enable"}
    assert botocore_shapes.problems("sagemaker", "CreateCluster", cluster) == []
    plain = templates("qwen3-32b-p5-4p2d", "eks")["1-cluster.yaml"]
    assert "TieredStorageConfig" not in plain["Resources"]["Cluster"]["Properties"]


def test_a_recipes_word_means_nothing_to_cloudformation():
    from hyperpd.deploy.console.site import literal, sub

    word = "a/${Missing}/${AWS::AccountId}"
    assert Stack({"Resources": {}}, {}).value(sub("${AWS::Region}/" + literal(word))) == f"us-east-1/{word}"


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_the_page_asks_quota_for_every_instance_type(orchestrator):
    for name in gpu_recipes():
        made = texts(name, orchestrator)
        needed: dict[str, int] = {}
        for one in json.loads(made["instance-group-settings.json"]):
            needed[one["InstanceType"]] = needed.get(one["InstanceType"], 0) + one["InstanceCount"]
        found = re.findall(r'^  - "(\S+) for cluster usage": (\d+)$', made["console.md"], re.MULTILINE)
        assert {kind: int(count) for kind, count in found} == needed
        asked = "for endpoint usage" in made["console.md"]
        assert asked == ("2-endpoint.yaml" in templates(name, orchestrator))


def test_the_page_says_what_has_to_be_there_and_what_the_function_may_do():
    words = " ".join(texts("deepseek-r1-p5en-2xdp16", "eks")["console.md"].split())
    for said in (
        "does not begin with an empty account",
        "No step takes a terminal.",
        "the controller of LeaderWorkerSet: rendered with `leader_worker_set=true`, this page takes it to be there",
        "`hyperpd-serve-apply`, is administrator of the EKS cluster (AmazonEKSClusterAdminPolicy, all namespaces)",
        "roles with names of their own (iam:CreateRole, iam:PassRole), access entries (eks:CreateAccessEntry) among it",
        "an access entry of your own (EKS, the cluster, Access; AmazonEKSAdminViewPolicy), and eks:AccessKubernetesApi",
        "If EKS says that your principal has no access, go on: step 6 answers 503 until workers are ready.",
        "`hyperpd-serve`, may send the gateway a POST and nothing else. Who tries it out needs `lambda:InvokeFunction`",
    ):
        assert said in words
    serve = next(text for file, text in texts("deepseek-r1-p5en-1p1d", "eks").items() if file.endswith("3-serve.yaml"))
    assert "administrator of the EKS cluster" in " ".join(serve.replace("#", " ").split())
    assert "LeaderWorkerSet" not in texts("qwen3-32b-p5-4p2d", "eks")["console.md"].partition("## When a stack")[0]


def test_the_page_asks_for_a_model_in_s3_and_its_pods_identity():
    node = {"instance_type": "ml.p5.48xlarge"}
    made = own_rendered({"model": {"s3": "s3://models-example/llama"}, "prefill": node, "decode": node})
    words = " ".join(str(next(one.body for one in made.documents if one.file == "console.md")).split())
    assert "files below `s3://models-example/llama`, in a bucket of this account, and the add-on" in words
    assert "Amazon EKS Pod Identity Agent" in words


EXAMPLE = Path(__file__).parents[2] / "examples" / "console"


def test_the_page_as_it_is():
    """With EKS it is the example's."""
    name = "gpt-oss-120b-p6-b200-4p1d"
    hold("console-slurm.md", texts(name, "slurm")["console.md"])
    readme = (EXAMPLE / "README.md").read_text()
    command = readme.partition("```\n")[2].partition("```")[0].replace("\\\n", "").split()
    assert command[:5] == ["hyperpd", "render", name, "--target", "console"]
    assert [word for before, word in pairwise(command) if before == "--set"] == list(SETTINGS)
    assert (EXAMPLE / "console.md").read_text() == texts(name, "eks")["console.md"], f"render anew: {' '.join(command)}"


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_notes_stand_above_what_they_are_about(orchestrator):
    for name in ("gpt-oss-120b-p6-b200-4p1d", "qwen3-32b-p5-4p2d"):
        for document in rendered(name, orchestrator).documents:
            notes_meet_keys(document)


@pytest.mark.parametrize("orchestrator", ORCHESTRATORS)
def test_a_hyperpod_machine_is_a_node(orchestrator):
    """In what people read of ours: the page, and the templates but for the objects of the target kubernetes."""
    for file, text in texts("qwen3-32b-p5-4p2d", orchestrator).items():
        if file.endswith((".md", "-bucket.yaml", "-image.yaml", "-cluster.yaml", "-endpoint.yaml")):
            assert "machine" not in text.lower().replace("the build's own machine", ""), file


def test_a_model_on_the_node_is_no_endpoint():
    made = own({"model": {"path": "/opt/models/a"}, "aggregated": {"instance_type": "ml.g6e.12xlarge"}})
    assert "2-endpoint.yaml" not in made


def test_losses_are_said():
    recipe = load("qwen3-32b-p5-4p2d").recipe
    many = recipe.model_copy(update={"gateway": recipe.gateway.model_copy(update={"replicas": 4})})
    options = Options(region="us-east-1", bucket="sagemaker-example", image=IMAGE)
    assert [one for one in deploy.target("console").losses(many, options) if one.startswith("gateway.replicas")]


def test_losses_of_what_the_stacks_are_made_of_are_said(monkeypatch):
    from hyperpd.deploy import kubernetes

    file, options = load("qwen3-32b-p5-4p2d"), Options(region="us-east-1", bucket="sagemaker-example", image=IMAGE)
    monkeypatch.setattr(kubernetes, "losses", lambda *_: ["queue: no", "slo.ttft_ms: said by FIELDS already"])
    found = deploy.target("console").losses(file.recipe, options)
    assert "queue: no" in found
    assert not [one for one in found if one.startswith("slo")]


ENDPOINT_SAYS: list[tuple[dict[str, Any], str]] = [
    ({"gateway": {"limits": {"body_mib": 32}}}, "gateway.limits.body_mib: InvokeEndpoint takes 6 MiB"),
    ({"drain_s": 100}, "drain_s: SageMaker kills the container"),
    ({"start_timeout_s": 3500}, "start_timeout_s: with the first handoff"),
]
GPUS = {"instance_type": "ml.g6e.12xlarge"}
PAIR: dict[str, Any] = {"aggregated": None, "decode": GPUS, "kv_transfer": {"fabric": "local"}}
NO_ENDPOINT: list[tuple[dict[str, Any], str]] = [
    ({"start_timeout_s": 7200}, "start_timeout_s: SageMaker waits at most"),
    ({"aggregated": {"instance_type": "ml.gr6.8xlarge"}}, "instance_type: SageMaker has no endpoints on ml.gr6"),
    (PAIR | {"prefill": GPUS | {"kv_tiers": {"disk": "/opt/hyperpd/kv", "memory_gib": 4}}}, "prefill.kv_tiers.disk:"),
    (PAIR | {"prefill": GPUS | {"kv_tiers": {"memory_gib": 300}}}, "prefill.kv_tiers.memory_gib: 300 GiB"),
    ({"model": {"adapters": [{"name": "a", "path": "/opt/a"}]}}, "model.adapters.0.path: /opt/a is not in the"),
    ({"model": {"adapters": [{"name": "a", "path": "/opt/ml/model/a"}]}}, "model.adapters.0.path: nothing is in"),
]


def _small(change: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {"model": {"huggingface": "a/b"}, "aggregated": {"instance_type": "ml.g6e.12xlarge"}}
    for key, value in change.items():
        document[key] = {**document.get(key, {}), **value} if isinstance(value, dict) else value
    return document


@pytest.mark.parametrize(("change", "said"), ENDPOINT_SAYS)
def test_what_an_endpoint_takes_away_is_said(change, said):
    for orchestrator in ORCHESTRATORS:
        rendering = own_rendered(_small(change), f"orchestrator={orchestrator}")
        assert [one for one in rendering.not_expressed if one.startswith(said)], rendering.not_expressed


@pytest.mark.parametrize(("change", "said"), NO_ENDPOINT)
def test_what_cannot_be_an_endpoint_is_none_on_eks_and_refused_on_slurm(change, said):
    from hyperpd.deploy import kubernetes

    site = Site(own_file(_small(change)), Options(region="us-east-1", bucket="sagemaker-example", image=IMAGE))
    lost = deploy.target("console").losses(site.file.recipe, site.options)
    assert [one for one in lost if one.startswith(said) and one.endswith("(so there is no stack with an endpoint)")]
    documents = deploy.target("console").documents
    if not kubernetes.problems(site.recipe, serve.options(site)):
        assert not [one for one in documents(site.file, site.options) if one.file.endswith("2-endpoint.yaml")]
    with pytest.raises(RecipeError) as error:
        own_rendered(_small(change), "orchestrator=slurm")
    assert [one for one in error.value.problems if one.startswith(said)], error.value.problems


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
