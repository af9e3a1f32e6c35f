"""The target hub_recipe: objects that hyp can post, the template that gives them back, parameters, refusals."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jinja2.sandbox import SandboxedEnvironment

from hyperpd import deploy, recipe
from hyperpd.cli.hub import hub
from hyperpd.deploy import hub_recipe
from hyperpd.deploy.hub_recipe import local, objects, publish, template
from hyperpd.deploy.target import fate, leaves
from hyperpd.errors import RecipeError
from hyperpd.recipe import RecipeFile
from tests.deploy import (
    botocore_shapes,
    flows_contract,
    objects_lifetime,
    objects_recipes,
    objects_rendered,
    objects_security,
    objects_wiring,
    schema,
    simulator_checks,
    snapshot,
)
from tests.deploy import objects as objects_of
from tests.deploy.hyp_plurals import plural
from tests.deploy.objects_rendered import IMAGE
from tests.deploy.test_kubernetes import LOCAL, PAIR
from tests.fakes import kubernetes as server

BUCKET = "bucket=s3://models-example/hyp"
NAMES = objects_recipes.names()


def settings(file: RecipeFile, *more: str) -> list[str]:
    """What a recipe of the tests needs, and more, which wins."""
    name = file.recipe.name
    known = objects_rendered.settings(name, "hyperpod") if name in NAMES else [f"image={IMAGE}"]
    found = [*known, BUCKET]
    if any(spec.autoscaling for spec in file.recipe.roles().values()):
        found.append("prometheus=http://prometheus.monitoring:9090")
    if not any(spec.instance_type for spec in file.recipe.roles().values()):
        found.append("instance_type=ml.m5.2xlarge")
    return [f"{key}={value}" for key, value in dict(one.split("=", 1) for one in (*found, *more)).items()]


def rendered(file: RecipeFile, *more: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(what kubectl makes before, what hyp posts)."""
    options = deploy.options(hub_recipe, settings(file, *more))
    before, posted = objects.documents(file, options)
    return [dict(one.body) for one in before], [dict(one.body) for one in posted]  # type: ignore[call-overload]


def files(file: RecipeFile, *more: str) -> dict[str, str]:
    given = settings(file, *more)
    return deploy.texts(deploy.render(file, "hub_recipe", given), file, given)


def as_hyp_renders(texts: dict[str, str], **changed: Any) -> list[dict[str, Any]]:
    values = {key: one["default"] for key, one in json.loads(texts[template.PARAMETERS]).items()}
    text = SandboxedEnvironment().from_string(texts[template.TEMPLATE]).render(**values | changed)
    return list(yaml.safe_load_all(text))


@pytest.fixture
def load(tmp_path: Path):
    def of(text: str) -> RecipeFile:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return recipe.load(path)

    return of


@pytest.mark.parametrize("name", NAMES)
def test_the_template_gives_the_objects_back(name: str) -> None:
    file = objects_recipes.load(name)
    before, posted = rendered(file)
    texts = files(file)
    assert as_hyp_renders(texts) == posted
    assert list(yaml.safe_load_all(texts[hub_recipe.BEFORE])) == before
    assert {body["kind"] for body in before} == {"Namespace", "ServiceAccount"}
    assert [problem for body in [*before, *posted] for problem in schema.problems(body)] == []


@pytest.mark.parametrize("name", NAMES)
def test_hyp_posts_each_object_where_a_server_has_it(name: str) -> None:
    for body in rendered(objects_recipes.load(name))[1]:
        group = f"apis/{body['apiVersion']}" if "/" in body["apiVersion"] else f"api/{body['apiVersion']}"
        at = server.place(f"/{group}/namespaces/{body['metadata']['namespace']}/{plural(body['kind'])}")
        assert at.resource.kind == body["kind"]


@pytest.mark.parametrize("name", NAMES)
def test_no_object_is_lost_and_names_are_single(name: str) -> None:
    """A LeaderWorkerSet comes with a Service of its own name; scalers point at what is there."""
    file = objects_recipes.load(name)
    given = [one for one in settings(file) if not one.startswith(("bucket=", "instance_type="))]
    kinds = Counter(document.body["kind"] for document in deploy.render(file, "kubernetes", given).documents)  # type: ignore[index]
    kinds["LeaderWorkerSet"] += kinds.pop("Deployment", 0)
    before, posted = rendered(file)
    assert Counter(body["kind"] for body in [*before, *posted]) == kinds
    named = [
        (body["metadata"]["namespace"], body["metadata"]["name"])
        for body in posted
        if body["kind"] in ("Service", "LeaderWorkerSet")
    ]
    assert len(named) == len(set(named))
    for body in posted:
        if body["kind"] == "ScaledObject":
            target = body["spec"]["scaleTargetRef"]
            assert target["kind"] == "LeaderWorkerSet"
            assert (body["metadata"]["namespace"], target["name"]) in named


@pytest.mark.parametrize("name", NAMES)
def test_the_converted_fleet_holds_together(name: str) -> None:
    """Scheduler, wiring, lifetimes, pod security and flows, as of the target kubernetes."""
    file = objects_recipes.load(name)
    before, posted = rendered(file)
    every = [*before, *posted]
    pods = objects_of.pods(every)
    found = simulator_checks.problems(every, file)
    found += objects_wiring.problems(every, file)
    found += objects_lifetime.problems(every, file.recipe)
    found += objects_security.outside(every)
    found += objects_security.not_admitted(every, pods)
    given = {key: objects_rendered.option(name, key) for key in ("clients_namespace", "monitoring_pods")}
    found += flows_contract.problems(every, file, **given)
    assert not found, "\n".join(found)


def test_what_the_recipe_says_is_no_jinja(load) -> None:
    text = "# {{ namespace }} {% raw %} {# no #} }} %}\n" + PAIR.replace(
        "name: pair", "name: pair\ndescription: '{{x}}'"
    )
    file = load(text)
    posted = as_hyp_renders(files(file))
    assert posted == rendered(file)[1]
    assert posted[0]["data"]["recipe.yaml"] == text


def test_every_parameter_changes_what_it_says(load) -> None:
    file = load(PAIR)
    changed = {"namespace": "team-b", "image": "other:2"}
    assert as_hyp_renders(files(file), **changed) == rendered(file, "namespace=team-b", "image=other:2")[1]
    parameters = json.loads(files(file)[template.PARAMETERS])
    replicas = [key for key in parameters if key.endswith("_replicas")]
    assert replicas == ["prefill_replicas", "decode_replicas", "gateway_replicas"]
    for key in replicas:
        objects_changed = [
            after["metadata"]["name"]
            for before, after in zip(as_hyp_renders(files(file)), as_hyp_renders(files(file), **{key: 7}), strict=True)
            if before != after and after["spec"]["replicas"] == 7
        ]
        assert objects_changed == [f"{key.removesuffix('_replicas')}-groups"]
    assert {*parameters} == {"namespace", "image", "instance_type", *replicas}
    for key in replicas:
        each = parameters[key]
        assert (each["min"], each["max"]) == (each["minimum"], each["maximum"])


def test_bounds_are_those_of_autoscaling(load) -> None:
    file = load(PAIR.replace("replicas: 3", "replicas: 3, autoscaling: {min: 2, max: 5}"))
    prefill = json.loads(files(file)[template.PARAMETERS])["prefill_replicas"]
    assert (prefill["default"], prefill["minimum"], prefill["maximum"]) == (3, 2, 5)


def test_one_pod_has_no_replicas_to_change(load) -> None:
    assert {*json.loads(files(load(LOCAL))[template.PARAMETERS])} == {"namespace", "image", "instance_type"}


def test_a_queue_admits_workers_apart(load) -> None:
    texts = files(load(PAIR), "queue=team")
    assert "queue-name: team" in texts[template.TEMPLATE]
    assert "pod-group" not in texts[template.TEMPLATE]
    lost = deploy.render(load(PAIR), "hub_recipe", settings(load(PAIR), "queue=team")).not_expressed
    assert [one for one in lost if one.startswith("queue: prefill and decode are admitted apart")]


def test_the_files_addresses_change_with_what_is_in_them(load) -> None:
    one, two = (json.loads(files(load(PAIR), image)[template.HUB_DOCUMENT]) for image in ("image=a:1", "image=a:2"))
    (entry,) = one["RecipeCollection"]
    assert entry["SupportedInstanceTypes"] == ["ml.p5.48xlarge"]
    assert entry["HpEksPayloadTemplateS3Uri"].startswith("s3://models-example/hyp/pair/")
    assert entry["HpEksPayloadTemplateS3Uri"] != two["RecipeCollection"][0]["HpEksPayloadTemplateS3Uri"]


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (PAIR, [f"image={IMAGE}"], "bucket: hyp init reads the template from S3"),
        (PAIR, [f"image={IMAGE}", "bucket=models"], "bucket:"),
        (PAIR, [BUCKET], "image: the recipe names none"),
        (PAIR, [BUCKET, f"image={IMAGE}", "technique=own name"], "technique:"),
        (PAIR, [BUCKET, f"image={IMAGE}", "instance_type=ml.p5.48xlarge"], "instance_type: the recipe names ml.p5"),
        ("tiny-cpu-1p1d", [BUCKET, f"image={IMAGE}"], "prefill.instance_type: missing, and hyp init asks for one"),
        (PAIR, [BUCKET, f"image={IMAGE}", "buckt=a"], "buckt: unknown key; did you mean bucket?"),
    ],
)
def test_refusals_name_the_field_or_option(text: str, given: list[str], said: str, load) -> None:
    file = load(text) if "\n" in text else recipe.load(text)
    with pytest.raises(RecipeError) as error:
        deploy.render(file, "hub_recipe", given)
    assert said in str(error.value)


@pytest.mark.parametrize("setting", ["technique=SFT", "bucket=s3://other-bucket/x", "namespace=team", "platform=eks"])
def test_each_option_does_something(setting: str, load) -> None:
    file = load(PAIR)
    assert files(file, setting) != files(file)


def test_every_field_has_a_fate() -> None:
    paths = list(leaves(recipe.Recipe))
    assert [path for path in paths if fate(hub_recipe.FIELDS, path) is None] == []
    assert [key for key in hub_recipe.FIELDS if not any(f"{path}.".startswith(f"{key}.") for path in paths)] == []
    assert not [one.how for one in hub_recipe.FIELDS.values() if "Deployment" in one.how]


def test_what_hyp_cannot_post_is_said_with_the_command(load) -> None:
    file = load(PAIR)
    lost = deploy.render(file, "hub_recipe", settings(file)).not_expressed
    assert any("kubectl apply -f 0-before.yaml" in one for one in lost)
    assert "kubectl apply -f 0-before.yaml" in files(file)[template.TEMPLATE]


def test_whole_rendering() -> None:
    file = recipe.load("tiny-cpu-1p1d")
    said = snapshot.joined(files(file))
    said = re.sub(r"(?<=/tiny-cpu-1p1d/)[0-9a-f]{12}", "CONTENTS", said)  # of files that say the version
    snapshot.hold("hub-recipe.txt", said)


def test_the_machine_says_that_it_changes_nothing(load) -> None:
    texts = files(load(PAIR))
    assert "changes nothing" in json.loads(texts[template.PARAMETERS])["instance_type"]["description"]
    assert as_hyp_renders(texts, instance_type="ml.other") == as_hyp_renders(texts)


def test_what_is_typed_is_quoted(load) -> None:
    file = load(PAIR.replace("ml.p5.48xlarge", "'ml.a;id'").replace("example/small", 'a/b, served_as: "it\'s; c"'))
    options = deploy.options(hub_recipe, [BUCKET, "objects=inference_operator", "technique=x"])
    typed = publish.commands("arn:a b", file.recipe, options, "a; id")
    assert typed[1].startswith("hyp init hyp-recipe-job 'a; id' --model-id 'arn:a b' ")
    assert shlex.split(typed[1])[-1] == "ml.a;id"
    assert shlex.split(typed[2]) == ["cd", "a; id"]
    assert json.loads(shlex.split(typed[-1])[-1])["model"] == "it's; c"


@pytest.mark.parametrize(
    ("given", "last"),
    [
        ((), "hyperpd invoke --url http://127.0.0.1:8080 'Once upon a time'"),
        (("objects=inference_operator", "front=true"), "hyp invoke hyp-custom-endpoint --endpoint-name pair --body"),
        (("objects=inference_operator", "front=true", "sagemaker_endpoint=false"), "hyp create"),
    ],
)
def test_what_is_typed_ends_in_a_request(given: tuple[str, ...], last: str, load) -> None:
    machine = ["front_instance_type=ml.m5.2xlarge"] if given else []
    options = deploy.options(hub_recipe, [BUCKET, *given, *machine])
    assert publish.commands("arn", load(PAIR).recipe, options, "pair")[-1].startswith(last)


@pytest.mark.parametrize(("text", "room"), [(PAIR, "hyperpd"), (LOCAL, "hyperpd-engines")])
def test_the_gateway_is_asked_where_it_is(text: str, room: str, load) -> None:
    file = load(text)
    (service,) = (
        body for body in rendered(file)[1] if (body["kind"], body["metadata"]["name"]) == ("Service", "gateway")
    )
    typed = publish.commands("arn", file.recipe, deploy.options(hub_recipe, settings(file)), "a")
    port = service["spec"]["ports"][0]["port"]
    assert service["metadata"]["namespace"] == room
    assert f"kubectl --namespace {room} port-forward service/gateway {port} &" in typed


def test_a_front_has_a_name_of_its_own_in_the_hub(load) -> None:
    front = deploy.options(hub_recipe, [BUCKET, "objects=inference_operator", "front=true"])
    named = load(PAIR.replace("name: pair", "name: a..b")).recipe
    engines = deploy.options(hub_recipe, [BUCKET])
    assert [publish.content_name(named, options) for options in (engines, front)] == ["a--b", "a--b-front"]


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--hub", "HubName", "a b"),
        ("--hub", "HubName", "a;id"),
        ("--hub", "HubName", "arn:aws:sagemaker:us-east-2:123456789012:hub/team"),
        ("--name", "HubContentName", "a.b"),
        ("--name", "HubContentName", "$(id)"),
        ("--name", "HubContentName", "a" * 64),
        ("--name", "HubContentName", "tiny"),
        ("--version", "HubContentVersion", "1"),
    ],
)
def test_a_hub_and_a_name_are_as_the_api_takes_them(option: str, field: str, value: str) -> None:
    argv = ["publish", "tiny-cpu-1p1d", "--bucket", "s3://recipes-example", "--dry-run", "--set", f"image={IMAGE}"]
    ran = CliRunner().invoke(hub, [*argv, "--set", "instance_type=ml.m5.2xlarge", "--hub", "team", option, value])
    request = {"HubContentVersion": "1.0.0", "HubContentType": "Model", "DocumentSchemaVersion": "2.2.0"}
    request |= {"HubName": "team", "HubContentName": "tiny", "HubContentDocument": "{}"}
    refused = bool(botocore_shapes.problems("sagemaker", "ImportHubContent", request | {field: value}))
    assert (isinstance(ran.exception, RecipeError), f"{option}: SageMaker" in str(ran.exception)) == (refused, refused)


def test_a_real_cluster_is_not_asked_with_the_stand_ins_keys(monkeypatch) -> None:
    monkeypatch.setattr(local.ThreadingHTTPServer, "serve_forever", lambda self: None)
    argv = ["serve-local", "tiny-cpu-1p1d", "--port", "0", "--set", f"image={IMAGE}"]
    ran = CliRunner().invoke(hub, [*argv, "--set", "instance_type=ml.m5.2xlarge"])
    lines = [line.strip() for line in ran.output.splitlines()]
    variables = [word for line in lines for word in line.split() if re.match("[A-Z0-9_]+=", word)]
    (init,) = (line for line in lines if " hyp init " in line)
    assert init.startswith(" ".join(variables) + " hyp init ")
    assert [one.partition("=")[0] for one in variables] == [*local.environment("")]
    assert not [line for line in lines if line.startswith(("export ", "unset "))]  # the user's own keys stay


def test_the_same_bytes_in_every_process() -> None:
    script = (
        "from hyperpd import deploy, recipe; file = recipe.load('tiny-gpt-oss-4p1d');"
        "given = ['image=a', 'bucket=s3://abc', 'instance_type=ml.a'];"
        "print(deploy.texts(deploy.render(file, 'hub_recipe', given), file, given))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert said != {b""}


def test_rendering_costs_little() -> None:
    file = recipe.load("deepseek-r1-p5en-1p1d")
    files(file)
    began = time.process_time()
    files(file)
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")
