"""From stock hyp to a served request: what hyp posted is run, with real engines, and hyp invoke is answered.

The API server is a stand-in that starts nothing. So the posted objects are taken from it, and what a cluster's
controllers and SageMaker do with them is played: a LeaderWorkerSet of groups of one pod becomes its pods, an
InferenceEndpointConfig the pod of its worker, behind SageMaker's runtime. Each pod is its container's arguments,
environment and mounts on a host of its own. That a real cluster does the same is unverified.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import hub, kubernetes
from tests.hyp.conftest import Shell, apply, prepare, published
from tests.netns import needs_two_hosts
from tests.real.fleet import Fleet
from tests.real.prompts import complete, differences
from tests.real.test_front import inside, pod_of, sagemaker
from tests.real.test_rendered import cluster

pytestmark = [pytest.mark.real, needs_two_hosts]
RECIPE, MACHINE = "tiny-cpu-1p1d", "ml.m5.2xlarge"
IMAGE = "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
ENGINES = [IMAGE, f"instance_type={MACHINE}"]
FRONT = [IMAGE, "objects=inference_operator", "front=true", f"front_instance_type={MACHINE}"]
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-0", "labels": {"node.kubernetes.io/instance-type": MACHINE}},
}


@pytest.fixture
def baseline(tmp_path: Path) -> Iterator[Fleet]:
    """The aggregated worker whose answers are right; it starts while hyp runs."""
    fleet = Fleet("tiny-cpu-aggregated", tmp_path / "aggregated", port_offset=5000)
    try:
        yield fleet
    finally:
        fleet.stop()


def create(shell: Shell, store: kubernetes.Store, folder: str, given: list[str], *configured: str) -> None:
    """All that a user types: publish, kubectl apply, hyp init, configure, create."""
    arn = published(shell, RECIPE, given, "--name", folder)
    prepare(store, RECIPE, given)
    asked = ("--model-id", arn, "--technique", "hyperpd", "--instance-type", MACHINE)
    shell.run("hyp", "init", "hyp-recipe-job", folder, *asked)
    if configured:
        shell.run("hyp", "configure", *configured, cwd=shell.folder / folder)
    assert "Successfully submitted" in shell.run("hyp", "create", cwd=shell.folder / folder)


def workload(body: dict[str, Any]) -> dict[str, Any]:
    """What a controller makes of a posted object, as a Deployment; any other as it is."""
    if body["kind"] == "InferenceEndpointConfig":
        return pod_of(body)
    if body["kind"] != "LeaderWorkerSet":
        return body
    groups = body["spec"]["leaderWorkerTemplate"]
    assert groups["size"] == 1
    spec = {"replicas": body["spec"]["replicas"], "template": groups["workerTemplate"]}
    return {"kind": "Deployment", "metadata": body["metadata"], "spec": spec}


@pytest.mark.usefixtures("bucket")
def test_a_fleet_that_hyp_posted_answers_hyp_invoke(
    shell: Shell, store: kubernetes.Store, private_hub: hub.Hub, baseline: Fleet, tmp_path: Path
) -> None:
    apply(store, [NODE])
    create(shell, store, "engines", ENGINES, "--gateway-replicas", "1")
    engines = list(store.posted)
    create(shell, store, "front", FRONT)
    posted = [*engines, *store.posted]
    assert [one["kind"] for one in posted].count("LeaderWorkerSet") == 3  # prefill, decode, gateway
    assert posted[-1]["kind"] == "InferenceEndpointConfig"
    endpoint = posted[-1]["spec"]["endpointName"]

    def as_posted(rendered: list[dict[str, Any]]) -> None:
        rendered[:] = [workload(one) for one in posted]

    with cluster(RECIPE, tmp_path / "pods", as_posted) as pods, httpx.Client(timeout=120) as http:
        named = {pod.container["name"]: pod for pod in pods}
        assert sorted(named) == ["decode", "front", "gateway", "prefill"]
        text = "Prefill and decode, apart. " * 24
        right = complete(http, baseline.wait().url, text, logprobs=5)
        gateway = f"http://{named['gateway'].address}"
        assert differences(complete(http, f"{gateway}:8080", text, logprobs=5), right) == []
        by_both = 'hyperpd_requests_total{mode="pd",outcome="ok",why="plain"} 1.0'
        assert by_both in http.get(f"{gateway}:8081/metrics").text
        body = {"model": "tiny-llama", "prompt": text, "max_tokens": 16, "temperature": 0, "logprobs": 5}
        with sagemaker(endpoint, named["front"]) as url:
            shell.environment["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = url
            invoke = ("hyp", "invoke", "hyp-custom-endpoint", "--endpoint-name", endpoint, "--body", json.dumps(body))
            private_hub.endpoints.append(endpoint)
            said = shell.run(*invoke)
        assert by_both in inside(named["front"], "http://127.0.0.1:8081/metrics")
    (answer,) = (line for line in said.splitlines() if line.startswith("{"))
    assert differences(json.loads(answer), right) == []
