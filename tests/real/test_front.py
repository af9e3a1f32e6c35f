"""The gateway front of the target inference_operator before the engines of the target kubernetes, run.

What the operator adds is played here: the pod it makes of `worker`, its proxy, which reaches the container on
127.0.0.1, and SageMaker, which boto3 talks to. That the operator does it so is unverified.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config

from hyperpd import deploy
from hyperpd.recipe import load
from tests.netns import needs_two_hosts
from tests.real.fleet import Fleet, until
from tests.real.prompts import complete, differences, prompt
from tests.real.test_rendered import Pod, cluster

pytestmark = [pytest.mark.real, needs_two_hosts]
RECIPE = "tiny-cpu-1p1d"
OPTIONS = ["front=true", "front_instance_type=ml.m5.2xlarge", "image=r.example/h:1"]
# What SageMaker passes on to a container; everything else it takes off.
PASSED = ("content-type", "accept", "x-amzn-sagemaker-custom-attributes")


def pod_of(endpoint: dict[str, Any]) -> dict[str, Any]:
    """The Deployment of one pod that the operator makes of an InferenceEndpointConfig, without its own containers."""
    worker = endpoint["spec"]["worker"]
    container = {
        "name": "front",
        "image": worker["image"],
        "args": worker.get("args", []),
        "env": worker["environmentVariables"],
        "ports": [worker["modelInvocationPort"]],
        "volumeMounts": [worker["modelVolumeMount"]],
        **worker["probes"],
    }
    spec = {
        "containers": [container],
        "volumes": endpoint["spec"]["kubernetes"]["volumes"],
        "terminationGracePeriodSeconds": 30,
    }
    meta = {"name": endpoint["metadata"]["name"], "namespace": endpoint["metadata"]["namespace"]}
    template = {"metadata": {"labels": {"app": "labels-of-the-operator"}}, "spec": spec}
    return {"kind": "Deployment", "metadata": meta, "spec": {"replicas": 1, "template": template}}


def with_a_front(objects: list[dict[str, Any]]) -> None:
    """In place of the gateways of the target kubernetes."""
    objects[:] = [one for one in objects if (one["kind"], one["metadata"]["name"]) != ("Deployment", "gateway")]
    front: list[Any] = [one.body for one in deploy.render(load(RECIPE), "inference_operator", OPTIONS).documents]
    objects += [*front[:-1], pod_of(front[-1])]


@contextlib.contextmanager
def sagemaker(name: str, front: Pod) -> Iterator[str]:
    """The URL of a stand-in for SageMaker's runtime, with the endpoint `name` before `front`."""

    class Runtime(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path != f"/endpoints/{name}/invocations":
                self.send_error(400)
                return
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key: value for key, value in self.headers.items() if key.lower() in PASSED}
            answer = httpx.post(f"http://{front.address}:8080/invocations", content=body, headers=headers, timeout=300)
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers["content-type"])
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Runtime) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def inside(pod: Pod, url: str) -> str:
    """What `url` answers in the pod."""
    script = f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"
    return subprocess.run([*pod.host, "python3", "-c", script], capture_output=True, text=True, check=True).stdout


def test_sagemaker_runtime_reaches_the_engines(tmp_path: Path, aggregated: Fleet, http: httpx.Client) -> None:
    with cluster(RECIPE, tmp_path, with_a_front) as pods:
        (front,) = [pod for pod in pods if pod.container["name"] == "front"]
        assert sorted(pod.container["name"] for pod in pods) == ["decode", "front", "prefill"]
        text = prompt(700, 0)
        body = {"model": "tiny-llama", "prompt": text, "max_tokens": 16, "temperature": 0, "logprobs": 5}
        with sagemaker(RECIPE, front) as url:
            client = boto3.client(
                "sagemaker-runtime",
                region_name="us-east-2",
                endpoint_url=url,
                aws_access_key_id="a",
                aws_secret_access_key="b",
                config=Config(retries={"total_max_attempts": 1}, read_timeout=300),
            )
            answer = client.invoke_endpoint(
                EndpointName=RECIPE, ContentType="application/json", Body=json.dumps(body).encode()
            )
        said = json.loads(answer["Body"].read())
        assert differences(said, complete(http, aggregated.url, text, logprobs=5)) == []
        # The operator's proxy is in the same pod, and so is all that may ask the admin port.
        metrics = inside(front, "http://127.0.0.1:8081/metrics")
        assert 'hyperpd_requests_total{mode="pd",outcome="ok",why="plain"} 1.0' in metrics
        assert "ok" in inside(front, "http://127.0.0.1:8080/ping")
        with pytest.raises(httpx.ConnectError):
            http.get(f"http://{front.address}:8081/metrics")
        until(lambda: front.probe("livenessProbe"))
