"""examples/whole-way, run as it is written, cell after cell.

Real: hyperpd, the gateway, and the engines behind it (prefill and decode on this machine). Played: HyperPod's control
plane (tests/fakes/hyperpod) and the rest of AWS (tests/fakes/aws), with preflight's checks before them; the API server
and its controllers, on the nodes that HyperPod has (tests/fakes/kubernetes); sagemaker-runtime (tests/fakes/runtime).
Both the Service of the gateway and the endpoint lead to the one real gateway: pods are objects here, so that scaling
changes objects and no engine. Time passes where the walk waits, and never by itself.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.cluster.files import written
from tests.cluster.preflight.account import CPU, Account, healthy
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
RECIPE = "tiny-cpu-1p1d"
GROUPS = {name: {"instance_type": CPU, "count": 2} for name in ("prefill", "decode", "gateway")}


class Walk:
    """A file of cells, run one after the other; `names` has what they leave."""

    def __init__(self, path: Path) -> None:
        self.path, self.names = path, {"__name__": "__main__"}
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


class Cloud:
    """An account with a network and an EKS cluster, and what is played of it all. gateway: the real one's URL."""

    def __init__(self, gateway: str, stack: ExitStack) -> None:
        self.aws = stack.enter_context(Account())
        self.store = kubernetes.Store()
        self.controllers = Controllers(self.store)
        self.file = {**healthy(self.aws, role=None, bucket=None), "recipe": RECIPE, "groups": GROUPS}
        in_kubernetes(self.aws, stack.enter_context(kubernetes.serve(self.store)))
        self.store.backends["hyperpd", "gateway"] = gateway
        self.runtime = stack.enter_context(Runtime({RECIPE: gateway}, seed=11))
        self.aws.runtime_url = self.runtime.url

    def pass_time(self, seconds: float) -> None:
        """HyperPod's nodes join Kubernetes, and controllers do a round."""
        running = [node for node in self.aws.control.nodes("pd") if node.status == "Running"]
        for body in nodes.of(cpu_nodes(len(running)), [node.instance_id for node in running]):
            self.store.put(body)
        self.controllers.step()

    def workers(self) -> dict[str, int]:
        """Pods that are ready, by role."""
        pods = [one for one in self.controllers.all("v1", "Pod") if ready(one)]
        return Counter(one["metadata"]["labels"].get("app.kubernetes.io/component", "front") for one in pods)


@pytest.fixture
def cloud(pd: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with ExitStack() as stack:
        cloud = Cloud(pd.url, stack)
        files = {"CLUSTER_FILE": str(written(tmp_path, cloud.file)), "XDG_CACHE_HOME": str(tmp_path)}
        image = {"IMAGE": "123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"}
        for name, value in (cloud.aws.environment | files | image).items():
            monkeypatch.setenv(name, value)
        pause, walks = time.sleep, threading.current_thread()
        monkeypatch.setattr(
            time, "sleep", lambda s: cloud.pass_time(s) if threading.current_thread() is walks else pause(s)
        )
        yield cloud


def served(fleet: Fleet) -> float:
    """Requests that went through prefill and decode."""
    return fleet.metric(fleet.state()["admin_url"], "hyperpd_requests_total", {"mode": "pd", "outcome": "ok"})


def test_the_walk(
    cloud: Cloud, pd: Fleet, aggregated: Fleet, http: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = Walk(ROOT / "examples" / "whole-way" / "walk.py")
    walk.run('"""From a cluster file')
    walk.run("What is given")

    walk.run("Plan")
    said = capsys.readouterr().out
    assert "problems: 0" in said
    assert "$3.00/h" in said
    assert [call.operation for call in cloud.aws.calls if call.operation.startswith(("Create", "Put"))] == []

    walk.run("Create")
    assert cloud.aws.control.cluster("pd").status == "InService"
    assert capsys.readouterr().out.endswith("pd InService  prefill 2/2  decode 2/2  gateway 2/2\n")

    walk.run("Deploy")
    assert cloud.workers() == {"prefill": 1, "decode": 1, "gateway": 2}
    assert capsys.readouterr().out.endswith("the gateway has answered a request\n")

    walk.run("Make it a SageMaker endpoint")
    assert cloud.workers() == {"prefill": 1, "decode": 1, "gateway": 2, "front": 2}
    assert [(call.operation, call.endpoint) for call in cloud.runtime.calls] == [("InvokeEndpoint", RECIPE)]
    assert capsys.readouterr().out.endswith(f"endpoint: {RECIPE}\n")

    text = complete(http, aggregated.url, walk.names["PROMPT"], max_tokens=32)["choices"][0]["text"]
    before = served(pd)
    walk.run("Ask it")
    assert capsys.readouterr().out == f"{text}\n{text}\n"
    assert served(pd) - before == 2
    assert [call.operation for call in cloud.runtime.calls[1:]] == [
        "InvokeEndpoint",
        "InvokeEndpointWithResponseStream",
    ]

    walk.run("Scale")
    assert cloud.workers() == {"prefill": 2, "decode": 2, "gateway": 2, "front": 2}
    said = capsys.readouterr().out
    assert "prefill 2/2 ready\ndecode 2/2 ready\n" in said
    assert said.endswith(f"{text}\n")

    walk.run("Undeploy")
    assert cloud.workers() == {}
    assert [one["metadata"]["name"] for one in cloud.controllers.all("v1", "Namespace")] == ["default"]
    walk.run("Delete")
    assert capsys.readouterr().out.endswith("role hyperpd-pd-us-east-2: removed\n")
    assert [one.name for one in cloud.aws.control.account.clusters if not one.gone] == []
    s3, iam = cloud.aws.stage.client("s3"), cloud.aws.stage.client("iam")
    assert [one["Name"] for one in s3.list_buckets()["Buckets"]] == ["sagemaker-files"]  # which was there before
    assert [one["RoleName"] for one in iam.list_roles()["Roles"]] == ["nodes"]
    assert walk.left == 0
