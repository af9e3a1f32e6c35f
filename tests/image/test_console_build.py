"""What the console's stack has CodeBuild do, done: its commands, from the rendered file to a gateway that answers.

The image is built with the Dockerfile's stage for GPUs, without EFA, on a base with the CPU engine, as in test_builds.
docker is buildah here, its registry a folder; aws copies the rendered file. Unverified: CodeBuild, ECR, the CUDA base.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.deploy.console_stacks import IMAGE, texts
from tests.deploy.test_console_image import LOCAL, commands, environment, project
from tests.image.tools import ENGINE, Container, Tools

pytestmark = pytest.mark.image

DOCKER = """#!/bin/sh
set -eu
case "$1" in
    login) [ "$(cat)" = password ] ;;
    build) shift; exec buildah bud --isolation chroot {options} "$@" ;;
    push) exec buildah push --quiet "$2" "oci:{folder}/registry:pushed" ;;
    inspect) exec buildah inspect --type image --format '{{{{.FromImageDigest}}}}' "$4" ;;
esac
"""
AWS = """#!/bin/sh
case "$1" in s3) cp {uploaded} "$5" ;; ecr) echo password ;; *) exit 2 ;; esac
"""


@pytest.fixture(scope="module")
def built(tools: Tools, base: str) -> str:
    """The image that the commands built and pushed."""
    folder = tools.folder / "codebuild"
    (folder / "bin").mkdir(parents=True)
    (folder / "work").mkdir()
    dockerfile = folder / "Dockerfile.base"
    dockerfile.write_text(f"FROM {base}\nENV PYTHONPATH=/engine\n")
    code, output = tools.build(base, dockerfile=dockerfile, tag="localhost/engine-of-codebuild")
    assert code == 0, output
    (folder / "uploaded").write_text(texts(LOCAL, "eks")["upload/hyperpd/image-source.json"])
    options = [
        *("--build-arg", "BASE=localhost/engine-of-codebuild", "--volume", f"{ENGINE}:/engine:O"),
        *(
            "--volume",
            f"{tools.folder}/wheelhouse:/wheelhouse:ro",
            "--volume",
            f"{tools.folder}/pip.conf:/etc/pip.conf:ro",
        ),
    ]
    _program(folder / "bin" / "docker", DOCKER.format(options=shlex.join(options), folder=folder))
    _program(folder / "bin" / "aws", AWS.format(uploaded=folder / "uploaded"))
    of = project(LOCAL, EfaSha256="")
    variables = [f"{name}={value}" for name, value in environment(of).items()]
    path = f"PATH={folder}/bin:{os.environ['PATH']}"
    for command in commands(of):
        code, output = tools.run("env", "--chdir", str(folder / "work"), path, *variables, "sh", "-c", command)
        assert code == 0, f"{command}\n{output}"
    return IMAGE


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_what_was_pushed_is_what_was_built(tools: Tools, built: str) -> None:
    assert (tools.folder / "codebuild" / "registry" / "index.json").is_file()
    labels = tools.inspect(built)["Config"]["Labels"]
    assert labels["hyperpd.efa"] == "none"
    assert labels["hyperpd.vllm"] == "0.32.0"


def test_it_starts(tools: Tools, built: str) -> None:
    """Its entrypoint may be executed, though the uploaded file has no modes; and the package is the rendered one."""
    nowhere = ("--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2")
    gateway = Container(
        *(tools, built, "of-codebuild", "serve", "--role", "gateway", "--recipe", "tiny-cpu-1p1d"),
        *("--port-offset", "7400", *nowhere),
    )
    try:
        assert "prefill-0" in gateway.answer("http://127.0.0.1:15480/ping", 503).json()["reason"]
    finally:
        assert gateway.stop() == 0
