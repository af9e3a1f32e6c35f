"""The target custom_endpoint: held to the schema of hyp's template; what it cannot say is refused by field."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from hyperpd import deploy, recipe
from hyperpd.deploy import custom_endpoint
from hyperpd.deploy.target import fate, leaves
from hyperpd.errors import RecipeError
from hyperpd.recipe import RecipeFile
from tests.deploy import schema
from tests.deploy.mutation import misspelt
from tests.deploy.objects_rendered import asked

IMAGE, GPU = "image=example/hyperpd:1", "instance_type=ml.g6e.8xlarge"
GIVEN = ("image=example/hyperpd:1", "instance_type=ml.m5.2xlarge")
SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "hyp" / "custom-endpoint-1.2.json").read_text())
AGGREGATED = "version: 1\nname: tiny-cpu-aggregated\nmodel: {huggingface: example/small}\naggregated: {}\n"


def problems(body: dict[str, Any]) -> list[str]:
    """As hyp's own model, which forbids unknown keys and asks for one of two names and for a machine."""
    found = [
        error.message for error in Draft202012Validator({**SCHEMA, "additionalProperties": False}).iter_errors(body)
    ]
    if not (body.get("metadata_name") or body.get("endpoint_name")):
        found.append("no name")
    if not (body.get("instance_type") or body.get("instance_types") or body.get("node_affinity")):
        found.append("no machine")
    return found


def rendered(file: RecipeFile, *more: str) -> dict[str, Any]:
    return objects(file, *GIVEN, *more)[1]


def objects(file: RecipeFile, *given: str) -> list[dict[str, Any]]:
    """(the recipe's ConfigMap, config.yaml)."""
    return [dict(one.body) for one in deploy.render(file, "custom_endpoint", given).documents]  # type: ignore[arg-type]


@pytest.fixture
def load(tmp_path: Path):
    def of(text: str) -> RecipeFile:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return recipe.load(path)

    return of


SIMPLE = [
    name
    for name in recipe.shipped()
    if (spec := recipe.load(name).recipe.aggregated) and spec.parallel.size == 1 and not spec.instance_type
]


@pytest.mark.parametrize("name", SIMPLE)
def test_what_is_rendered_is_what_hyp_knows(name: str) -> None:
    file = recipe.load(name)
    body = rendered(file)
    assert problems(body) == []
    assert all('"' not in value and "\n" not in value for value in body["env"].values())
    text = deploy.texts(deploy.render(file, "custom_endpoint", GIVEN), file, GIVEN)["config.yaml"]
    assert yaml.safe_load(text) == body
    assert {"# template: hyp-custom-endpoint", "# version: 1.2"} <= set(text.splitlines())


def test_any_recipe_arrives_whole(load) -> None:
    """Not only one that is in the image: by its ConfigMap, in the place of a model."""
    file = load(AGGREGATED.replace("tiny-cpu-aggregated", "own"))
    config, body = objects(file, IMAGE, GPU, "namespace=team")
    assert schema.problems(config) == []
    (volume,) = body["kubernetes"]["volumes"]
    assert (volume["name"], volume["configMap"]["name"]) == (
        body["model_volume_mount_name"],
        config["metadata"]["name"],
    )
    assert config["metadata"]["namespace"] == body["namespace"] == "team"
    folder, _, key = body["env"]["HYPERPD_RECIPE"].rpartition("/")
    assert (folder, config["data"]) == (body["model_volume_mount_path"], {key: file.path.read_text()})


def test_replicas_are_what_the_recipe_says(load) -> None:
    body = objects(load(AGGREGATED.replace("aggregated: {", "aggregated: {replicas: 3")), IMAGE, GPU)[1]
    assert body["replicas"] == 3
    assert body["auto_scaling_spec"] == {"minReplicaCount": 3, "maxReplicaCount": 3}


def test_one_gpu_may_be_written_down(load) -> None:
    written = AGGREGATED.replace("aggregated: {", "aggregated: {parallel: {tensor: 1}")
    assert objects(load(written), IMAGE, GPU)[1]["resources_limits"]["nvidia.com/gpu"] == 1


def test_the_comment_ends_in_a_request() -> None:
    """As it stands there, it is a command of a shell."""
    file = recipe.load("tiny-cpu-aggregated")
    text = deploy.texts(deploy.render(file, "custom_endpoint", GIVEN), file, GIVEN)["config.yaml"]
    words = asked(text, "hyp invoke hyp-custom-endpoint")
    assert words[words.index("--endpoint-name") + 1] == rendered(file)["endpoint_name"]
    assert json.loads(words[-1])["model"] == "tiny-llama"


def test_only_the_api_is_open_and_what_that_costs_is_said() -> None:
    file = recipe.load("tiny-cpu-aggregated")
    env = rendered(file)["env"]
    assert (env["HYPERPD_API_ADDRESS"], "HYPERPD_ADDRESS" in env) == ("0.0.0.0", False)
    lost = deploy.render(file, "custom_endpoint", GIVEN).not_expressed
    assert [one.partition(":")[0] for one in lost] == ["metrics", "resources"]
    assert "cpu 1, memory 4Gi, an estimate" in lost[1]


def test_why_there_are_no_tiers() -> None:
    assert "prefill" in custom_endpoint.FIELDS["*.kv_tiers"].how


def test_some_recipes_can_be_said() -> None:
    assert "tiny-cpu-aggregated" in SIMPLE


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("tiny-cpu-1p1d", GIVEN, "prefill: hyp strips pdSpec"),
        ("tiny-cpu-1p1d", GIVEN, "decode: hyp strips pdSpec"),
        ("tiny-cpu-aggregated", GIVEN[1:], "image: the recipe names none"),
        ("tiny-cpu-aggregated", GIVEN[:1], "aggregated.instance_type: missing"),
        ("tiny-cpu-aggregated", ('image=a"b', GIVEN[1]), "image:"),
        (AGGREGATED + "gateway: {auth: keys}\n", GIVEN, "gateway.auth: target custom_endpoint refuses it"),
        (
            AGGREGATED.replace("aggregated: {", "aggregated: {parallel: {tensor: 2}"),
            GIVEN,
            "aggregated.parallel: 2 GPUs; more than one needs room in /dev/shm",
        ),
        (AGGREGATED, GIVEN, "instance_type: nothing is known of ml.m5.2xlarge"),
        (AGGREGATED.replace("example/small", "Qwen/Qwen3-32B"), (IMAGE, GPU), "instance_type: "),
        (
            AGGREGATED.replace("example/small", "meta-llama/Llama-3.3-70B-Instruct"),
            (IMAGE, GPU),
            "model.huggingface: Hugging Face hands it out with a token alone",
        ),
        (
            AGGREGATED.replace("aggregated: {", "aggregated: {autoscaling: {min: 1, max: 2}"),
            GIVEN,
            "aggregated.autoscaling.min",
        ),
        (AGGREGATED.replace("huggingface: example/small", "path: /fsx/m, claim: fsx"), GIVEN, "model.claim: target"),
        (
            AGGREGATED.replace("example/small", "example/small, adapters: [{name: a, path: /a}]"),
            GIVEN,
            "model.adapters.0.path",
        ),
        (
            AGGREGATED.replace("aggregated: {", "aggregated: {instance_type: ml.g6e.2xlarge"),
            GIVEN,
            "instance_type: the",
        ),
        (
            AGGREGATED.replace("aggregated: {", "aggregated: {instance_type: ml.nosuch.1"),
            GIVEN[:1],
            "aggregated.instance_type: nothing is known",
        ),
    ],
)
def test_refusals_name_the_field(text: str, given: tuple[str, ...], said: str, load) -> None:
    file = load(text) if "\n" in text else recipe.load(text)
    with pytest.raises(RecipeError) as error:
        deploy.render(file, "custom_endpoint", given)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "setting",
    ["namespace=team", "endpoint_name=chat", "certificates=s3://tls-example/a", "image=b", "instance_type=ml.b"],
)
def test_each_option_does_something(setting: str) -> None:
    file = recipe.load("tiny-cpu-aggregated")
    given = [one for one in GIVEN if one.partition("=")[0] != setting.partition("=")[0]]
    assert objects(file, *given, setting)[1] != rendered(file)


def test_every_field_has_a_fate() -> None:
    paths = list(leaves(recipe.Recipe))
    assert [path for path in paths if fate(custom_endpoint.FIELDS, path) is None] == []
    assert [key for key in custom_endpoint.FIELDS if not any(f"{path}.".startswith(f"{key}.") for path in paths)] == []


def test_every_mutation_is_noticed(record_property, capsys) -> None:
    """Every key misspelt, every one that hyp needs dropped. What is in env is free text."""
    body = rendered(recipe.load("tiny-cpu-aggregated"), "certificates=s3://tls-example/a")
    tried: Counter[str] = Counter()
    missed = []
    for key in body:
        tried["misspell"] += 1
        if not problems({misspelt(k) if k == key else k: v for k, v in body.items()}):
            missed.append(f"misspell {key}")
    needed = [[key] for key in (*SCHEMA["required"], "instance_type")] + [["metadata_name", "endpoint_name"]]
    for keys in needed:
        tried["drop"] += 1
        if not problems({key: value for key, value in body.items() if key not in keys}):
            missed.append(f"drop {keys}")
    with capsys.disabled():
        print(f"\ncustom_endpoint: mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["misspell"] >= 20


def test_rendering_costs_little() -> None:
    file = recipe.load("tiny-cpu-aggregated")
    rendered(file)
    began = time.process_time()
    rendered(file)
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")
