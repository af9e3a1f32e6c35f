"""hyperpd image: real buildah, skopeo and a real registry on this machine; a stand-in for S3.

What cannot be here (a docker daemon, CodeBuild) is tested by the commands and files that come out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from moto.server import ThreadedMotoServer

from hyperpd.errors import CloudError, NotReady, RecipeError
from hyperpd.image import build, mirror, tools
from hyperpd.recipe import load

DIGEST = "sha256:" + "1" * 64
# Written again here, so that a host which the code forgets is still found.
PUBLIC = r"huggingface\.co|hf\.co|docker\.io|ghcr\.io|nvcr\.io|quay\.io|public\.ecr\.aws|efa-installer\.amazonaws\.com"
RECIPE = """
version: 1
name: closed
accelerator: cpu
image: ghcr.io/org/hyperpd:1.0
model: {huggingface: org/model, revision: abc, dtype: float32}
prefill: {engine: {max-num-seqs: 8}}
decode: {}
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's files, one of them a link and one hidden."""
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "sub" / "weights.safetensors").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "blob").write_text("vocabulary")
    (model / "tokenizer.json").symlink_to(tmp_path / "blob")
    (model / ".cache").mkdir()
    (model / ".cache" / "lock").write_text("")
    return model


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a Dockerfile that takes the same arguments and needs no base."""
    root = tmp_path / "checkout"
    (root / "container").mkdir(parents=True)
    (root / "sdk" / "hyperpd").mkdir(parents=True)
    lines = ("ARG BASE", "FROM scratch", "ARG ENGINE", "LABEL engine=${ENGINE}", "COPY sdk /sdk")
    (root / "container" / "Dockerfile").write_text("\n".join(lines) + "\n")
    (root / "sdk" / "hyperpd" / "here").write_text("yes")
    return root


@pytest.fixture
def hyperpd(tmp_path: Path) -> Run:
    """The command line in a folder of its own."""

    def run(*argv: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from hyperpd.cli.main import main; main()", *argv]
        environment = os.environ | (env or {})
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)

    return run


@pytest.fixture
def no_tools(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "empty").mkdir()
    return {"PATH": str(tmp_path / "empty")}


def program(folder: Path, name: str, body: str) -> dict[str, str]:
    """A program that notes its arguments in `folder`/NAME.log; the environment in which it is the only one."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "$*" >> {folder}/{name}.log\n{body}\n')
    path.chmod(0o755)
    for needed in ("env", "cat", "tail"):
        if not (folder / needed).exists():
            (folder / needed).symlink_to(str(shutil.which(needed)))
    return {"PATH": str(folder)}


# --- a real registry


class Registry:
    """docker-registry on a port of this machine, and tools that trust it, with storage of their own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        config = folder / "registry.yaml"
        storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
        config.write_text(yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": self.host}}))
        (folder / "home" / ".config" / "containers").mkdir(parents=True)
        (folder / "home" / ".config" / "containers" / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{self.host}"\ninsecure = true\n'
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/s"\nrunroot = "{folder}/r"\n'
        )
        self.env = {
            "HOME": str(folder / "home"),
            "XDG_CONFIG_HOME": str(folder / "home" / ".config"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        self._log = (folder / "registry.log").open("w")
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=self._log, stderr=subprocess.STDOUT
        )

    def ready(self) -> Registry:
        for _ in range(300):
            assert self.process.poll() is None, Path(self._log.name).read_text()
            try:
                httpx.get(f"http://{self.host}/v2/").raise_for_status()
                return self
            except httpx.TransportError:
                threading.Event().wait(0.1)
        raise AssertionError("the registry does not answer")

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest under `name`, which is REPOSITORY@DIGEST or REPOSITORY:TAG without host."""
        repository, _, which = name.rpartition("@") if "@" in name else name.rpartition(":")
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        answer = httpx.get(f"http://{self.host}/v2/{repository}/manifests/{which}", headers=accept)
        answer.raise_for_status()
        return {"digest": answer.headers["Docker-Content-Digest"], **answer.json()}

    def blob(self, repository: str, digest: str) -> Any:
        return httpx.get(f"http://{self.host}/v2/{repository}/blobs/{digest}").raise_for_status().json()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._log.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if missing := [name for name in ("buildah", "skopeo", "docker-registry") if not shutil.which(name)]:
        pytest.skip(f"NOT RUN: registry: {', '.join(missing)} missing")
    if os.geteuid():
        pytest.skip("NOT RUN: registry: root is needed for buildah")
    one = Registry(tmp_path)
    try:
        yield one.ready()
    finally:
        one.stop()


@pytest.fixture
def s3() -> Iterator[dict[str, str]]:
    """The environment in which boto3 speaks to a stand-in that has the bucket `weights`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        httpx.post(f"{env['AWS_ENDPOINT_URL']}/moto-api/reset").raise_for_status()  # its state is the process's
        client(env).create_bucket(Bucket="weights")
        yield env
    finally:
        server.stop()


def client(env: Mapping[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


def test_build_push_and_mirror(
    registry: Registry, s3: dict[str, str], hyperpd: Run, checkout: Path, recipe: Path, folder: Path, tmp_path: Path
) -> None:
    env = registry.env | s3
    built = hyperpd("image", "build", "--engine", "none", "--tool", "buildah", "--context", str(checkout), env=env)
    assert built.returncode == 0, built.stderr
    tag = built.stdout.strip()
    pushed = hyperpd("image", "push", tag, f"{registry.host}/first/hyperpd:1.0", "--tool", "buildah", env=env)
    assert pushed.returncode == 0, pushed.stderr
    name = pushed.stdout.strip()
    manifest = registry.manifest("first/hyperpd:1.0")
    assert name == f"{registry.host}/first/hyperpd@{manifest['digest']}"
    assert registry.blob("first/hyperpd", manifest["config"]["digest"])["config"]["Labels"]["engine"] == "none"

    recipe.write_text(RECIPE.replace("ghcr.io/org/hyperpd:1.0", name))
    argv = ("image", "mirror", str(recipe), "--registry", f"{registry.host}/closed", "-o", "out.yaml")
    model = ("--model-folder", str(folder), "--bucket", "s3://weights/models")
    mirrored = hyperpd(*argv, *model, env=env)
    assert mirrored.returncode == 0, mirrored.stderr
    out = load(tmp_path / "out.yaml")
    assert out.recipe.image == f"{registry.host}/closed/hyperpd@{manifest['digest']}"
    assert registry.manifest(f"closed/hyperpd@{manifest['digest']}")["layers"] == manifest["layers"]
    assert (out.recipe.model.path, out.recipe.model.name) == ("/models/model", "org/model")
    stored = client(s3).list_objects_v2(Bucket="weights")["Contents"]
    assert [one["Key"].removeprefix("models/org/model/") for one in stored] == [
        "config.json",
        "sub/weights.safetensors",
        "tokenizer.json",
    ]

    client(s3).delete_object(Bucket="weights", Key="models/org/model/tokenizer.json")
    again = hyperpd(*argv, *model, "--json", env=env)
    document = json.loads(again.stdout)
    assert (document["uploaded"], document["skipped"], document["image"]) == (1, 2, out.recipe.image)


def test_mirror_without_skopeo(registry: Registry, hyperpd: Run, checkout: Path, tmp_path: Path) -> None:
    hyperpd("image", "build", "--engine", "none", "--tool", "buildah", "--context", str(checkout), env=registry.env)
    tag = build.default_tag("none")
    hyperpd("image", "push", tag, f"{registry.host}/first", "--tool", "buildah", env=registry.env)
    environment = registry.env | program(tmp_path / "bin", "docker", "exit 1")
    (tmp_path / "bin" / "buildah").symlink_to(str(shutil.which("buildah")))
    source = f"{registry.host}/first:{tag.rpartition(':')[2]}"
    argv = ("image", "mirror", "tiny-cpu-1p1d", "--image", source, "--registry", f"{registry.host}/b", "-o", "out.yaml")
    mirrored = hyperpd(*argv, env=environment)
    assert mirrored.returncode == 0, mirrored.stderr
    pinned = load(tmp_path / "out.yaml").recipe.image
    assert registry.manifest(str(pinned).partition("/")[2])["digest"] == str(pinned).partition("@")[2]


def test_a_refusing_registry_is_an_error(registry: Registry, hyperpd: Run, tmp_path: Path) -> None:
    argv = ("image", "mirror", "tiny-cpu-1p1d", "--image", f"{registry.host}/nosuch:1", "--registry", registry.host)
    mirrored = hyperpd(*argv, "-o", "out.yaml", env=registry.env)
    assert (mirrored.returncode, "skopeo copy" in mirrored.stderr, "manifest unknown" in mirrored.stderr) == (
        4,
        True,
        True,
    )
    assert not (tmp_path / "out.yaml").exists()


# --- S3


def upload(folder: Path, s3: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[mirror.Uploaded, list[str]]:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    lines: list[str] = []
    return mirror.upload(folder, "s3://weights/p", lines.append), lines


def test_what_is_there_is_compared_by_size_and_checksum(
    folder: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, lines = upload(folder, s3, monkeypatch)
    assert (done.files, done.skipped) == (3, 0)
    assert lines[1] == "sub/weights.safetensors: uploaded (16,384 bytes)"
    (folder / "config.json").write_text("[]")  # the same size
    client(s3).put_object(Bucket="weights", Key="p/sub/weights.safetensors", Body=b"half", Metadata={"sha256": "no"})
    done, lines = upload(folder, s3, monkeypatch)
    assert (done.files, done.skipped, done.sent_bytes) == (2, 1, 2 + 16384)
    assert lines[2] == "tokenizer.json: there already (10 bytes)"
    assert client(s3).get_object(Bucket="weights", Key="p/config.json")["Body"].read() == b"[]"


def test_a_large_file_reports_its_progress(folder: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_REPORT_BYTES", 10 * 2**20)
    (folder / "weights").write_bytes(bytes(40 * 2**20))  # in parts
    _, lines = upload(folder, s3, monkeypatch)
    shown = [int(line.split()[1]) for line in lines if line.endswith("%")]
    assert len(shown) >= 3
    assert shown == sorted(set(shown))
    assert client(s3).head_object(Bucket="weights", Key="p/weights")["ContentLength"] == 40 * 2**20


def test_a_refusal_of_s3_is_an_error(folder: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    client(s3).delete_bucket(Bucket="weights")
    with pytest.raises(CloudError, match=r"s3://weights/p: .*NoSuchBucket"):
        upload(folder, s3, monkeypatch)


def test_without_boto3_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(NotReady, match=r"pip install 'hyperpd\[aws\]'"):
        mirror.upload(folder, "s3://weights/p", print)


def test_boto3_is_imported_only_to_upload() -> None:
    code = "import sys, hyperpd.image.mirror; print(*{name.split('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"boto3", "botocore", "moto"} & set(ran.stdout.split()) == set()


# --- a closed network


def closed(recipe: str | Path, folder: Path | None, tmp_path: Path, **given: Any) -> Path:
    bucket = "s3://weights/models" if folder else None
    plan = mirror.plan_mirror(load(recipe), "registry.example:5000/ml", bucket=bucket, folder=folder, **given)
    out = tmp_path / "closed.yaml"
    out.write_text(plan.recipe(DIGEST))
    return out


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_a_mirrored_recipe_reaches_for_nothing_public(
    recipe: Path, folder: Path, hyperpd: Run, tmp_path: Path, accelerator: str
) -> None:
    recipe.write_text(RECIPE.replace("accelerator: cpu", f"accelerator: {accelerator}"))
    assert re.search(PUBLIC, recipe.read_text())
    path = closed(recipe, folder, tmp_path)
    printed = hyperpd("plan", str(path), "--launch")
    document = json.loads(hyperpd("plan", str(path), "--launch", "--json").stdout)
    text = path.read_text() + printed.stdout + json.dumps(document)
    assert printed.returncode == 0, printed.stderr
    assert not re.findall(PUBLIC, text)
    assert set(re.findall(r"\w+://[^\s'\"]+", text)) == {"s3://weights/models/org/model"}  # in the comment
    assert [worker["env"]["HF_HUB_OFFLINE"] for worker in document["workers"]] == ["1", "1"]
    for worker in document["workers"]:
        argv = worker["argv"]
        assert argv[argv.index("--model") + 1] == "/models/model"
        assert argv[argv.index("--served-model-name") + 1] == "org/model"
        assert "--revision" not in argv
    mirrored = load(path).recipe
    assert mirrored.image == f"registry.example:5000/ml/hyperpd@{DIGEST}"
    assert mirrored.role("prefill") == load(recipe).recipe.role("prefill")


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_a_mirrored_recipes_manifests_name_no_public_host(
    recipe: Path, folder: Path, hyperpd: Run, tmp_path: Path, accelerator: str
) -> None:
    machine = "instance_type: ml.p5.48xlarge" if accelerator == "gpu" else ""
    written = RECIPE.replace("accelerator: cpu", f"accelerator: {accelerator}")
    recipe.write_text(
        written.replace("prefill: {", f"prefill: {{{machine}{', ' * bool(machine)}").replace("{}", f"{{{machine}}}")
    )
    ran = hyperpd("render", str(closed(recipe, folder, tmp_path)), "--target", "kubernetes")
    assert ran.returncode == 0, ran.stderr
    assert not re.findall(PUBLIC, ran.stdout)
    objects = [one for one in yaml.safe_load_all(ran.stdout) if one]
    images = {c["image"] for c in _containers(objects)}
    assert images == {f"registry.example:5000/ml/hyperpd@{DIGEST}"}
    public = [one for one in objects if one["kind"] == "NetworkPolicy" and "0.0.0.0/0" in json.dumps(one["spec"])]
    assert public == []  # nothing leaves the cluster


def _containers(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [c for one in objects if one["kind"] == "Deployment" for c in one["spec"]["template"]["spec"]["containers"]]


def test_without_a_model_folder_the_model_stays(tmp_path: Path) -> None:
    mirrored = load(closed("tiny-cpu-1p1d", None, tmp_path, image="hyperpd:1")).recipe
    assert mirrored.model == load("tiny-cpu-1p1d").recipe.model


def test_the_folder_on_the_machines(recipe: Path, folder: Path, tmp_path: Path) -> None:
    assert load(closed(recipe, folder, tmp_path, model_path="/fsx/m")).recipe.model.path == "/fsx/m"
    recipe.write_text(RECIPE.replace("huggingface: org/model, revision: abc", "path: /fsx/mine, served_as: mine"))
    model = load(closed(recipe, folder, tmp_path)).recipe.model
    assert (model.path, model.name) == ("/fsx/mine", "mine")


@pytest.mark.parametrize(
    ("change", "given", "problem"),
    [
        (("image: ghcr.io/org/hyperpd:1.0", ""), {}, "no image; add `image: …`"),
        (("", ""), {"registry": "myteam"}, "no host; give HOST/PATH"),
        (("", ""), {"registry": "docker.io/me"}, "names docker.io"),
        (("", ""), {"registry": "r.example/ml:1"}, "not the name of an image"),
        (("", ""), {"folder": None, "bucket": None}, "org/model comes from a hub"),
        (("", ""), {"folder": Path("/nosuch")}, "no config.json here"),
        (("", ""), {"bucket": "weights"}, "give s3://BUCKET/PREFIX"),
        (("", ""), {"bucket": None}, "give s3://BUCKET/PREFIX"),
        (("", ""), {"model_path": "here"}, "is absolute"),
        (("", ""), {"image": "not an image"}, "not the name of an image"),
        (("max-num-seqs: 8", "tokenizer: gpt2"), {}, "prefill.engine.tokenizer: gpt2; name a folder"),
        (("{hugg", "{adapters: [{name: a, huggingface: org/b}], hugg"), {}, "model.adapters: org/b"),
        (("max-num-seqs: 8", "x: 'https://cdn.huggingface.co/t'"), {}, "names huggingface.co"),
        (("name: closed", "name: closed\ndescription: from hf.co"), {}, "names hf.co"),
    ],
)
def test_what_cannot_be_mirrored(
    recipe: Path, folder: Path, change: tuple[str, str], given: dict[str, Any], problem: str
) -> None:
    recipe.write_text(RECIPE.replace(*change) if change[0] else RECIPE)
    given = {"registry": "r.example/ml", "bucket": "s3://weights", "folder": folder} | given
    with pytest.raises(RecipeError, match=re.escape(problem)):
        mirror.plan_mirror(load(recipe), given.pop("registry"), **given)


def test_private_registries_may_have_public_words_in_their_paths() -> None:
    assert (
        mirror.public_hosts("r.example/docker.io/vllm 123456789012.dkr.ecr.us-east-1.amazonaws.com mydocker.io") == []
    )
    assert mirror.public_hosts("docker://docker.io/a registry-1.docker.io") == ["docker.io"]


def test_mirror_dry_run_does_nothing(
    recipe: Path, folder: Path, hyperpd: Run, tmp_path: Path, no_tools: dict[str, str]
) -> None:
    environment = program(tmp_path / "bin", "skopeo", "exit 1")
    argv = ("image", "mirror", str(recipe), "--registry", "r.example/ml", "-o", "out.yaml", "--dry-run")
    shown = hyperpd(*argv, "--model-folder", str(folder), "--bucket", "s3://weights", env=environment)
    lines = shown.stdout.splitlines()
    copy = "skopeo copy --all --preserve-digests docker://ghcr.io/org/hyperpd:1.0 docker://r.example/ml/hyperpd:1.0"
    assert lines[:2] == [copy, "# upload config.json to s3://weights/org/model/config.json"]
    assert "image: r.example/ml/hyperpd:1.0" in lines
    assert not (tmp_path / "out.yaml").exists()
    assert not (tmp_path / "bin" / "skopeo.log").exists()
    refused = hyperpd(*argv, "--model-folder", str(folder), "--bucket", "s3://weights", env=no_tools)
    assert (refused.returncode, "docker is not installed; buildah is not installed" in refused.stderr) == (4, True)


def test_the_recipe_itself_is_not_overwritten(recipe: Path, hyperpd: Run) -> None:
    refused = hyperpd("image", "mirror", str(recipe), "--registry", "r.example/ml", "-o", str(recipe))
    assert (refused.returncode, "write to another file" in refused.stderr) == (2, True)


# --- build and push


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ((), "--efa-sha256 with the checksum"),
        (("--no-efa", "--efa-sha256", "0" * 64), "one of them"),
        (("--efa-sha256", "abc"), "64 hexadecimal digits"),
        (("--engine", "none", "--no-efa"), "has no fabric"),
        (("--no-efa", "--base", "-x"), "not the name of an image"),
        (("--no-efa", "--tag", "a b"), "not the name of an image"),
    ],
)
def test_wrong_words(hyperpd: Run, checkout: Path, argv: tuple[str, ...], problem: str) -> None:
    refused = hyperpd("image", "build", *argv, "--context", str(checkout))
    assert (refused.returncode, problem in refused.stderr) == (2, True), refused.stderr


def test_build_needs_a_checkout(hyperpd: Run, checkout: Path, no_tools: dict[str, str]) -> None:
    refused = hyperpd("image", "build", "--no-efa")
    assert (refused.returncode, "give --context CHECKOUT" in refused.stderr) == (2, True)
    inner = hyperpd(
        "image", "build", "--no-efa", "--dry-run", "--json", "--context", str(checkout / "sdk"), env=no_tools
    )
    assert json.loads(inner.stdout)["tool"] == "codebuild"


def test_this_repository_is_a_checkout_and_takes_the_arguments() -> None:
    root = build.checkout(Path(__file__).parent)
    dockerfile = (root / tools.DOCKERFILE).read_text()
    for given in (("gpu", "b", "0" * 64, False), ("gpu", None, None, True), ("none", None, None, False)):
        for name in build.build_arguments(*given) | {"REVISION": ""}:
            assert re.search(rf"^ARG {name}\b", dockerfile, re.M), name


def test_docker_with_a_daemon_comes_first(hyperpd: Run, checkout: Path, tmp_path: Path) -> None:
    digests = json.dumps([f"other.example/x@{DIGEST[:-1]}2", f"r.example/ml/h@{DIGEST}"])
    answer = f"[ \"$1\" != inspect ] || echo '{digests}'"
    environment = program(tmp_path / "bin", "docker", answer) | {"HOME": str(tmp_path)}
    program(tmp_path / "bin", "buildah", "exit 1")
    argv = ("image", "build", "--efa-sha256", "a" * 64, "--base", "b:1", "--context", str(checkout))
    built = hyperpd(*argv, "--tag", "h:2", "--json", env=environment)
    assert json.loads(built.stdout)["tool"] == "docker", built.stderr
    pushed = hyperpd("image", "push", "h:2", "r.example/ml/h", env=environment)
    assert pushed.stdout == f"r.example/ml/h@{DIGEST}\n"
    log = (tmp_path / "bin" / "docker.log").read_text().splitlines()
    options = f"--build-arg ENGINE=gpu --build-arg BASE=b:1 --build-arg EFA_SHA256={'a' * 64} --tag h:2 {checkout}"
    assert [line for line in log if not line.startswith("version")] == [
        f"build --file {checkout}/container/Dockerfile {options}",
        "tag h:2 r.example/ml/h:2",
        "push r.example/ml/h:2",
        "inspect --format {{json .RepoDigests}} r.example/ml/h:2",
    ]


def test_docker_without_a_daemon(hyperpd: Run, checkout: Path, tmp_path: Path) -> None:
    environment = program(tmp_path / "bin", "docker", "exit 1")
    argv = ("image", "build", "--no-efa", "--context", str(checkout), "--dry-run")
    refused = hyperpd(*argv, "--tool", "docker", env=environment)
    assert (refused.returncode, "daemon does not answer" in refused.stderr) == (4, True)
    program(tmp_path / "bin", "buildah", "exit 1")
    shown = hyperpd(*argv, env=environment)
    assert shown.stdout.startswith("buildah bud --file ")
    assert not (tmp_path / "bin" / "buildah.log").exists()
    failed = hyperpd(*argv[:-1], env=environment)
    assert (failed.returncode, "ended with exit code 1" in failed.stderr) == (4, True)


def test_with_neither_a_codebuild_project_is_written(
    hyperpd: Run, checkout: Path, tmp_path: Path, no_tools: dict[str, str]
) -> None:
    argv = ("image", "build", "--no-efa", "--tag", "team/hyperpd:3", "--context", str(checkout))
    written = hyperpd(*argv, env=no_tools)
    assert written.returncode == 0, written.stderr
    assert "aws codebuild start-build --project-name hyperpd-image" in written.stdout.splitlines()
    resources = yaml.safe_load((tmp_path / "hyperpd-codebuild.yaml").read_text())["Resources"]
    project = resources["Build"]["Properties"]
    assert project["Environment"]["PrivilegedMode"] is True
    assert {"Name": "IMAGE", "Value": "team/hyperpd:3"} in project["Environment"]["EnvironmentVariables"]
    commands = yaml.safe_load(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    build = "docker build --file container/Dockerfile --build-arg ENGINE=gpu --build-arg EFA=none --tag"
    assert commands[1] == f'{build} "$REGISTRY/$IMAGE" .'
    statements = resources["Role"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert not [action for one in statements for action in one["Action"] if "*" in action]
    assert [one["Action"] for one in statements if one["Resource"] == "*"] == [["ecr:GetAuthorizationToken"]]
    assert statements[3]["Resource"]["Fn::Sub"].endswith(":repository/team/hyperpd")
    elsewhere = hyperpd(*argv[:4], "ghcr.io/me/h:1", *argv[5:], env=no_tools)
    assert (elsewhere.returncode, "ECR in its own account" in elsewhere.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hyperpd", ("hyperpd", "", "")),
        ("hyperpd:1.0", ("hyperpd", "1.0", "")),
        ("localhost:5000/a/b:t", ("localhost:5000/a/b", "t", "")),
        (f"r.example/a@{DIGEST}", ("r.example/a", "", DIGEST)),
        (f"r.example/a:t@{DIGEST}", ("r.example/a", "t", DIGEST)),
    ],
)
def test_names_of_images(text: str, parts: tuple[str, str, str]) -> None:
    found = tools.reference(text, "test")
    assert (found.repository, found.tag, found.digest) == parts
    assert str(found) == text
