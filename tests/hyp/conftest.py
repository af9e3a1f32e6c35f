"""Stock hyp in an environment of its own, against stand-ins for S3 (moto), a hub and a Kubernetes API server.

hyp reports each command to AWS and has no switch for that. It does not where the name of the kubectl context has a
Region it does not know: the stand-in's context has one. A proxy that nobody leaves counts what tries all the same.
"""

from __future__ import annotations

import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from hyperpd import deploy, recipe
from hyperpd.deploy.hub_recipe import objects
from tests.fakes import hub, kubernetes

ROOT = Path(__file__).parents[2]
BUCKET = "s3://sagemaker-recipes/hyperpd"
CONTEXT = "stand-in-zz-nowhere-1"  # looks like a Region, and is none
_left_out: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("hyp")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _left_out:
        terminalreporter.write_line(f"NOT RUN: hyp: {why}", red=True)


@dataclass
class Shell:
    """Commands in the stand-in's world; what they print is kept."""

    environment: dict[str, str]
    folder: Path
    hyp: Path
    said: list[str] = field(default_factory=list)

    def run(self, *argv: str, cwd: Path | None = None, expect: int = 0) -> str:
        """Run hyp or hyperpd; its output, both streams. Fails unless it ends with `expect`."""
        command, environment = self._command(*argv)
        ran = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=300,
        )
        output = re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout)
        self.said.append(f"$ {' '.join(argv)}\n{output}")
        assert ran.returncode == expect, self.said[-1]
        return output

    @contextmanager
    def start(self, *argv: str) -> Iterator[IO[str]]:
        """Start a command that does not end by itself; its lines, while the context lasts."""
        command, environment = self._command(*argv)
        with subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            try:
                yield process.stdout
            finally:
                process.terminate()

    def _command(self, *argv: str) -> tuple[list[str], dict[str, str]]:
        if argv[0] == "hyp":
            return [str(self.hyp), *argv[1:]], self.environment
        ours = [sys.executable, "-c", "from hyperpd.cli.main import main; main()", *argv[1:]]
        return ours, self.environment | {"PYTHONPATH": f"{ROOT}/sdk"}

    def transcript(self) -> str:
        """All that was typed and printed, without what differs between two runs: times, places, a library's warning."""
        text = re.sub(r"run/\d{8}T\d{6}", "run/TIMESTAMP", "".join(self.said))
        text = re.sub(r"\S+: RequestsDependencyWarning:.*\n.*\n", "", text)
        return re.sub(rf"(?<={BUCKET}/)([^/]+)/[0-9a-f]{{12}}(?=/)", r"\1/CONTENTS", text)


@pytest.fixture(scope="session")
def hyp_path() -> Path:
    path = (ROOT / os.environ.get("HYP_VENV", ".venv/hyp") / "bin" / "hyp").resolve()
    if not path.is_file():
        why = f"no {path}; make hyp-test makes it"
        if why not in _left_out:
            _left_out.append(why)
        pytest.skip(why)
    return path


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def leaks() -> Iterator[tuple[str, list[bytes]]]:
    """(URL of a proxy that leads nowhere, what asked it)."""
    asked: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


@pytest.fixture
def store() -> kubernetes.Store:
    return kubernetes.Store()


@pytest.fixture
def private_hub() -> hub.Hub:
    return hub.Hub()


@pytest.fixture
def shell(
    hyp_path: Path,
    tmp_path: Path,
    store: kubernetes.Store,
    private_hub: hub.Hub,
    s3_url: str,
    leaks: tuple[str, list[bytes]],
) -> Iterator[Shell]:
    tools = tmp_path / "tools"
    tools.mkdir()
    kubectl = tools / "kubectl"  # hyp asks it for the context's name, and for nothing else
    kubectl.write_text(f"#!/bin/sh\necho {CONTEXT}\n")
    kubectl.chmod(0o755)
    with kubernetes.serve(store) as api, hub.serve(private_hub) as hub_url:
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "KUBECONFIG": str(kubernetes.kubeconfig(tmp_path / "kubeconfig", api, CONTEXT)),
            "AWS_ENDPOINT_URL_S3": s3_url,
            "AWS_ENDPOINT_URL_SAGEMAKER": hub_url,
            "AWS_ACCESS_KEY_ID": "stand-in",
            "AWS_SECRET_ACCESS_KEY": "stand-in",
            "AWS_DEFAULT_REGION": hub.REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HTTP_PROXY": leaks[0],
            "HTTPS_PROXY": leaks[0],
            "NO_PROXY": "127.0.0.1",
        }
        yield Shell(environment, tmp_path, hyp_path)
    assert leaks[1] == [], "something left this machine's stand-ins"


@pytest.fixture
def bucket(s3_url: str) -> None:
    keys = {"aws_access_key_id": "stand-in", "aws_secret_access_key": "stand-in"}
    place = {"LocationConstraint": hub.REGION}
    s3 = boto3.client("s3", endpoint_url=s3_url, region_name=hub.REGION, **keys)
    if not s3.list_buckets()["Buckets"]:
        s3.create_bucket(Bucket=BUCKET.split("/")[2], CreateBucketConfiguration=place)


def published(shell: Shell, name: str, given: Iterable[str], *argv: str) -> str:
    """The ARN that hyperpd hub publish says."""
    settings = [word for one in given for word in ("--set", one)]
    said = shell.run("hyperpd", "hub", "publish", name, "--bucket", BUCKET, "--hub", "team", *settings, *argv)
    return next(line.partition(": ")[2] for line in said.splitlines() if line.startswith("import_hub_content"))


def prepare(store: kubernetes.Store, name: str, given: Iterable[str]) -> list[dict[str, Any]]:
    """What kubectl apply --filename 0-before.yaml makes of a recipe's rendering."""
    options = deploy.options(deploy.target("hub_recipe"), [*given, f"bucket={BUCKET}"])
    before, _ = objects.documents(recipe.load(name), options)
    bodies = [dict(one.body) for one in before if not isinstance(one.body, str)]
    apply(store, bodies)
    return bodies


def apply(store: kubernetes.Store, bodies: Iterable[dict[str, Any]]) -> None:
    """What kubectl apply does."""
    for body in bodies:
        namespace = body["metadata"].get("namespace")
        room = f"/namespaces/{namespace}" if namespace else ""
        store.create(kubernetes.place(f"/api/v1{room}/{body['kind'].lower()}s"), body)
    store.posted.clear()
