"""The endpoint picker's configuration: what its plugins take, the recipe's decider, KV events."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from hyperpd import deploy, recipe
from hyperpd.deploy.llm_d import charts
from tests.deploy import objects_recipes
from tests.deploy.llm_d_rendered import DATA, GATEWAY, HEARD, IMAGE, configuration, names, texts
from tests.deploy.test_kubernetes import PAIR


def plugins() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DATA / "plugins.yaml").read_text())
    return found


def faults(body: dict[str, Any]) -> list[str]:
    """What llm-d's endpoint picker would refuse in its configuration, or silently not do."""
    known, have = plugins(), {each["type"]: each for each in body["plugins"]}
    found = [f"{len(body['plugins']) - len(have)} given twice"] if len(have) != len(body["plugins"]) else []
    for kind, plugin in have.items():
        if kind not in known:
            found.append(f"{kind}: unknown")
            continue
        found += [f"{kind}: needs {other}" for other in known[kind].get("consumes", ()) if other not in have]
        found += _unknown(plugin.get("parameters", {}), known[kind].get("parameters", {}), kind)
    for profile in body["schedulingProfiles"]:
        kinds = [known.get(each["pluginRef"], {}).get("is") for each in profile["plugins"]]
        missing = [each["pluginRef"] for each in profile["plugins"] if each["pluginRef"] not in have]
        found += [f"{profile['name']}: {name} is not configured" for name in missing]
        if kinds.count("picker") != 1 or not {"filter", "scorer", "picker"} >= set(kinds):
            found.append(f"{profile['name']}: {kinds}")
    handlers = [kind for kind in have if known.get(kind, {}).get("is") == "handler"]
    if len(handlers) != 1:
        found.append(f"{len(handlers)} handlers")
    decider = have.get("disagg-profile-handler", {}).get("parameters", {}).get("deciders", {}).get("prefill")
    if "disagg-profile-handler" in have and known.get(decider, {}).get("is") != "decider":
        found.append("no decider: prefill would never be remote")
    order = [each["type"] for each in body["plugins"]]
    if decider in order and order.index(decider) > order.index("disagg-profile-handler"):
        found.append(f"{decider} comes after the handler that names it")
    return found


def _unknown(given: Any, known: Any, path: str) -> list[str]:
    if isinstance(known, dict) and known:
        return [
            fault
            for key, value in given.items()
            for fault in (
                [f"{path}.{key}: unknown"] if key not in known else _unknown(value, known[key], f"{path}.{key}")
            )
        ]
    types = {"int": int, "float": (int, float), "str": str, "bool": bool}
    if isinstance(known, dict):
        return [f"{path}: takes none"] if given else []
    right = isinstance(given, types[known]) and (known == "bool" or not isinstance(given, bool))  # type: ignore[arg-type]
    return [] if right else [f"{path}: {given!r} is no {known}"]


@pytest.mark.parametrize("name", names())
def test_the_endpoint_picker_takes_its_configuration(name: str) -> None:
    body = configuration(name)
    assert faults(body) == []
    roles = {"default"} if objects_recipes.load(name).recipe.aggregated else {"prefill", "decode"}
    assert {profile["name"] for profile in body["schedulingProfiles"]} == roles


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda body: body["plugins"].pop(0), "needs approx-prefix-cache-producer"),
        (lambda body: body["plugins"][0]["parameters"].update(blockSize=16), "blockSize: unknown"),
        (lambda body: body["plugins"].append({"type": "by-label"}), "by-label: unknown"),
        (lambda body: body["plugins"].reverse(), "comes after the handler"),
        (lambda body: body["schedulingProfiles"][0]["plugins"].pop(), "prefill: ["),
        (lambda body: body["plugins"][-1]["parameters"]["deciders"].clear(), "no decider"),
    ],
)
def test_a_wrong_configuration_is_noticed(what, said: str, load) -> None:
    body = yaml.safe_load(_picker(load(PAIR + "gateway: {threshold_tokens: 512}\n")))
    assert faults(body) == []
    what(body)
    assert any(said in fault for fault in faults(body)), faults(body)


def _picker(file: recipe.RecipeFile, *more: str) -> str:
    values = yaml.safe_load(texts(file, *more)[charts.VALUES_FILE])
    (text,) = values["router"]["epp"]["pluginsCustomConfig"].values()
    return str(text)


@pytest.mark.parametrize(
    ("gateway", "decider", "said"),
    [
        ("{decider: always}", {"type": "always-disagg-pd-decider"}, ""),
        ("{}", {"type": "always-disagg-pd-decider"}, "prefill is always remote"),
        ("{threshold_tokens: 512}", {"nonCachedTokens": 512}, "from 512 tokens on that decode has not cached"),
        ("{decider: never}", {"nonCachedTokens": 4096}, "from 4096 tokens on that decode has not cached"),
    ],
)
def test_the_decider_is_the_nearest_and_said(gateway: str, decider: dict[str, object], said: str, load) -> None:
    file = load(PAIR + f"gateway: {gateway}\n")
    every = yaml.safe_load(_picker(file))["plugins"]
    assert decider in (every[-2], every[-2].get("parameters"))
    lost = [one for one in deploy.render(file, "llm_d", [IMAGE, GATEWAY]).not_expressed if "decider" in one]
    assert bool(lost) == bool(said)
    assert all(said in one for one in lost)


def test_published_events_are_heard(load) -> None:
    """Endpoint, topic and port as the endpoint picker dials them: a first port, and the place of the worker's port."""
    file = load(HEARD)
    body = yaml.safe_load(_picker(file))
    assert faults(body) == []
    (exact,) = (each for each in body["plugins"] if each["type"] == "precise-prefix-cache-producer")
    heard = exact["parameters"]["kvEventsConfig"]
    assert (heard["topicFilter"], heard["podDiscoveryConfig"]["socketPort"]) == ("kv@", 5557)
    values = yaml.safe_load(texts(file)[charts.VALUES_FILE])["router"]
    places = [port["number"] for port in values["modelServers"]["targetPorts"]]
    for role, port in (("decode", 8000), ("prefill", 8100)):
        dialled = heard["podDiscoveryConfig"]["socketPort"] + places.index(port)
        (config,) = file.recipe.role(role).engine.values()
        assert config["endpoint"] == f"tcp://*:{dialled}"
        assert config["topic"].startswith(heard["topicFilter"])
    assert values["tokenizer"]["modelName"] == "example/small"
    assert "secretKeyRef" not in json.dumps(values["tokenizer"])  # the chart's own default names a Secret
    policies = {b["metadata"]["name"]: b for b in yaml.safe_load_all(texts(file)["3-network.yaml"])}
    (rule,) = policies["llm-d-workers"]["spec"]["ingress"][:1]
    assert [port["port"] for port in rule["ports"]] == [8000, 8100, 5557, 5558]
