"""The target sagemaker_endpoint: whole renderings as they were last looked at, what is refused, what options do."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hyperpd import deploy, instances, recipe
from hyperpd.deploy import sagemaker_endpoint
from hyperpd.deploy.sagemaker_endpoint import refusals
from hyperpd.deploy.sagemaker_endpoint.options import Ami
from hyperpd.deploy.target import fate, leaves
from hyperpd.environment import Environment
from hyperpd.errors import RecipeError
from tests.deploy import botocore_shapes, objects_recipes, snapshot

ROLE = "role_arn=arn:aws:iam::123456789012:role/hyperpd"
IMAGE = "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
CPU = "instance_type=ml.c7i.4xlarge"
DATA = "model_data=s3://models-example/large"
BASE = [ROLE, IMAGE]

LOCAL = """version: 1
name: own.local
model: {huggingface: example/large, revision: abc, adapters: [{name: sql, path: /opt/ml/model/adapters/sql}]}
prefill: {replicas: 2, instance_type: ml.p5.48xlarge, autoscaling: {min: 1, max: 4}, kv_tiers: {memory_gib: 64}}
decode: {instance_type: ml.p5.48xlarge, parallel: {tensor: 4}}
gateway: {replicas: 3, limits: {body_mib: 7, concurrent_requests: 64}}
slo: {ttft_ms: 800}
kv_transfer: {fabric: local}
start_timeout_s: 3500
drain_s: 60
"""
AGGREGATED = """version: 1
name: one
model: {s3: "s3://models-example/llama/8b"}
aggregated: {replicas: 4, instance_type: ml.g6e.12xlarge}
"""
EFA = """version: 1
name: efa
model: {huggingface: example/small}
prefill: {instance_type: ml.p5.48xlarge}
decode: {instance_type: ml.p5en.48xlarge}
"""
VPC = ["subnets=subnet-1,subnet-2", "security_groups=sg-1"]
CASES = {
    "endpoint-tiny-cpu-1p1d": ("tiny-cpu-1p1d", [*BASE, CPU, "volume_gb=64"]),
    "endpoint-aggregated": (AGGREGATED, BASE),
    "endpoint-local": (LOCAL, [*BASE, DATA, *VPC, "tags=team=search,cost=4 2", "endpoint_name=Large"]),
}


@pytest.fixture
def bodies(load):
    """(text of a recipe, settings) → file name → body."""

    def of(text, *settings):
        return {d.file: d.body for d in deploy.render(load(text), "sagemaker_endpoint", settings).documents}

    return of


@pytest.mark.parametrize("name", CASES)
def test_whole_renderings(name, load):
    text, settings = CASES[name]
    file = load(text)
    rendering = deploy.render(file, "sagemaker_endpoint", settings)
    texts = deploy.texts(rendering, file, settings)
    snapshot.hold(f"{name}.txt", snapshot.joined(texts))
    for document in rendering.documents:
        if document.file.endswith(".json"):
            assert json.loads(texts[document.file]) == document.body
    comments = " ".join(" ".join(line.removeprefix("#").split()) for line in texts["deploy.py"].splitlines())
    assert [lost for lost in rendering.not_expressed if f"not expressed: {lost} " not in comments] == []


@pytest.mark.parametrize("name", CASES)
def test_the_python_files_are_clean(name, load, tmp_path):
    text, settings = CASES[name]
    file = load(text)
    folder = tmp_path / "rendered"
    folder.mkdir()
    for called, content in deploy.texts(deploy.render(file, "sagemaker_endpoint", settings), file, settings).items():
        if called.endswith(".py"):
            ast.parse(content)
            (folder / called).write_text(content)
    ruff = [str(Path(sys.executable).parent / "ruff")]
    config = ["--config", str(Path(__file__).resolve().parents[2] / "pyproject.toml")]
    for words in (["check"], ["format", "--check"]):
        ran = subprocess.run([*ruff, *words, *config, str(folder)], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout


def test_the_same_bytes_in_every_process():
    script = (
        "from hyperpd import deploy, recipe; file = recipe.load('tiny-cpu-1p1d');"
        f"said = {[*BASE, CPU]!r};"
        "print(deploy.texts(deploy.render(file, 'sagemaker_endpoint', said), file, said))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": s}, capture_output=True, check=True
        ).stdout
        for s in ("1", "2")
    }
    assert len(said) == 1
    assert said != {b""}


def test_rendering_costs_little(load):
    file = load(LOCAL)
    settings = CASES["endpoint-local"][1]
    deploy.render(file, "sagemaker_endpoint", settings)
    began = time.process_time()
    deploy.texts(deploy.render(file, "sagemaker_endpoint", settings), file, settings)
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")


def test_rendering_needs_no_cloud_library():
    script = (
        "import sys; from hyperpd import deploy, recipe;"
        f"deploy.render(recipe.load('tiny-cpu-1p1d'), 'sagemaker_endpoint', {[*BASE, CPU]!r});"
        "print({'boto3', 'botocore', 'sagemaker'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_every_field_has_a_fate():
    fields = sagemaker_endpoint.FIELDS
    paths = list(leaves(recipe.Recipe))
    assert [path for path in paths if fate(fields, path) is None] == []
    assert [key for key in fields if not any(f"{path}.".startswith(f"{key}.") for path in paths)] == []


@pytest.mark.parametrize("name", objects_recipes.names())
def test_a_recipe_is_refused_by_a_field_or_makes_right_requests(name, record_property):
    """Whatever a recipe says: what is rendered is within botocore's shapes, or a field is named that cannot be."""
    file = objects_recipes.load(name)
    settings = [*BASE, *([CPU] if file.recipe.accelerator == "cpu" else [])]
    if name in objects_recipes.OWN or file.recipe.model.path:
        settings.append(DATA)
    try:
        rendering = deploy.render(file, "sagemaker_endpoint", settings)
    except RecipeError as error:
        known = {path.split(".")[-1] for path in leaves(recipe.Recipe)} | {"instance_type", "replicas", "model_data"}
        for problem in error.problems:
            assert problem.split(":")[0].split(".")[-1] in known, problem
        record_property("refused", str(error))
        return
    found = {one.file: one.body for one in rendering.documents}
    for called, operation in OPERATIONS.items():
        assert botocore_shapes.problems("sagemaker", operation, found[called]) == []


OPERATIONS = {
    "2-model.json": "CreateModel",
    "3-endpoint-config.json": "CreateEndpointConfig",
    "4-endpoint.json": "CreateEndpoint",
}


def test_what_is_lost_is_said(load):
    lost = deploy.render(load(LOCAL), "sagemaker_endpoint", [*BASE, DATA]).not_expressed
    assert [one.split(":")[0] for one in lost] == [
        "prefill.autoscaling.min",
        "prefill.autoscaling.max",
        "gateway.replicas",
        "slo.ttft_ms",
        "gateway.limits.body_mib",
        "drain_s",
        "model.revision",
        "start_timeout_s",
    ]
    assert deploy.render(load(AGGREGATED), "sagemaker_endpoint", [*BASE, DATA]).not_expressed == ()


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (AGGREGATED, "role_arn=arn:aws:iam::123456789012:role/other"),
        (AGGREGATED, "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/other"),
        (AGGREGATED, "endpoint_name=other"),
        (AGGREGATED, "instance_type=ml.g6e.24xlarge"),
        (AGGREGATED, "model_data=s3://models-example/other"),
        (AGGREGATED, "inference_ami=al2-ami-sagemaker-inference-gpu-3-1"),
        (AGGREGATED, "tags=a=b"),
        ("tiny-cpu-1p1d", "volume_gb=64"),
    ],
)
def test_each_option_does_something(text, setting, bodies):
    settings = [*BASE, *([CPU] if text == "tiny-cpu-1p1d" else [])]
    if text == AGGREGATED:
        settings.append("model_data=s3://models-example/llama/8b")
    others = [one for one in settings if one.split("=")[0] != setting.split("=")[0]]
    assert bodies(text, *others, setting) != bodies(text, *settings)


def test_the_options_that_need_each_other_are_the_rest(bodies):
    options = sagemaker_endpoint.Options.model_fields
    alone = {"role_arn", "image", "endpoint_name", "instance_type", "model_data", "inference_ami", "tags", "volume_gb"}
    assert options.keys() - alone == {"subnets", "security_groups"}
    assert all(option.description for option in options.values())
    found = bodies(AGGREGATED, *BASE, DATA, *VPC)["2-model.json"]["VpcConfig"]
    assert found == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]}


def test_another_request_or_recipe_has_another_name(bodies):
    texts = (LOCAL, LOCAL + "# a word\n", LOCAL.replace("tensor: 4", "tensor: 2"))
    made = [bodies(text, *BASE, DATA) for text in texts] + [bodies(LOCAL, *BASE, DATA, "tags=a=b", *VPC)]
    for called, name in (("2-model.json", "ModelName"), ("3-endpoint-config.json", "EndpointConfigName")):
        assert len({one[called][name] for one in made}) == len(made)
    assert {one["4-endpoint.json"]["EndpointName"] for one in made} == {"own-local"}


def test_a_long_name_stays_within_the_pattern(bodies):
    found = bodies(LOCAL.replace("own.local", "a" * 49 + "-." + "b" * 12), *BASE, DATA)
    for called, operation in OPERATIONS.items():
        assert botocore_shapes.problems("sagemaker", operation, found[called]) == []


def test_the_container_is_told_what_it_reads(bodies):
    for text, settings in CASES.values():
        told = bodies(text, *settings)["2-model.json"]["PrimaryContainer"]["Environment"]
        Environment.model_validate({key.removeprefix("HYPERPD_").lower(): value for key, value in told.items()})


def test_only_a_container_that_needs_the_hub_may_go_out(bodies):
    def isolated(text, *settings):
        return bodies(text, *BASE, *settings)["2-model.json"]["EnableNetworkIsolation"]

    assert isolated("tiny-cpu-1p1d", CPU)
    assert isolated(LOCAL, DATA)
    assert not isolated(LOCAL.replace("path: /opt/ml/model/adapters/sql", "huggingface: example/sql"), DATA)
    assert not isolated("gpt-oss-120b-p6-b200-8xtp1")


def test_a_role_may_do_no_more_than_needed(bodies):
    def allowed(text, *settings):
        return {one["Sid"]: one for one in bodies(text, *BASE, *settings)["1-role-policy.json"]["Statement"]}

    plain = allowed("tiny-cpu-1p1d", CPU)
    assert plain.keys() == {"PullImage", "RegistryLogin", "Logs", "Metrics"}
    whole = allowed(LOCAL, DATA, *VPC)
    network = {"MakeInterfaces", "OwnInterfaces", "Describe"}
    assert whole.keys() - plain.keys() == {"ModelRead", "ModelList", *network}
    assert whole["ModelRead"]["Resource"] == ["arn:aws:s3:::models-example/large/*"]
    assert whole["ModelList"]["Condition"]["StringLike"] == {"s3:prefix": ["large/*"]}
    image = "arn:aws:ecr:us-east-2:123456789012:repository/hyperpd"
    assert whole["PullImage"]["Resource"] == [image]
    account = {"aws:ResourceAccount": "123456789012"}
    assert [whole[sid]["Condition"]["StringEquals"] for sid in ("ModelRead", "ModelList")] == [account, account]
    log = "arn:aws:logs:us-east-2:123456789012:log-group:/aws/sagemaker/Endpoints/own-local"
    assert whole["Logs"]["Resource"] == [log, f"{log}:log-stream:*"]
    assert whole["Metrics"]["Condition"] == {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Endpoints"}}
    ec2 = "arn:aws:ec2:us-east-2:123456789012:"
    made = [f"{ec2}network-interface/*", f"{ec2}subnet/subnet-1", f"{ec2}subnet/subnet-2", f"{ec2}security-group/sg-1"]
    assert whole["MakeInterfaces"]["Resource"] == made
    assert whole["OwnInterfaces"]["Resource"] == made[:1]
    assert all(action.startswith("ec2:Describe") for action in whole["Describe"]["Action"])
    # What has no resource to name, or is bound by a condition.
    unbound = {sid for sid, one in whole.items() if one["Resource"] == "*" and "Condition" not in one}
    assert unbound == {"RegistryLogin", "Describe"}
    assert not any("*" in action for one in whole.values() for action in one["Action"])


def test_what_is_known_of_instances_and_images_is_what_the_api_takes():
    hosted = botocore_shapes.enum("sagemaker", "ProductionVariantInstanceType")
    assert {one.name for one in instances.INSTANCES} - hosted == set(refusals.NOT_HOSTED)
    amis = botocore_shapes.enum("sagemaker", "ProductionVariantInferenceAmiVersion")
    assert set(Ami.__args__) == {one for one in amis if "gpu" in one}


HOSTILE = (
    "x\"); __import__('os').system('id'); (\"",
    "x\n__import__('os').system('id')\n",
    "x\r__import__('os').system('id')\r",
    'x"""\n__import__("os").system("id")\n"""',
    "x'''\n__import__('os')\n'''",
    "x\\",
    "{x!r} {0} {{y}} %s",
)


def _texts(block: BaseModel, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of every field of a recipe that may hold a text, those that it leaves out among them."""
    for name, field in type(block).model_fields.items():
        value, path = getattr(block, name), (*above, name)
        if isinstance(value, BaseModel):
            yield from _texts(value, path)
        elif isinstance(value, tuple):
            for index, one in enumerate(value):
                yield from _texts(one, (*path, index))
        elif isinstance(value, dict) or "str" in str(field.annotation):
            yield path


def _with(block: Any, path: tuple[str | int, ...], text: str) -> Any:
    """The same with a text there, unvalidated: as if no pattern held anything back."""
    if not path:
        return {"max-num-seqs": text, text: 1} if isinstance(block, dict) else text
    key, rest = path[0], path[1:]
    if isinstance(key, int):
        return tuple(_with(one, rest, text) if at == key else one for at, one in enumerate(block))
    return block.model_copy(update={key: _with(getattr(block, key), rest, text)})


def _shape(text: str) -> str:
    """A program without its texts and numbers."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = 0
    return ast.dump(tree)


@pytest.mark.parametrize("text", [LOCAL, AGGREGATED])
def test_nothing_that_a_recipe_says_becomes_a_program(text, load):
    """Every text of a recipe, patterns set aside: what is rendered does what it would do, and no more."""
    file, settings = load(text), [*BASE, *([DATA] if text == LOCAL else [])]
    shapes = {_shape(body) for body in _programs(file, settings)}
    paths = list(_texts(file.recipe))
    rendered = set()
    for path in paths:
        for hostile in HOSTILE:
            changed = replace(file, recipe=_with(file.recipe, path, "s3://b/" * (path[-1] == "s3") + hostile))
            try:
                programs = _programs(changed, settings)
            except (RecipeError, ValueError):
                continue
            rendered.add(path)
            assert {_shape(body) for body in programs} <= shapes, (path, hostile)
    assert {("name",), ("description",), ("model", "served_as"), ("model", "s3")} <= rendered
    assert len(paths) > 10


def _programs(file, settings):
    found = deploy.render(file, "sagemaker_endpoint", settings).documents
    return [one.body for one in found if one.file.endswith(".py")]


@pytest.mark.parametrize("word", ['"', "'", "*", "?", "${a}", "{", ";", "\\", " ", "\n", "=", "é"])
def test_a_prefix_holds_nothing_that_a_policy_or_a_program_reads(word, load):
    with pytest.raises(RecipeError, match=r"model_data: not spelled"):
        deploy.render(load(LOCAL), "sagemaker_endpoint", [*BASE, f"model_data=s3://models-example/a{word}b"])
    document = {"version": 1, "name": "one", "model": {"s3": f"s3://models-example/a{word}b"}, "aggregated": {}}
    with pytest.raises(RecipeError, match=r"model\.s3: not spelled"):
        recipe.parse(document, "here")
