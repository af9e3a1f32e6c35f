"""A rendered endpoint's container, run as SageMaker runs it: `docker run IMAGE serve`, with real engines inside.

What SageMaker adds is played here: the word serve, process 1 of a container, SAGEMAKER_BIND_TO_PORT, the model's
files in a read-only /opt/ml/model, calls from outside the container, SIGTERM and 30 s. Not as there: the user (root
here, 10001 in the image), the image itself (tests/image builds and runs one), the network proxy in between, and
an instance that limits what a container gets.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hyperpd import deploy
from hyperpd.deploy.sagemaker_endpoint.refusals import KILLED_AFTER_S
from hyperpd.environment import model_path
from hyperpd.recipe import RecipeFile, load
from hyperpd_runtime import tiny_model
from tests.netns import ADDRESSES, hosts, needs_two_hosts
from tests.real.fleet import ROOT, installed, own_tmp, until
from tests.real.prompts import prompt

pytestmark = [pytest.mark.real, needs_two_hosts]
MODEL = Path("/opt/ml/model")
# container/Dockerfile's, and what SageMaker adds.
IMAGE_ENV = {"HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache", "XDG_STATE_HOME": "/tmp/state"}
SAGEMAKER_ENV = {"SAGEMAKER_BIND_TO_PORT": "8080", "AWS_REGION": "us-east-2"}
SETTINGS = [
    "role_arn=arn:aws:iam::123456789012:role/hyperpd",
    "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0",
    "instance_type=ml.c7i.4xlarge",
]
OWN = """version: 1
name: own.tiny
accelerator: cpu
model: {huggingface: example/tiny, max_len_tokens: 2048, dtype: float32}
prefill: {engine: &engine {enforce-eager: true, kv-cache-memory-bytes: 134217728, max-num-seqs: 32}}
decode: {engine: *engine}
gateway: {decider: always}
"""


class Container:
    """The rendered container; SageMaker's part is played by this class."""

    def __init__(self, file: RecipeFile, folder: Path, *settings: str) -> None:
        documents = deploy.render(file, "sagemaker_endpoint", [*SETTINGS, *settings]).documents
        bodies: dict[str, Any] = {one.file: one.body for one in documents}
        self.container = bodies["2-model.json"]["PrimaryContainer"]
        (self.variant,) = bodies["3-endpoint-config.json"]["ProductionVariants"]
        self.folder = folder
        self.url = f"http://{ADDRESSES[0]}:{SAGEMAKER_ENV['SAGEMAKER_BIND_TO_PORT']}"
        self._process: subprocess.Popen[bytes] | None = None
        self._files(bodies)

    def _files(self, bodies: dict[str, Any]) -> None:
        """What SageMaker downloads: the model's files and, as deploy.py puts it there, the recipe."""
        (self.folder / "tmp").mkdir(parents=True)
        model = self.folder / "model"
        generated = Path(model_path(load("tiny-cpu-1p1d").recipe))
        if not (generated / "config.json").is_file():
            tiny_model.generate(generated.name, generated)
        if "ModelDataSource" in self.container:
            shutil.copytree(generated, model)
            (model / Path(self.container["Environment"]["HYPERPD_RECIPE"]).name).write_text(bodies["recipe.yaml"])
        else:
            model.mkdir()
            # The same files that the container would make, in 10 s of two cores.
            shutil.copytree(generated, self.folder / "tmp" / "cache" / "hyperpd" / "models" / generated.name)

    def start(self, host: list[str]) -> None:
        """docker run IMAGE serve."""
        mounts = (
            f"mount --bind {self.folder / 'model'} {MODEL}; mount -o remount,ro,bind {MODEL}; "
            f"{own_tmp(self.folder / 'tmp')}cd /tmp; "  # last: the others come from there
        )
        # A process namespace: process 1 has no default action for SIGTERM, and its end is everybody's.
        unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        argv = [*host, *unshare, "sh", "-ec", f'{mounts}exec "$@"', "container"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*argv, str(ROOT / "container" / "entrypoint.sh"), "serve"],
                env={**installed(), **IMAGE_ENV, **SAGEMAKER_ENV, **self.container["Environment"]},
                stdout=log,
                stderr=log,
            )

    def ping(self) -> int:
        """The status of GET /ping; 0 where nobody answers."""
        assert self._process
        assert self._process.poll() is None, self.log()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/ping", timeout=10).status_code
        return 0

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def terminate(self) -> None:
        """SIGTERM for process 1."""
        assert self._process
        if self._process.poll() is None:
            (first,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)

    def ended(self) -> int:
        """The exit code; killed when SageMaker would."""
        assert self._process
        try:
            return self._process.wait(KILLED_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and with it, by --kill-child, the container
            return self._process.wait()


@contextlib.contextmanager
def serving(container: Container) -> Iterator[Container]:
    """The container, from the first 200 of /ping on."""
    above = [folder for folder in (MODEL, *MODEL.parents) if not folder.exists()]
    MODEL.mkdir(parents=True, exist_ok=True)  # what a mount needs; removed again
    try:
        with hosts(1) as (host,):
            container.start(host)
            try:
                told: set[int] = set()
                within_s = container.variant["ContainerStartupHealthCheckTimeoutInSeconds"]
                until(lambda: told.add(status := container.ping()) or status == 200, within_s)
                assert told - {0} == {503, 200}  # it says from the first that it is not ready
                yield container
            finally:
                container.terminate()
                container.ended()
    finally:
        for folder in above:
            folder.rmdir()


@pytest.fixture(params=[pytest.param("shipped", marks=pytest.mark.nightly), "own"])
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Container]:
    """Of a shipped recipe with a generated model, and of one of its own with the model's files from S3."""
    if request.param == "shipped":
        made = Container(load("tiny-cpu-1p1d"), tmp_path / "container")
    else:
        (tmp_path / "own.yaml").write_text(OWN)
        made = Container(load(tmp_path / "own.yaml"), tmp_path / "container", "model_data=s3://models-example/tiny")
    with serving(made) as ready:
        yield ready


def events(lines: Iterator[str]) -> Iterator[Any]:
    """What a stream says, to its end."""
    for line in lines:
        if line.startswith("data: "):
            yield line.removeprefix("data: ") if line == "data: [DONE]" else json.loads(line.removeprefix("data: "))


def test_the_container_serves_and_ends_as_sagemaker_wants(container: Container, http: httpx.Client) -> None:
    told = container.container["Environment"]
    name = told.get("HYPERPD_SERVED_AS", "tiny-llama")
    assert ("ModelDataSource" in container.container) == (name == "example/tiny")
    body = {"model": name, "prompt": prompt(700, 1), "max_tokens": 16, "temperature": 0}
    whole = http.post(f"{container.url}/invocations", json=body)
    assert whole.status_code == 200, whole.text
    text = whole.json()["choices"][0]["text"]
    assert " mode=pd " in container.log()

    with http.stream("POST", f"{container.url}/invocations", json={**body, "stream": True}) as streamed:
        parts = list(events(streamed.iter_lines()))
    assert parts[-1] == "[DONE]"
    assert "".join(part["choices"][0]["text"] for part in parts[:-1] if part["choices"]) == text

    route = {"X-Amzn-SageMaker-Custom-Attributes": "route=/v1/chat/completions"}
    refused = http.post(f"{container.url}/invocations", json=body, headers=route)
    assert refused.status_code == 400, refused.text

    # Nothing but the API is to be had from outside, whatever is asked there.
    for port in (8081, 8100, 8101, 8300, 8301):
        with pytest.raises(httpx.ConnectError):
            http.get(f"http://{ADDRESSES[0]}:{port}/")

    long = {**body, "max_tokens": 500, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", f"{container.url}/invocations", json=long) as streamed:
        stream = events(streamed.iter_lines())
        next(stream)
        container.terminate()
        until(lambda: "event=draining" in container.log() or container.ping() == 503)
        rest = list(stream)
    assert rest[-1] == "[DONE]"
    assert rest[-2]["usage"]["completion_tokens"] == 500
    assert container.ended() == 0, container.log()[-3000:]


def test_a_container_without_its_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    made = Container(load(tmp_path / "own.yaml"), tmp_path / "container", "model_data=s3://models-example/tiny")
    (made.folder / "model" / "config.json").unlink()
    with pytest.raises(AssertionError, match=r"model path /opt/ml/model: no config\.json there"), serving(made):
        pass
    assert made.ended() == 4
