"""Recipes: every problem at once, the nearest key, owned flags, the shipped files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hyperpd.errors import RecipeError
from hyperpd.recipe import CalibrationSpec, load, parse, schema, shipped
from hyperpd.routing.calibration import Calibration

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def minimal(**blocks: Any) -> dict[str, Any]:
    return {"version": 1, "name": "pair", "model": {"generated": "tiny-llama"}, "prefill": {}, "decode": {}, **blocks}


def problems(document: Any) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        parse(document, "pair.yaml")
    return caught.value.problems


def test_five_mistakes_are_five_problems() -> None:
    document = minimal(
        name="Pair!",
        accelerator="tpu",
        model={"generated": "tiny-llama", "max_len_token": 2048},
        prefill={"replicas": 0},
        kv_transfer={"lease_s": 5},
    )
    found = problems(document)
    assert len(found) == 5
    paths = {problem.split(":")[0] for problem in found}
    assert paths == {"name", "accelerator", "model.max_len_token", "prefill.replicas", "kv_transfer.lease_s"}
    assert "model.max_len_token: unknown key; did you mean max_len_tokens?" in found
    assert "name: not spelled as it has to be: Lower-case letters, digits, '-' and '.' (found 'Pair!')" in found


def test_the_message_names_the_file_and_every_problem() -> None:
    with pytest.raises(RecipeError, match=r"^pair\.yaml: 2 problems\n  - .*\n  - ") as caught:
        parse(minimal(prefil={}, drain_s=-1), "pair.yaml")
    assert caught.value.exit_code == 2
    assert "did you mean prefill?" in str(caught.value)


@pytest.mark.parametrize(
    "key", ["block-size", "block_size", "--block-size", "block-siz", "no-block-size", "block-size.x"]
)
def test_an_owned_flag_is_refused_by_name_however_it_is_spelled(key: str) -> None:
    (problem,) = problems(minimal(prefill={"engine": {key: 16}}))
    assert problem.startswith("prefill.engine:")
    assert f"engine.{key} is set by hyperpd from kv_transfer.block_size_tokens" in problem


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decode": None}, "no decode block"),
        ({"aggregated": {}}, "not both"),
        ({"model": {"generated": "tiny-llama", "path": "/m"}}, "exactly one of"),
        ({"model": {}}, "found: none"),
        ({"model": {"path": "/m", "revision": "main"}}, "revision goes with huggingface"),
        ({"model": {"huggingface": "o/m", "claim": "fsx"}}, "claim goes with path"),
        ({"model": {"path": "/m", "adapters": [{"name": "m", "path": "/a"}]}}, "m is the name of more than one model"),
        ({"model": {"path": "/m", "adapters": [{"name": "a"}]}}, "exactly one of path and huggingface"),
        ({"prefill": {"replicas": 3, "autoscaling": {"min": 1, "max": 2}}}, "3 is not within autoscaling 1 to 2"),
        ({"decode": {"parallel": {"pipeline": 2}}}, "decode.parallel.pipeline: vLLM refuses it"),
        ({"prefill": {"parallel": {"pipeline": 2}}}, "only NixlPushConnector"),
        ({"decode": {"parallel": {"tensor": 8, "nodes": 2}}}, "spans machines by data only"),
        ({"decode": {"parallel": {"data": 3, "nodes": 2}}}, "nodes: 2 does not divide data (3)"),
        ({"decode": {"kv_tiers": {"managed": True}}}, "decode has no prompt to look up"),
        ({"prefill": {"kv_tiers": {"managed": True, "disk": "/kv"}}}, "managed goes alone"),
        ({"prefill": {"kv_tiers": {}}}, "give memory_gib, disk or managed"),
        ({"gateway": {"decider": "uncached_tokens"}}, "threshold_tokens: decider: uncached_tokens needs it"),
        ({"gateway": {"decider": "always", "threshold_tokens": 9}}, "decider: always asks for none"),
        ({"gateway": {"decider": "never", "threshold_tokens": 9}}, "decider: never asks for none"),
        (
            {"gateway": {"calibration": {"steps_s": 1}}},
            "gateway.calibration.steps_s: unknown key; did you mean step_s?",
        ),
        ({"gateway": {"calibration": {"step_s": 0}}}, "gateway.calibration.step_s: Input should be greater than 0"),
        ({"placement": {"same_zone": False}}, "EFA does not leave an availability zone"),
        ({"accelerator": "cpu", "prefill": {"kv_tiers": {"managed": True}}}, "kv_tiers.managed needs GPUs"),
        (
            {
                "accelerator": "cpu",
                "model": {"path": "/m", "adapters": [{"name": "a", "path": "/a"}]},
                "decode": {"engine": {"max-loras": 1}},
            },
            "decode.engine.max-loras: 1 gives wrong text on a CPU; give 2",
        ),
        ({"accelerator": "cpu", "model": {"s3": "s3://bucket/m"}}, "the CPU engine cannot stream from S3"),
        ({"accelerator": "cpu", "decode": {"parallel": {"expert": True}}}, "kills vLLM's CPU engine"),
    ],
)
def test_blocks_that_contradict_each_other(change: dict[str, Any], says: str) -> None:
    assert says in " ".join(problems(minimal(**change)))


def test_routing_is_by_predicted_cost_where_nothing_else_is_said() -> None:
    recipe = parse(minimal(), "pair.yaml")
    gateway = recipe.gateway
    assert (gateway.policy, gateway.decider, gateway.prefix_view) == (
        *("marginal_slo_cost", "predicted_cost", "approximate"),
    )
    assert recipe.remote_from_tokens() == 0
    never = parse(minimal(gateway={"decider": "never"}), "pair.yaml")
    assert never.remote_from_tokens() == never.model.max_len_tokens


def test_a_calibration_is_routings() -> None:
    assert set(CalibrationSpec.model_fields) == {field.name for field in fields(Calibration)}


@pytest.mark.parametrize("key", ["a b", 'a"b', "a'b", "a*", "a?", "${a}", "a;b", "a\\b", ""])
def test_a_key_of_s3_changes_nothing_that_it_stands_in(key: str) -> None:
    assert problems(minimal(model={"s3": f"s3://bucket/{key}"}))
    parse(minimal(model={"s3": "s3://bucket/A-z_0.9!(x)/y/"}), "pair.yaml")


@pytest.mark.parametrize("document", [None, [], "text"])
def test_what_is_no_mapping_is_refused(document: Any) -> None:
    assert "mapping" in problems(document)[0]


@pytest.mark.parametrize("name", ["tiny-cpu-1p1d", "tiny-gpu-1p1d", "tiny-cpu-aggregated"])
def test_shipped_recipes_load(name: str) -> None:
    file = load(name)
    assert name in shipped()
    assert file.recipe.name == name
    assert file.recipe.model.name == "tiny-llama"
    assert file.digest == hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_every_shipped_recipe_is_called_as_its_file() -> None:
    assert [load(name).recipe.name for name in shipped()] == shipped()


def test_a_wrong_name_gets_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="did you mean tiny-cpu-1p1d"):
        load("tiny-cpu-1p1")


def test_what_is_not_yaml_is_said_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("version: [1")
    with pytest.raises(RecipeError, match=r"broken\.yaml: 1 problem\n  - not YAML"):
        load(path)


def test_a_key_written_twice_is_no_choice(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("version: 1\nname: r\nmodel: {path: /m}\nprefill: {}\ndecode: {}\nprefill: {replicas: 2}\n")
    with pytest.raises(RecipeError, match="prefill is written twice"):
        load(path)


def test_the_committed_schema_is_the_models() -> None:
    assert json.loads((RECIPES / "recipe.schema.json").read_text()) == schema(), "hyperpd recipes schema > it"


def test_every_field_explains_itself() -> None:
    blocks = [schema(), *schema()["$defs"].values()]
    fields = [(name, field) for block in blocks for name, field in block["properties"].items()]
    bare = [name for name, field in fields if not field.get("description") and "$ref" not in str(field) and name]
    assert bare == []


def test_editors_accept_what_is_shipped_and_see_what_is_misspelt() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    for path in sorted(RECIPES.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        assert list(validator.iter_errors(document)) == [], path
        assert path.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n"), path
        assert list(validator.iter_errors({**document, "drain": 3})) != []
