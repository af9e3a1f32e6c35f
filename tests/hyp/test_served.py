"""From stock hyp to a served request: what hyp posted is run, with real engines, and hyp invoke is answered.

The API server is a stand-in that starts nothing. So the posted objects are taken from it, and what a cluster's
controllers and SageMaker do with them is played: a LeaderWorkerSet of groups of one pod becomes its pods, an
InferenceEndpointConfig the pod of its worker, behind SageMaker's runtime. Each pod is its container's arguments,
environment and mounts on a host of its own. That a real cluster does the same is unverified.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.fakes import hub, kubernetes
from tests.hyp.conftest import Shell, apply, prepare, published
from tests.netns import needs_two_hosts
from tests.real.prompts import complete, differences
from tests.real.test_front import inside, pod_of, sagemaker
from tests.real.test_rendered import Pod, cluster

pytestmark = [pytest.mark.real, needs_two_hosts]
RECIPE, AGGREGATED, MACHINE = "tiny-cpu-1p1d", "tiny-cpu-aggregated", "ml.m5.2xlarge"
IMAGE = "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
ENGINES = [IMAGE, f"instance_type={MACHINE}"]
FRONT = [IMAGE, "objects=inference_operator", "front=true", f"front_instance_type={MACHINE}"]
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-0", "labels": {"node.kubernetes.io/instance-type": MACHINE}},
}


def create(shell: Shell, store: kubernetes.Store, folder: str, given: list[str], *configured: str) -> None:
    """All that a user types: publish, kubectl apply, hyp init, configure, create."""
    arn = published(shell, RECIPE, given, "--name", folder)
    prepare(store, RECIPE, given)
    asked = ("--model-id", arn, "--technique", "hyperpd", "--instance-type", MACHINE)
    shell.run("hyp", "init", "hyp-recipe-job", folder, *asked)
    if configured:
        shell.run("hyp", "configure", *configured, cwd=shell.folder / folder)
    assert "Successfully submitted" in shell.run("hyp", "create", cwd=shell.folder / folder)


def own_template(shell: Shell, store: kubernetes.Store) -> list[dict[str, Any]]:
    """One aggregated worker by hyp-custom-endpoint: what is posted, and the recipe that kubectl applies."""
    shell.run("hyp", "init", "hyp-custom-endpoint", "alone")
    settings = ["--set", IMAGE, "--set", f"instance_type={MACHINE}"]
    shell.run("hyperpd", "render", AGGREGATED, "--target", "custom_endpoint", *settings, "--out", "alone")
    config: dict[str, Any] = yaml.safe_load((shell.folder / "alone" / "0-recipe.yaml").read_text())
    apply(store, [config])
    shell.run("hyp", "create", cwd=shell.folder / "alone")
    return [config, *store.posted]


def workload(body: dict[str, Any]) -> dict[str, Any]:
    """What a controller makes of a posted object, as a Deployment; any other as it is."""
    if body["kind"] == "InferenceEndpointConfig":
        return pod_of(with_defaults(body))
    if body["kind"] != "LeaderWorkerSet":
        return body
    groups = body["spec"]["leaderWorkerTemplate"]
    assert groups["size"] == 1
    spec = {"replicas": body["spec"]["replicas"], "template": groups["workerTemplate"]}
    return {"kind": "Deployment", "metadata": body["metadata"], "spec": spec}


def with_defaults(endpoint: dict[str, Any]) -> dict[str, Any]:
    """With what the operator's load balancer asks, where hyp's own template says nothing of probes."""
    spec = endpoint["spec"]
    port = {"name": "http", **spec["worker"]["modelInvocationPort"]}
    asked = {"httpGet": {"path": spec["loadBalancer"]["healthCheckPath"], "port": port["containerPort"]}}
    probes = dict.fromkeys(("startupProbe", "readinessProbe"), asked)
    return {**endpoint, "spec": {**spec, "worker": {"probes": probes, **spec["worker"], "modelInvocationPort": port}}}


@pytest.mark.usefixtures("bucket")
def test_what_hyp_posted_answers_hyp_invoke(
    shell: Shell, store: kubernetes.Store, private_hub: hub.Hub, tmp_path: Path
) -> None:
    """Three doors at once: workers of a hub's recipe, the front before them, and hyp's own endpoint template, whose
    worker is aggregated: what it answers is right."""
    apply(store, [NODE])
    create(shell, store, "engines", ENGINES, "--gateway-replicas", "1")
    posted = list(store.posted)
    create(shell, store, "front", FRONT)
    posted += store.posted
    posted += own_template(shell, store)
    workloads = [workload(one) for one in posted]
    names = [one["metadata"]["name"] for one in workloads if one["kind"] == "Deployment"]  # as cluster() has its pods
    assert {*names} == {"prefill-groups", "decode-groups", "gateway-groups", RECIPE, AGGREGATED}

    def as_posted(rendered: list[dict[str, Any]]) -> None:
        rendered[:] = workloads

    text = "Prefill and decode, apart. " * 24
    body = {"model": "tiny-llama", "prompt": text, "max_tokens": 16, "temperature": 0, "logprobs": 5}

    def invoked(endpoint: str, pod: Pod) -> dict[str, Any]:
        private_hub.endpoints.append(endpoint)
        with sagemaker(endpoint, pod) as url:
            shell.environment["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = url
            asked = ("--endpoint-name", endpoint, "--body", json.dumps(body))
            said = shell.run("hyp", "invoke", "hyp-custom-endpoint", *asked)
        (answer,) = (line for line in said.splitlines() if line.startswith("{"))
        found: dict[str, Any] = json.loads(answer)
        return found

    with cluster(RECIPE, tmp_path / "pods", as_posted) as pods, httpx.Client(timeout=120) as http:
        gateway, front, alone = (pods[names.index(name)] for name in ("gateway-groups", RECIPE, AGGREGATED))
        right = invoked(AGGREGATED, alone)
        assert differences(complete(http, f"http://{gateway.address}:8080", text, logprobs=5), right) == []
        assert differences(invoked(RECIPE, front), right) == []
        by_both = 'hyperpd_requests_total{mode="pd",outcome="ok",why="plain"} 1.0'
        assert by_both in http.get(f"http://{gateway.address}:8081/metrics").text
        assert by_both in inside(front, "http://127.0.0.1:8081/metrics")
