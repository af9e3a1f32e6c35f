"""The image that a stack builds: what it is built from, and the build's commands, run as CodeBuild runs them.

docker and aws are stand-ins here that note how they are called; tests/image/test_console_build.py builds for real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpd.deploy.console import image
from hyperpd.errors import RecipeError
from tests.deploy.console_stacks import GIVEN, IMAGE, PINNED, Stack, rendered, templates, texts

ROOT = Path(__file__).parents[2]
EFA, LOCAL = "qwen3-32b-p5-4p2d", "gpt-oss-120b-p6-b200-4p1d"
REGISTRY = IMAGE.partition("/")[0]
AWS = """#!/bin/sh
echo "aws $*" >> "$CALLS"
case "$*" in
    "s3 cp --no-progress "*) cp "$UPLOADED" "$5" ;;
    "ecr get-login-password") echo password ;;
    *) exit 2 ;;
esac
"""
DOCKER = """#!/bin/sh
echo "docker $*" >> "$CALLS"
case "$1" in
    login) [ "$(cat)" = password ] ;;
    build) exit "${BUILD_ENDS:-0}" ;;
esac
"""


def project(name: str, **parameters: str) -> dict[str, Any]:
    """Properties of the CodeBuild project of a recipe."""
    made = Stack(templates(name, "eks")["0-image.yaml"], GIVEN | parameters).resources()
    properties: dict[str, Any] = made["Build"]["Properties"]
    return properties


def commands(of: dict[str, Any]) -> list[str]:
    """What the build runs, in order; CodeBuild stops at the first that fails."""
    spec = yaml.safe_load(of["Source"]["BuildSpec"])
    assert (spec["version"], list(spec["phases"])) == (0.2, ["build"])
    listed: list[str] = spec["phases"]["build"]["commands"]
    return listed


def environment(of: dict[str, Any]) -> dict[str, str]:
    """Its variables."""
    return {one["Name"]: one["Value"] for one in of["Environment"]["EnvironmentVariables"]}


def _build(folder: Path, of: dict[str, Any], **more: str) -> tuple[int, str, list[str]]:
    """Exit code, output, and calls of aws and docker."""
    (folder / "bin").mkdir()
    for name, text in (("aws", AWS), ("docker", DOCKER)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    (folder / "uploaded").write_text(texts(EFA, "eks")["upload/hyperpd/image-source.json"])
    calls = folder / "calls"
    variables = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "CALLS": str(calls),
        "UPLOADED": str(folder / "uploaded"),
    }
    (folder / "work").mkdir()
    output = ""
    for command in commands(of):
        ran = subprocess.run(
            ["sh", "-c", command],
            cwd=folder / "work",
            env=variables | environment(of) | more,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output += ran.stdout
        if ran.returncode:
            break
    return ran.returncode, output, calls.read_text().splitlines() if calls.exists() else []


def test_the_source_is_all_that_the_dockerfile_copies():
    files = json.loads(image.source())
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", files["container/Dockerfile"], re.MULTILINE)
    copied += re.findall(r"--mount=type=bind,source=(\S+?),", files["container/Dockerfile"])
    for name in " ".join(copied).split():
        assert [file for file in files if file == name or file.startswith(f"{name}/")], name
    for name in image.CONTEXT:
        assert [file for file in files if file == name or file.startswith(f"{name}/")], name
    assert all((ROOT / file).read_bytes().decode() == text for file, text in files.items())
    assert not [file for file in files if "__pycache__" in file or file.endswith(".pyc") or "/." in file]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small one, packed anew."""
    monkeypatch.setattr(image, "checkout", lambda: tmp_path)
    monkeypatch.setattr(image, "CONTEXT", ("sdk",))
    image.source.cache_clear()
    (tmp_path / "sdk").mkdir()
    (tmp_path / "sdk" / "a.py").write_text("a = 1\n")
    yield tmp_path
    image.source.cache_clear()


def test_what_is_not_ours_is_not_packed(checkout):
    for name in ("core.dump", "a.so", "a.pyc", ".env"):
        (checkout / "sdk" / name).write_bytes(b"\xff")
    assert json.loads(image.source()) == {"sdk/a.py": "a = 1\n"}


def test_a_file_that_is_no_text_is_named(checkout):
    (checkout / "sdk" / "b.py").write_bytes(b"\xff")
    with pytest.raises(RecipeError, match=r"(?s)b\.py.*is no text"):
        image.source()


def test_the_commands_build_and_push_what_was_rendered(tmp_path):
    of = project(EFA)
    code, output, calls = _build(tmp_path, of)
    assert code == 0, output
    calls.remove("aws ecr get-login-password")  # beside the one that it is piped to
    assert calls == [
        "aws s3 cp --no-progress s3://sagemaker-example-files/hyperpd/image-source.json source.json",
        f"docker login --username AWS --password-stdin {REGISTRY}",
        "docker build --file container/Dockerfile --build-arg ENGINE=gpu"
        f" --build-arg EFA_SHA256={GIVEN['EfaSha256']} --tag {IMAGE} .",
        f"docker push {IMAGE}",
        f"docker inspect --format {{{{index .RepoDigests 0}}}} {IMAGE}",
    ]
    for file, text in json.loads(image.source()).items():
        assert (tmp_path / "work" / file).read_text() == text
    assert os.access(tmp_path / "work" / "container" / "entrypoint.sh", os.X_OK)
    assert "FROM engine-${ENGINE}" in (tmp_path / "work" / "container" / "Dockerfile").read_text()


def test_an_image_without_efa_is_for_recipes_without_it(tmp_path):
    declared = {name: templates(name, "eks")["0-image.yaml"]["Parameters"]["EfaSha256"] for name in (EFA, LOCAL)}
    assert "Default" not in declared[EFA]
    assert not re.search(declared[EFA]["AllowedPattern"], "")
    assert declared[LOCAL]["Default"] == ""
    assert re.search(declared[LOCAL]["AllowedPattern"], "")
    _, _, calls = _build(tmp_path, project(LOCAL, EfaSha256=""))
    assert [one for one in calls if "--build-arg EFA=none --tag" in one]


def test_a_checksum_that_is_given_is_filled_in():
    made = rendered(EFA, "eks", f"efa_sha256={'1' * 64}").documents
    (stack,) = [one.body for one in made if one.file.endswith("0-image.yaml")]
    assert not isinstance(stack, str)
    assert stack["Parameters"]["EfaSha256"]["Default"] == "1" * 64
    assert f"param_EfaSha256={'1' * 64}" in str(next(one.body for one in made if one.file == "console.md"))


def test_another_file_than_the_rendered_one_is_not_built(tmp_path):
    of = project(EFA)
    digest = {"SOURCE_SHA256": "0" * 64}
    code, output, calls = _build(tmp_path, of, **digest)
    assert code != 0
    assert "source.json: FAILED" in output
    assert not [one for one in calls if one.startswith("docker")]


def test_an_image_of_another_account_is_not_begun(tmp_path):
    code, output, calls = _build(tmp_path, project(EFA), REGISTRY=REGISTRY.replace("1234", "9999"))
    assert code != 0
    assert f"error: {IMAGE} is not of this account" in output
    assert not calls


def test_what_fails_to_build_is_not_pushed(tmp_path):
    code, _, calls = _build(tmp_path, project(EFA), BUILD_ENDS="1")
    assert code == 1
    assert [one.split()[1] for one in calls if one.startswith("docker")] == ["login", "build"]


def test_the_repository_is_the_images_and_a_tag_is_written_once():
    made = Stack(templates(EFA, "eks")["0-image.yaml"], GIVEN).resources()
    repository = made["Repository"]["Properties"]
    assert f"{REGISTRY}/{repository['RepositoryName']}" == IMAGE.rpartition(":")[0]
    assert repository["ImageTagMutability"] == "IMMUTABLE"
    assert environment(project(EFA))["IMAGE"] == IMAGE


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((f"image={PINNED}",), f"Nothing to click: `{PINNED}` is named by its digest"),
        ((f"image={IMAGE.removesuffix(':0.1.0')}",), "has to be in ECR. Named by a tag, as in"),
        (("orchestrator=slurm",), "Nothing to click: no stack here runs it."),
    ],
)
def test_an_image_that_is_not_built_here_has_no_stack(settings, said):
    made = rendered(EFA, "eks", *settings).documents
    assert not [one for one in made if "image" in one.file]
    assert said in str(next(one.body for one in made if one.file == "console.md"))


def test_without_a_checkout_there_is_no_stack(monkeypatch):
    monkeypatch.setattr(image, "checkout", lambda: None)
    rendered.cache_clear()
    try:
        made = rendered(EFA, "eks").documents
    finally:
        rendered.cache_clear()
    assert not [one for one in made if "image" in one.file]
    assert "has to be in ECR. Rendered from a checkout" in str(
        next(one.body for one in made if one.file == "console.md")
    )
