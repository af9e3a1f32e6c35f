"""The rendered pods of the recipes for CPUs, run: each container's arguments and environment on a host of its own.

What a cluster adds is played here: pod addresses, the DNS of headless Services, the mounted recipe, an empty
/tmp, the image's own environment, probes over HTTP, SIGTERM and the grace period.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyperpd import deploy
from hyperpd.environment import model_path
from hyperpd.recipe import RecipeFile, load, shipped
from hyperpd_runtime import tiny_model
from tests.netns import hosts, needs_two_hosts
from tests.real.fleet import ROOT, Fleet, installed, own_tmp, until
from tests.real.prompts import complete, differences, prompt

pytestmark = [pytest.mark.real, needs_two_hosts]
IMAGE_ENV = {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache", "XDG_STATE_HOME": "/tmp/state"}  # container/Dockerfile


class Pod:
    """One pod of a Deployment on one host; the kubelet's part is played by this class."""

    def __init__(self, workload: dict[str, Any], address: str, folder: Path, objects: list[dict[str, Any]]) -> None:
        template = workload["spec"]["template"]
        self.namespace = workload["metadata"]["namespace"]
        self.labels = template["metadata"]["labels"]
        self.spec = template["spec"]
        (self.container,) = self.spec["containers"]
        self.address = address
        self.folder = folder
        self._objects = objects
        configured = [one["name"] for one in self.spec["volumes"] if "configMap" in one]
        (self._recipe,) = [one for one in self.container["volumeMounts"] if one["name"] in configured]
        self.recipe_folder = str(self._recipe["mountPath"])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, host: list[str], names: dict[str, list[str]], file: RecipeFile) -> None:
        """Run the container. names: DNS name → addresses."""
        self.host = host
        (self.folder / "tmp").mkdir(parents=True)
        lines = [f"{address} {name}" for name, addresses in names.items() for address in addresses]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        cached = self.folder / "tmp" / "cache" / "hyperpd" / "models" / str(file.recipe.model.generated)
        shutil.copytree(_generated(file), cached)  # the same files that the pod would make, in 10 s of two cores
        mounts = {str(self.folder / "hosts"): "/etc/hosts", str(self._config_map()): self.recipe_folder}
        script = "".join(f"mount --bind {source} {target}; " for source, target in mounts.items())
        script += own_tmp(self.folder / "tmp")  # last: the others come from there
        argv = ["unshare", "--mount", "sh", "-ec", f'{script}exec "$@"', "pod"]
        entry = [str(ROOT / "container" / "entrypoint.sh"), *self.container.get("args", [])]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*host, *argv, *entry], env={**installed(), **IMAGE_ENV, **self._environment()}, stdout=log, stderr=log
            )

    def _environment(self) -> dict[str, str]:
        fields = {"status.podIP": self.address, "status.hostIP": self.address}
        return {
            entry["name"]: entry["value"] if "value" in entry else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            for entry in self.container["env"]
        }

    def _config_map(self) -> Path:
        """The mounted recipe: of the ConfigMap that the pod's volume names, in the pod's namespace."""
        (volume,) = [v for v in self.spec["volumes"] if v["name"] == self._recipe["name"]]
        (found,) = [
            one["data"]
            for one in self._objects
            if one["kind"] == "ConfigMap"
            and (one["metadata"]["namespace"], one["metadata"]["name"]) == (self.namespace, volume["configMap"]["name"])
        ]
        folder = self.folder / "recipe"
        folder.mkdir()
        for name, text in found.items():
            (folder / name).write_text(text)
        return folder

    def probe(self, kind: str) -> bool:
        """Whether a probe succeeds."""
        assert self._process
        assert self._process.poll() is None, self.log()
        get = self.container[kind]["httpGet"]
        ports = {one["name"]: one["containerPort"] for one in self.container["ports"]}
        port = ports.get(get["port"], get["port"])
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://{self.address}:{port}{get['path']}", timeout=5).status_code == 200
        return False

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self) -> int:
        """SIGTERM; killed when the grace period is over."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(self.spec["terminationGracePeriodSeconds"])
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _generated(file: RecipeFile) -> Path:
    folder = Path(model_path(file.recipe))
    if not (folder / "config.json").is_file():
        tiny_model.generate(folder.name, folder)
    return folder


def names(objects: list[dict[str, Any]], pods: list[Pod]) -> dict[str, list[str]]:
    """What the cluster's DNS says: every headless Service's name and its pods' addresses."""
    return {
        f"{one['metadata']['name']}.{one['metadata']['namespace']}.svc.cluster.local": [
            pod.address
            for pod in pods
            if pod.namespace == one["metadata"]["namespace"] and one["spec"]["selector"].items() <= pod.labels.items()
        ]
        for one in objects
        if one["kind"] == "Service" and one["spec"].get("clusterIP") == "None"
    }


@contextlib.contextmanager
def mount_point(folder: Path) -> Iterator[None]:
    """What a mount needs to be there; what was not is removed again."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for one in missing:
            one.rmdir()


@contextlib.contextmanager
def cluster(
    recipe: str, folder: Path, change: Callable[[list[dict[str, Any]]], None] = lambda objects: None
) -> Iterator[list[Pod]]:
    """Every pod that the rendered Deployments ask for, ready. change: what else is applied, or taken away."""
    file = load(recipe)
    objects: list[Any] = [one.body for one in deploy.render(file, "kubernetes", ["image=r.example/h:1"]).documents]
    change(objects)
    workloads = [one for one in objects if one["kind"] == "Deployment" for _ in range(one["spec"]["replicas"])]
    pods = [
        Pod(workload, f"10.77.0.{number}", folder / f"pod{number}", objects)
        for number, workload in enumerate(workloads, 1)
    ]
    with contextlib.ExitStack() as made, hosts(len(pods)) as machines:
        for mounted in {pod.recipe_folder for pod in pods}:
            made.enter_context(mount_point(Path(mounted)))
        for pod, host in zip(pods, machines, strict=True):
            pod.start(host, names(objects, pods), file)
        try:
            for kind in ("startupProbe", "readinessProbe"):
                for pod in pods:
                    until(lambda pod=pod, kind=kind: pod.probe(kind), file.recipe.start_timeout_s)
            yield pods
        finally:
            # All at once, as when a namespace goes.
            codes: dict[str, int] = {}
            threads = [threading.Thread(target=lambda pod=pod: codes.update({pod.address: pod.stop()})) for pod in pods]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert codes == {pod.address: 0 for pod in pods}, [pod.log()[-2000:] for pod in pods]


CPU = [name for name in shipped() if load(name).recipe.accelerator == "cpu"]


@pytest.mark.parametrize(
    "recipe", [pytest.param(n, marks=() if n == "tiny-cpu-1p1d" else pytest.mark.nightly) for n in CPU]
)
def test_rendered_pods_answer(recipe: str, tmp_path: Path, aggregated: Fleet, http: httpx.Client) -> None:
    began = time.monotonic()
    file = load(recipe)
    model = file.recipe.model.name
    with cluster(recipe, tmp_path) as pods:
        print(f"\n{recipe}: {len(pods)} pods ready after {time.monotonic() - began:.0f} s")
        gateways = [pod for pod in pods if pod.container["name"] == "gateway"]
        assert len(gateways) == file.recipe.gateway.replicas
        for seed, gateway in enumerate(gateways):
            text = prompt(700, seed)
            first = complete(http, f"http://{gateway.address}:8080", text, model=model, logprobs=5)
            again = f"http://{gateways[0].address}:8080" if model != "tiny-llama" else aggregated.url
            assert differences(first, complete(http, again, text, model=model, logprobs=5)) == []
            metrics = http.get(f"http://{gateway.address}:8081/metrics").text
            mode = "aggregated" if file.recipe.aggregated else "pd"
            assert f'hyperpd_requests_total{{mode="{mode}",outcome="ok",why="plain"}}' in metrics
            assert 'mode="recomputed"' not in metrics
        until(lambda: all(pod.probe("livenessProbe") for pod in pods))
