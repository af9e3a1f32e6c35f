"""Walks of examples/, run as they are written: the whole way cell after cell, those without our client as programs.

Real: hyperpd, the gateway, and the engines behind it (prefill and decode on this machine). Played: HyperPod's control
plane (tests/fakes/hyperpod) and the rest of AWS (tests/fakes/aws), with preflight's checks before them; the API server
and its controllers, on the nodes that HyperPod has (tests/fakes/kubernetes); sagemaker-runtime (tests/fakes/runtime).
Both the Service of the gateway and the endpoint lead to the one real gateway: pods are objects here, so that scaling
changes objects and no engine. Time passes where the walk waits, and never by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.files import written
from tests.cluster.preflight.account import BUCKET, CPU, Account, healthy
from tests.cluster.trial import in_kubernetes
from tests.deploy.simulator import cpu_nodes
from tests.fakes import kubernetes
from tests.fakes.kubernetes import nodes
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes.pods import ready
from tests.fakes.runtime import Runtime
from tests.real.fleet import ROOT, Fleet
from tests.real.prompts import complete

pytestmark = pytest.mark.real
EXAMPLES = ROOT / "examples"
SDK = os.environ.get("SAGEMAKER_SDK_PYTHON")
RECIPE = "tiny-cpu-1p1d"
IMAGE = "111122223333.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
GROUPS = {name: {"instance_type": CPU, "count": 2} for name in ("prefill", "decode", "gateway")}


class Walk:
    """A file of cells, run one after the other; `names` has what they leave."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, Any] = {"__name__": "__main__"}
        lines = path.read_text().splitlines(keepends=True)
        starts = [0, *(at for at, line in enumerate(lines) if line.startswith("# %% "))]
        # Empty lines before a cell: its errors have the numbers of the file.
        self._cells = ["\n" * start + "".join(lines[start:end]) for start, end in pairwise([*starts, len(lines)])]

    def run(self, title: str) -> None:
        """The next one, whose title begins so."""
        code = self._cells.pop(0)
        assert code.lstrip().removeprefix("# %% ").startswith(title)
        exec(compile(code, self.path, "exec"), self.names)

    @property
    def left(self) -> int:
        return len(self._cells)


class Cluster:
    """A Kubernetes cluster whose nodes are HyperPod's, played. gateway: the real one's URL."""

    def __init__(self, aws: Account, gateway: str) -> None:
        self.aws = aws
        self.store = kubernetes.Store()
        self.store.backends["hyperpd", "gateway"] = gateway
        self.controllers = Controllers(self.store)

    def pass_time(self) -> None:
        """HyperPod's nodes join, and controllers do a round."""
        running = [node for node in self.aws.control.nodes("pd") if node.status == "Running"]
        for body in nodes.of(cpu_nodes(len(running)), [node.instance_id for node in running]):
            self.store.put(body)
        self.controllers.step()

    def workers(self) -> dict[str, int]:
        """Pods that are ready, by role."""
        pods = [one for one in self.controllers.all("v1", "Pod") if ready(one)]
        return Counter(one["metadata"]["labels"].get("app.kubernetes.io/component", "front") for one in pods)


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Each look at a cluster or an endpoint is an hour later: other processes wait by clocks of their own."""
    with Account(step_s=3600) as aws:
        for name, value in (aws.environment | {"XDG_CACHE_HOME": str(tmp_path / "cache")}).items():
            monkeypatch.setenv(name, value)
        yield aws


@pytest.fixture
def runtime(pd: Fleet, aws: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with Runtime({RECIPE: pd.url}, seed=11) as runtime:
        for name, value in runtime.environment().items():
            monkeypatch.setenv(name, value)
        yield runtime


@pytest.fixture
def cluster(pd: Fleet, aws: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(aws, pd.url)
    file = written(tmp_path, healthy(aws, role=None, bucket=None, recipe=RECIPE, groups=GROUPS))
    monkeypatch.setenv("CLUSTER_FILE", str(file))
    monkeypatch.setenv("IMAGE", IMAGE)
    pause, walks = time.sleep, threading.current_thread()

    def passes(seconds: float) -> None:
        if threading.current_thread() is walks:
            cluster.pass_time()
        else:
            pause(seconds)

    monkeypatch.setattr(time, "sleep", passes)
    with kubernetes.serve(cluster.store) as url:
        in_kubernetes(aws, url)
        yield cluster


def served(fleet: Fleet) -> float:
    """Requests that went through prefill and decode."""
    return fleet.metric(fleet.state()["admin_url"], "hyperpd_requests_total", {"mode": "pd", "outcome": "ok"})


def test_the_whole_way(
    cluster: Cluster,
    aws: Account,
    runtime: Runtime,
    pd: Fleet,
    aggregated: Fleet,
    http: httpx.Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk = Walk(EXAMPLES / "whole-way" / "walk.py")
    for title in ('"""From a cluster file', "What is given"):
        walk.run(title)

    walk.run("Plan")
    said = capsys.readouterr().out
    assert "problems: 0" in said
    assert "$3.00/h" in said
    assert [call.operation for call in aws.calls if call.operation.startswith(("Create", "Put"))] == []

    walk.run("Create")
    assert aws.control.cluster("pd").status == "InService"
    assert capsys.readouterr().out.endswith("pd InService  prefill 2/2  decode 2/2  gateway 2/2\n")

    walk.run("Deploy")
    assert cluster.workers() == {"prefill": 1, "decode": 1, "gateway": 2}
    assert capsys.readouterr().out.endswith("the gateway has answered a request\n")

    walk.names["fleet"].close()  # by a kernel that is restarted: nothing is doubled
    walk = Walk(walk.path)
    for title in ('"""', "What is given", "Plan", "Create", "Deploy"):
        walk.run(title)
    assert len(aws.gate.named("CreateCluster")) == walk.names["fleet"].revision.number == 1
    capsys.readouterr()

    walk.run("Make it a SageMaker endpoint")
    assert cluster.workers() == {"prefill": 1, "decode": 1, "gateway": 2, "front": 2}
    assert [(call.operation, call.endpoint) for call in runtime.calls] == [("InvokeEndpoint", RECIPE)]
    assert capsys.readouterr().out.endswith(f"endpoint: {RECIPE}\n")

    text = complete(http, aggregated.url, walk.names["PROMPT"], max_tokens=32)["choices"][0]["text"]
    before = served(pd)
    walk.run("Ask it")
    assert capsys.readouterr().out == f"{text}\n{text}\n"
    assert served(pd) - before == 2
    asked = [call.operation for call in runtime.calls]
    assert asked == ["InvokeEndpoint"] * 2 + ["InvokeEndpointWithResponseStream"]

    walk.run("Scale")
    assert cluster.workers() == {"prefill": 2, "decode": 2, "gateway": 2, "front": 2}
    said = capsys.readouterr().out
    assert "prefill 2/2 ready\ndecode 2/2 ready\n" in said
    assert said.endswith(f"{text}\n")

    walk.run("Undeploy")
    assert cluster.workers() == {}
    assert [one["metadata"]["name"] for one in cluster.controllers.all("v1", "Namespace")] == ["default"]
    walk.run("Delete")
    assert capsys.readouterr().out.endswith("role hyperpd-pd-us-east-2: removed\n")
    assert [one.name for one in aws.control.account.clusters if not one.gone] == []
    s3, iam = aws.stage.client("s3"), aws.stage.client("iam")
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["sagemaker-files"]  # which was there before
    assert [one["RoleName"] for one in iam.list_roles()["Roles"]] == ["nodes"]
    assert walk.left == 0


PYTHONS = [
    pytest.param(sys.executable, "boto3", id="boto3"),
    pytest.param(SDK, "sdk", id="real_sdk", marks=pytest.mark.skipif(not SDK, reason="make sdk-test")),
]


def run(python: str, program: Path, *argv: str) -> str:
    """What it prints, as it is."""
    ended = subprocess.run([python, program, *argv], capture_output=True, timeout=240)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout.decode()


@pytest.mark.parametrize(("python", "by"), PYTHONS)
def test_a_cluster_without_hyperpds_client(
    python: str,
    by: str,
    aws: Account,
    runtime: Runtime,
    aggregated: Fleet,
    http: httpx.Client,
    hyperpd: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """examples/sagemaker-sdk: what hyperpd plans is sent as it is. The endpoint is there already."""
    scripts = {"source": f"s3://{BUCKET}/lifecycle_scripts", "on_create": "on_create.sh"}
    file = written(tmp_path, healthy(aws, bucket=None, recipe=RECIPE, groups=GROUPS, lifecycle=scripts))
    aws.stage.client("s3").put_object(Bucket=BUCKET, Key="lifecycle_scripts/on_create.sh", Body=b"#!/bin/sh")
    code, plan, said = hyperpd("cluster", "plan", file, "--json")
    assert code == 0, said
    (tmp_path / "plan.json").write_text(plan)
    monkeypatch.setenv("PLAN_FILE", str(tmp_path / "plan.json"))
    monkeypatch.setenv("ENDPOINT", RECIPE)

    out = run(python, EXAMPLES / "sagemaker-sdk" / {"boto3": "walk_boto3.py", "sdk": "walk.py"}[by])
    text = complete(http, aggregated.url, "Once upon a time", max_tokens=32)["choices"][0]["text"]
    assert f"{text}\n" in out
    (created,) = aws.gate.named("CreateCluster")
    assert [created.request] == [one["parameters"] for one in json.loads(plan)["requests"]]
    assert [one.name for one in aws.control.account.clusters if not one.gone] == []


@pytest.mark.parametrize(("python", "by"), PYTHONS)
def test_an_endpoint_without_hyperpds_client(
    python: str,
    by: str,
    aws: Account,
    runtime: Runtime,
    aggregated: Fleet,
    http: httpx.Client,
    hyperpd: Any,
    tmp_path: Path,
) -> None:
    """examples/sagemaker-endpoint: what is rendered creates an endpoint and asks it once, then the example asks."""
    deploy, ask = {"boto3": ("deploy.py", "ask_boto3.py"), "sdk": ("deploy_sdk.py", "ask_sdk.py")}[by]
    settings = ("role_arn=arn:aws:iam::111122223333:role/hyperpd", f"image={IMAGE}", "instance_type=ml.c7i.4xlarge")
    sets = [word for one in settings for word in ("--set", one)]
    code, _, said = hyperpd("render", RECIPE, "--target", "sagemaker_endpoint", "-o", tmp_path, *sets)
    assert code == 0, said
    run(python, tmp_path / deploy)
    called = [call.operation for call in aws.calls if call.operation.startswith("Create")]
    assert called == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]

    prompt = "Once upon a time there was a river that ran to the sea"
    out = run(python, EXAMPLES / "sagemaker-endpoint" / ask, RECIPE, "tiny-llama", prompt)
    text = complete(http, aggregated.url, prompt, max_tokens=32)["choices"][0]["text"]
    assert out == f"{text}\n{text}\n"
    asked = [call.operation for call in runtime.calls]
    assert asked == ["InvokeEndpoint"] * 2 + ["InvokeEndpointWithResponseStream"]
