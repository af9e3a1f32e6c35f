"""The helmfile and its values: as the charts take them, pinned, from a mirror."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from hyperpd.deploy.kubernetes import sidecar
from hyperpd.deploy.llm_d import charts
from tests.deploy import objects_rendered
from tests.deploy.llm_d_rendered import DATA, HEARD, PRIORITIES, ROUTES, made, names, release, rendered, texts

CASES = [(name, route) for name in names() for route in ROUTES]


def values_schema(chart: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((DATA / f"{chart}.schema.json").read_text()))


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_chart_takes_the_values(name: str, route: str) -> None:
    only, values = release(name, f"route={route}", PRIORITIES)
    checker = values_schema(only["chart"].rpartition("/")[2])
    assert [error.message for error in checker.iter_errors(values)] == []


def test_the_tokenizers_values_are_taken_too(load) -> None:
    for route, chart in charts.CHARTS.items():
        values = yaml.safe_load(texts(load(HEARD), f"route={route}", "hf_token_secret=hub")[charts.VALUES_FILE])
        assert [error.message for error in values_schema(chart).iter_errors(values)] == []
        image = values["router"]["tokenizer"]["image"]
        assert "{registry}/{repository}:{tag}".format(**image) == objects_rendered.IMAGE


@pytest.mark.parametrize("route", ROUTES)
def test_every_value_misspelt_is_noticed(route: str) -> None:
    only, values = release("tiny-cpu-1p1d", f"route={route}", PRIORITIES)
    checker = values_schema(only["chart"].rpartition("/")[2])
    open_ = ("pluginsCustomConfig", "matchLabels", "limits", "memory", "cpu", "key", "operator", "effect")
    open_ += ("hyperpd.io/configuration-digest",)  # of podAnnotations
    tried = 0
    for path in _paths(values):
        if set(path) & set(open_):
            continue
        changed = json.loads(json.dumps(values))
        block = changed
        for key in path[:-1]:
            block = block[key]
        block[f"{path[-1]}x"] = block.pop(path[-1])
        assert not checker.is_valid(changed), path
        tried += 1
    assert tried > 20


def _paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for key, inner in value.items() for p in ((*above, key), *_paths(inner, (*above, key)))]
    if isinstance(value, list):
        return [p for index, inner in enumerate(value) for p in _paths(inner, (*above, index))]
    return []


@pytest.mark.parametrize(
    "broken",
    [
        lambda v: v["router"]["modelServers"].pop("matchLabels"),
        lambda v: v["router"]["epp"]["resources"].pop("requests"),
        lambda v: v.update(inferencePool={"create": True}),
        lambda v: v["provider"].update(name="nginx"),
        lambda v: v["router"].update(tokenizer={"enabled": True}),
    ],
)
def test_what_the_templates_refuse_is_noticed(broken) -> None:
    _, values = release("tiny-cpu-1p1d")
    values = json.loads(json.dumps(values))
    broken(values)
    assert not values_schema("llm-d-router-gateway").is_valid(values)


@pytest.mark.parametrize("route", ROUTES)
def test_versions_are_pinned_to_one_tag(route: str) -> None:
    only, values = release("tiny-cpu-1p1d", f"route={route}")
    assert only.keys() == {"name", "namespace", "createNamespace", "chart", "version", "wait", "timeout", "values"}
    assert only["chart"] == f"oci://ghcr.io/llm-d/charts/{charts.CHARTS[route]}"
    assert only["version"] == values["router"]["epp"]["image"]["tag"] == sidecar.ROUTER_VERSION == "v0.10.0"
    assert only["values"] == [charts.VALUES_FILE.rpartition("/")[2]]  # a path from the helmfile's own folder
    assert sidecar.ROUTER_VERSION in json.dumps(rendered("tiny-cpu-1p1d"))


def test_another_configuration_starts_the_endpoint_picker_anew() -> None:
    """It reads its file once, and the chart's own pod template is the same whatever the file says."""

    def marks(*more: str) -> Any:
        return release("tiny-cpu-1p1d", *more)[1]["router"]["epp"]["podAnnotations"]

    assert marks() == marks("front=both") == marks("epp_cpus=2")
    assert len({json.dumps(marks(*more)) for more in ((), (PRIORITIES,), ("prefill_tokens_s=9000",))}) == 3


def test_a_mirror_has_all_of_llm_d() -> None:
    more = ("route=nginx", "llm_d_registry=mirror.example/llm-d", "envoy_image=mirror.example/envoy:1")
    said = json.dumps([release("tiny-cpu-1p1d", *more), rendered("tiny-cpu-1p1d", *more), made("tiny-cpu-1p1d", *more)])
    assert "ghcr.io" not in said
    assert "docker.io" not in said
