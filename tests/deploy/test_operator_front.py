"""hyperpd's own containers under the operator: what they are told, and the front before rendered engines."""

from __future__ import annotations

import yaml

from hyperpd import deploy, recipe
from hyperpd.placement import Ports
from hyperpd_runtime import settings as runtime
from tests.deploy import flows
from tests.deploy.operator_rendered import FRONT, IMAGE, bodies, endpoint, ours, settings

OWN = ("own_image=true", f"image={IMAGE}")


def _variables(body):
    """A container's environment, with an address for the one that only the cluster knows."""
    given = body["spec"]["worker"]["environmentVariables"]
    return {one["name"]: one.get("value", "10.0.0.7") for one in given}


def test_hyperpds_container_understands_what_it_is_told():
    for name in ours():
        body = endpoint(name, (*settings(name), *OWN))
        pair = body["spec"].get("pdSpec", {})
        told = [pair[role]["args"] for role in ("prefillSpec", "decodingSpec")] if pair else [[]]
        roles = [runtime.read(args, _variables(body)).environment.role for args in told]
        assert roles == (["prefill", "decode"] if pair else ["aggregated"])
    front = runtime.read([], _variables(endpoint("tiny-cpu-1p1d", FRONT))).environment
    assert (front.role, front.recipe) == ("gateway", "/opt/ml/model/recipe.yaml")
    assert (front.address, front.api_address) == ("127.0.0.1", "0.0.0.0")


def test_a_front_carries_scalars_only():
    variables = endpoint("llama-3.3-70b-p5en-4p2d", FRONT)["spec"]["worker"]["environmentVariables"]
    assert all(set(one) == {"name", "value"} and '"' not in one["value"] for one in variables)


def test_a_front_carries_the_recipe_in_the_place_of_a_model():
    objects = bodies("qwen3-32b-p5-4p2d", FRONT)
    (config,) = (body for body in objects if body["kind"] == "ConfigMap")
    spec = endpoint("qwen3-32b-p5-4p2d", FRONT)["spec"]
    assert spec["kubernetes"]["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    folder = spec["worker"]["modelVolumeMount"]["mountPath"]
    path = _variables({"spec": spec})["HYPERPD_RECIPE"]
    assert path.removeprefix(f"{folder}/") in config["data"]
    assert config["data"]["recipe.yaml"] == recipe.load("qwen3-32b-p5-4p2d").path.read_text()


def test_a_front_meets_the_engines_that_the_target_kubernetes_renders():
    """Both renderings in one cluster: the names are there, and the policies let the front, and only it, pass."""
    file = recipe.load("qwen3-32b-p5-4p2d")
    front = bodies(file.recipe.name, (*FRONT, "namespace=team"))
    disk = ["cache_folder=/opt/hyperpd/data/models"]  # the engines' own downloads
    engines = [
        one.body for one in deploy.render(file, "kubernetes", [f"image={IMAGE}", "namespace=team", *disk]).documents
    ]
    (body,) = (one for one in front if one["kind"] == "InferenceEndpointConfig")
    services = {
        f"dns://{one['metadata']['name']}.{one['metadata']['namespace']}.svc.cluster.local:{one['spec']['ports'][0]['port']}"
        for one in engines
        if one["kind"] == "Service"
    }
    named = {value for name, value in _variables(body).items() if name in ("HYPERPD_PREFILL", "HYPERPD_DECODE")}
    assert len(named) == 2
    assert named <= services
    worker = next(one for one in engines if one["kind"] == "Deployment" and one["metadata"]["name"] == "decode")
    labels = worker["spec"]["template"]["metadata"]["labels"]

    def pod(name, namespace, own=None):
        return flows.Actor(name, "10.0.0.1", namespace, {"kubernetes.io/metadata.name": namespace}, own or {})

    target = pod("decode", "team-engines", labels)
    policies = [one for one in [*front, *engines] if one["kind"] == "NetworkPolicy"]
    ports = [Ports().worker_api, Ports().worker_admin, Ports().side_channel]
    at = body["metadata"]["namespace"]
    assert [flows.allowed(policies, pod("front", at), target, "TCP", port) for port in ports] == [True, True, False]
    assert not any(flows.allowed(policies, pod("other", "shop"), target, "TCP", port) for port in ports)
    without = [one for one in engines if one["kind"] == "NetworkPolicy"]
    assert not any(flows.allowed(without, pod("front", at), target, "TCP", port) for port in ports)
    named_by = {one["metadata"]["name"] for one in without if one["metadata"]["namespace"] == "team-engines"}
    assert "front" not in named_by  # it replaces none of theirs


def test_an_exact_front_hears_what_workers_have_cached(tmp_path):
    document = yaml.safe_load(recipe.load("qwen3-32b-p5-4p2d").path.read_text())
    document["gateway"] = {**document.get("gateway", {}), "prefix_view": "exact"}
    (tmp_path / "exact.yaml").write_text(yaml.safe_dump(document))
    rendered = deploy.render(recipe.load(str(tmp_path / "exact.yaml")), "inference_operator", FRONT).documents
    (policy,) = (one.body for one in rendered if not isinstance(one.body, str) and one.body["kind"] == "NetworkPolicy")
    ports = [one["port"] for one in policy["spec"]["ingress"][0]["ports"]]
    assert ports == [Ports().worker_api, Ports().worker_admin, Ports().kv_events, Ports().kv_replay]
