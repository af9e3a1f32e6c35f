"""The target hub_recipe with objects=inference_operator: that target's objects, through hyp's template and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hyperpd import deploy, recipe
from hyperpd.deploy import hub_recipe
from hyperpd.deploy.hub_recipe import objects, template
from hyperpd.errors import RecipeError
from tests.deploy import objects_recipes, operator_rendered
from tests.deploy.hyp_plurals import plural
from tests.deploy.operator_rendered import AMP, FRONT, IMAGE, TOKEN
from tests.deploy.test_hub_recipe import BUCKET, as_hyp_renders
from tests.deploy.test_inference_operator import AGGREGATED, PAIR
from tests.fakes import kubernetes as server

OBJECTS = ("objects=inference_operator", BUCKET)
LLAMA = "llama-3.3-70b-p5en-4p2d"
OWN = ("own_image=true", f"image={IMAGE}")


def files(name: str, *given: str) -> dict[str, str]:
    file = objects_recipes.load(name)
    return deploy.texts(deploy.render(file, "hub_recipe", (*OBJECTS, *given)), file, given)


def wanted(name: str, *given: str) -> list[dict[str, Any]]:
    """What the target inference_operator renders, but for what kubectl makes before."""
    return [body for body in operator_rendered.bodies(name, given) if body["kind"] != "Namespace"]


@pytest.mark.parametrize(("name", "given"), operator_rendered.cases())
def test_the_template_gives_that_targets_objects_back(name: str, given: tuple[str, ...]) -> None:
    assert as_hyp_renders(files(name, *given)) == wanted(name, *given)
    file = objects_recipes.load(name)
    before, posted = objects.documents(file, deploy.options(hub_recipe, [*OBJECTS, *given]))
    assert [one.body for one in (*before, *posted)] == list(operator_rendered.bodies(name, given))
    assert [one.body["kind"] for one in before] == ["Namespace"]  # type: ignore[index]
    for one in posted:
        body: Any = one.body
        group = f"apis/{body['apiVersion']}" if "/" in body["apiVersion"] else f"api/{body['apiVersion']}"
        at = server.place(f"/{group}/namespaces/{body['metadata']['namespace']}/{plural(body['kind'])}")
        assert at.resource.kind == body["kind"]


@pytest.mark.parametrize(
    ("name", "given", "numbers"),
    [
        (LLAMA, (AMP, TOKEN), {"prefill": ("pdSpec", "prefillSpec"), "decode": ("pdSpec", "decodingSpec")}),
        ("qwen3-32b-p5-8xtp2", (), {"aggregated": ()}),
        ("tiny-cpu-1p1d", FRONT, {"gateway": ()}),
    ],
)
def test_every_parameter_changes_what_it_says(
    name: str, given: tuple[str, ...], numbers: dict[str, tuple[str, ...]]
) -> None:
    texts = files(name, *given)
    parameters = json.loads(texts[template.PARAMETERS])
    assert {*parameters} == {"namespace", "image", "instance_type", *(f"{role}_replicas" for role in numbers)}
    for role, path in numbers.items():
        bodies = as_hyp_renders(texts, **{f"{role}_replicas": 7})
        block = bodies[-1]["spec"]
        for key in path:
            block = block[key]
        default = parameters[f"{role}_replicas"]["default"]
        assert (block["replicas"], default) == (7, default)
        block["replicas"] = default
        assert bodies == as_hyp_renders(texts)
    others = dict(one.split("=", 1) for one in given) | {"namespace": "team-b", "image": "other:2"}
    changed = as_hyp_renders(texts, namespace="team-b", image="other:2", instance_type="ml.other")
    assert changed == wanted(name, *(f"{key}={value}" for key, value in others.items()))


def test_bounds_are_those_of_autoscaling() -> None:
    parameters = json.loads(files(LLAMA, AMP, TOKEN)[template.PARAMETERS])
    spec = recipe.load(LLAMA).recipe.role("decode")
    assert spec.autoscaling
    decode = parameters["decode_replicas"]
    assert (decode["default"], decode["min"], decode["max"]) == (
        spec.replicas,
        spec.autoscaling.min,
        spec.autoscaling.max,
    )


@pytest.mark.parametrize(
    ("name", "given", "machines"),
    [
        (LLAMA, (AMP, TOKEN), ["ml.p5en.48xlarge"]),
        ("tiny-cpu-1p1d", FRONT, ["ml.m5.2xlarge"]),
        (LLAMA, FRONT, ["ml.m5.2xlarge"]),  # of the front, not of the engines
    ],
)
def test_hyp_init_is_given_a_machine_of_the_object(name: str, given: tuple[str, ...], machines: list[str]) -> None:
    (entry,) = json.loads(files(name, *given)[template.HUB_DOCUMENT])["RecipeCollection"]
    assert entry["SupportedInstanceTypes"] == machines


@pytest.mark.parametrize(
    ("name", "given"), [(LLAMA, (AMP, TOKEN)), (LLAMA, (AMP, TOKEN, *OWN)), ("tiny-cpu-1p1d", FRONT)]
)
def test_what_that_target_loses_is_lost_here(name: str, given: tuple[str, ...]) -> None:
    file = objects_recipes.load(name)
    there = deploy.render(file, "inference_operator", given).not_expressed
    *here, before = deploy.render(file, "hub_recipe", (*OBJECTS, *given)).not_expressed
    assert here == list(there)
    assert before.startswith("Namespace: hyp 3.12.0 posts them to a path that no server has")


def test_own_image_in_pd_spec_is_marked_in_what_is_posted() -> None:
    """In the template itself: that is all a user of hyp sees."""
    assert "own_image: unverified" in files(LLAMA, AMP, TOKEN, *OWN)[template.TEMPLATE]


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (LLAMA, (), ["prefill.autoscaling: the operator scales by metrics"]),
        (LLAMA, ("prometheus=http://prometheus:9090",), ["prometheus: not spelled as it has to be"]),
        (LLAMA, (AMP,), ["model.huggingface: Hugging Face hands it out with a token alone; give --set hf_token"]),
        (LLAMA, (AMP, "queue=a", "privileged=true"), ["queue: goes with objects=kubernetes", "privileged: goes with"]),
        (LLAMA, (AMP, "instance_type=ml.a"), ["instance_type: this object names its machines itself"]),
        (LLAMA, (AMP, "namespace=" + "a" * 55), ["namespace: String should have at most 54"]),
        (LLAMA, (AMP, "frnt=true"), ["frnt: unknown key; did you mean front?"]),
        (LLAMA, (AMP, "objects=operator"), ["objects: given twice"]),
        ("tiny-cpu-1p1d", (), ["accelerator: cpu"]),
        ("tiny-cpu-1p1d", ("front=true",), ["image: the recipe names none", "front_instance_type: missing"]),
        ("deepseek-r1-p5en-1p1d", (), ["prefill.parallel.nodes: 2"]),
        (LLAMA, (AMP, TOKEN, "name=" + "a" * 50), ["names_that_are_derived"]),
        (PAIR, ("pd_buffer_gib=4", *OWN), ["pd_buffer_gib: only AWS's image"]),
        (AGGREGATED, (), ["aggregated.autoscaling: the operator scales by metrics"]),
    ],
)
def test_what_that_target_refuses_is_refused_here(
    text: str, given: tuple[str, ...], said: list[str], tmp_path: Any
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    file = recipe.load(str(path)) if "\n" in text else recipe.load(text)
    with pytest.raises(RecipeError) as error:
        deploy.render(file, "hub_recipe", (*OBJECTS, *given))
    assert [one for one in said if one not in str(error.value)] == []


def test_an_option_of_the_operator_needs_its_objects() -> None:
    given = [BUCKET, f"image={IMAGE}", "instance_type=ml.m5.2xlarge", "own_image=true"]
    with pytest.raises(RecipeError, match="own_image: goes with objects=inference_operator; remove it"):
        deploy.render(recipe.load("tiny-cpu-1p1d"), "hub_recipe", given)


def test_the_fields_say_where_the_operator_differs() -> None:
    for path in ("slo", "drain_s", "*.kv_tiers.disk"):
        assert "objects=inference_operator: not expressed" in hub_recipe.FIELDS[path].how
    assert "objects=" not in hub_recipe.FIELDS["*.engine"].how
