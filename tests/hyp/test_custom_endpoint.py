"""Stock hyp 3.12.0 takes config.yaml of the target custom_endpoint; and it drops what we refuse to give it."""

from __future__ import annotations

from pathlib import Path

import yaml

from hyperpd.deploy.inference_operator import rules
from tests.deploy import schema
from tests.fakes import kubernetes
from tests.hyp.conftest import Shell, apply

NAME, IMAGE = "tiny-cpu-aggregated", "123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"


def test_an_aggregated_recipe_arrives(shell: Shell, store: kubernetes.Store, tmp_path: Path) -> None:
    shell.run("hyp", "init", "hyp-custom-endpoint", "endpoint")
    settings = ["--set", f"image={IMAGE}", "--set", "instance_type=ml.m5.2xlarge"]
    shell.run("hyperpd", "render", NAME, "--target", "custom_endpoint", *settings, "--out", "endpoint")
    endpoint = tmp_path / "endpoint"
    given = yaml.safe_load((endpoint / "config.yaml").read_text())
    apply(store, [yaml.safe_load((endpoint / "0-recipe.yaml").read_text())])
    assert "validated successfully" in shell.run("hyp", "validate", cwd=endpoint)
    shell.run("hyp", "create", cwd=endpoint)
    (posted,) = store.posted
    assert schema.problems(posted) + rules.problems(posted) == []
    spec = posted["spec"]
    assert (posted["kind"], posted["metadata"]["name"]) == ("InferenceEndpointConfig", NAME)
    assert {one["name"]: one["value"] for one in spec["worker"]["environmentVariables"]} == given["env"]
    assert (spec["worker"]["image"], spec["instanceType"], spec["replicas"]) == (IMAGE, "ml.m5.2xlarge", 1)
    assert spec["worker"]["modelInvocationPort"]["containerPort"] == 8080
    requests = spec["worker"]["resources"]["requests"]
    assert {key: str(value) for key, value in requests.items()} == given[
        "resources_requests"
    ]  # YAML makes "1" a number
    (bounds,) = ({spec["autoScalingSpec"][key] for key in ("minReplicaCount", "maxReplicaCount")},)
    assert bounds == {1}  # hyp's own are 1 and 5
    assert spec["kubernetes"]["volumes"] == given["kubernetes"]["volumes"]
    assert (spec["invocationEndpoint"], spec["loadBalancer"]["healthCheckPath"]) == ("invocations", "/ping")
    assert spec["maxDeployTimeInSeconds"] == given["max_deploy_time_in_seconds"]


def test_pd_spec_is_stripped_which_is_why_two_roles_are_refused(
    shell: Shell, store: kubernetes.Store, tmp_path: Path
) -> None:
    shell.run("hyp", "init", "hyp-custom-endpoint", "endpoint")
    settings = ["--set", f"image={IMAGE}", "--set", "instance_type=ml.m5.2xlarge"]
    shell.run("hyperpd", "render", NAME, "--target", "custom_endpoint", *settings, "--out", "endpoint")
    endpoint = tmp_path / "endpoint"
    template = endpoint / "k8s.jinja"
    split = "  pdSpec: {prefillSpec: {replicas: 1}, decodingSpec: {replicas: 2}}\n  invocationEndpoint:"
    template.write_text(template.read_text().replace("  invocationEndpoint:", split))
    shell.run("hyp", "create", cwd=endpoint)
    (run,) = (endpoint / "run").iterdir()
    assert "pdSpec" in (run / "k8s.yaml").read_text()
    (posted,) = store.posted
    assert "pdSpec" not in posted["spec"]
    refused = shell.run("hyperpd", "render", "tiny-cpu-1p1d", "--target", "custom_endpoint", *settings, expect=2)
    assert "prefill: hyp strips pdSpec" in refused
