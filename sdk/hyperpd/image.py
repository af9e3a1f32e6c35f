"""The container image: build it, push it, and copy what a recipe needs into a closed network.

Nothing here speaks to a registry itself: docker, buildah and skopeo do, with their own logins and
trust. Unverified: a build of the CUDA image, CodeBuild, ECR, and S3 other than its stand-in.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

from hyperpd import __version__
from hyperpd.engine import hub_names
from hyperpd.errors import CloudError, NotReady, RecipeError
from hyperpd.recipe import RecipeFile, parse

DOCKERFILE = "container/Dockerfile"
# The gateway needs no engine: this instead of the Dockerfile's vLLM image. Unverified: never pulled here.
GATEWAY_BASE = "docker.io/library/python:3.11-slim-bookworm"
# What a closed network does not reach. A private registry may have such a name in its path.
PUBLIC_HOSTS = (
    *("huggingface.co", "hf.co", "modelscope.cn", "docker.io", "docker.com", "ghcr.io", "github.com", "nvcr.io"),
    *("quay.io", "gcr.io", "pkg.dev", "registry.k8s.io", "public.ecr.aws", "efa-installer.amazonaws.com"),
)
_DAEMON_TIMEOUT_S = 15
_REPORT_BYTES = 64 * 2**20  # a file above this reports every tenth
Say = Callable[[str], None]


# --- names of images


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name: `HOST:PORT/PATH`, and a tag, a digest, both or neither."""

    repository: str
    tag: str = ""
    digest: str = ""  # sha256:…

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def pinned(self) -> str:
        """What can mean one image only, or the tag where the digest is not known."""
        return str(replace(self, tag="") if self.digest else self)


_REFERENCE = re.compile(
    r"(?P<repository>[a-z0-9][a-z0-9.-]*(?::\d+(?=/))?(?:/[a-z0-9][a-z0-9._-]*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def reference(text: str, where: str) -> Reference:
    """`text` as the name of an image. Raises RecipeError."""
    found = _REFERENCE.fullmatch(text)
    if not found:
        raise RecipeError(where, [f"{text!r} is not the name of an image, as in registry.example:5000/ml/hyperpd:1.0"])
    return Reference(**{key: value or "" for key, value in found.groupdict().items()})


# --- the tools


class Shell:
    """Runs commands, their output on standard error; dry: notes them only."""

    def __init__(self, dry: bool = False) -> None:
        self.dry = dry
        self.commands: list[str] = []

    def run(self, *argv: str, capture: bool = False) -> str:
        """Standard output if captured. Raises CloudError when the command fails."""
        self.commands.append(shlex.join(argv))
        if self.dry:
            return ""
        ran = subprocess.run(argv, stdout=subprocess.PIPE if capture else sys.stderr, text=True)
        if ran.returncode:
            raise CloudError(f"{self.commands[-1]}\nended with exit code {ran.returncode}; its own words are above")
        return ran.stdout or ""

    def digest(self, *argv: str) -> str:
        """The digest that a command writes to its --digestfile; "" when dry."""
        if self.dry:
            self.run(*argv)
            return ""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "digest"
            self.run(*argv[:2], "--digestfile", str(file), *argv[2:])
            return file.read_text().strip()


class Tool(Protocol):
    """Builds images, and takes them to registries."""

    name: str

    def build(self, shell: Shell, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        """Build the Dockerfile of `context` as `tag`."""

    def push(self, shell: Shell, tag: str, target: Reference) -> str:
        """Push the local image `tag` to `target`; its digest there."""

    def pull(self, shell: Shell, source: Reference) -> None:
        """Fetch `source` into the local images."""


class Docker:
    """A docker client whose daemon answers."""

    name = "docker"

    def build(self, shell: Shell, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        # BuildKit: the Dockerfile's mounts need it, and it sends only what is copied. Old clients have to be told.
        shell.run("env", "DOCKER_BUILDKIT=1", "docker", "build", *_build_options(context, tag, arguments))

    def push(self, shell: Shell, tag: str, target: Reference) -> str:
        shell.run("docker", "tag", tag, str(target))
        shell.run("docker", "push", str(target))
        told = shell.run("docker", "inspect", "--format", "{{json .RepoDigests}}", str(target), capture=True)
        digests = [name.removeprefix(target.repository + "@") for name in json.loads(told or "[]")]
        return next((digest for digest in digests if digest.startswith("sha256:")), "")

    def pull(self, shell: Shell, source: Reference) -> None:
        shell.run("docker", "pull", source.pinned)


class Buildah:
    """buildah, which needs no daemon."""

    name = "buildah"

    def build(self, shell: Shell, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        shell.run("buildah", "bud", *_build_options(context, tag, arguments))

    def push(self, shell: Shell, tag: str, target: Reference) -> str:
        return shell.digest("buildah", "push", tag, f"docker://{target}")

    def pull(self, shell: Shell, source: Reference) -> None:
        shell.run("buildah", "pull", f"docker://{source.pinned}")


def _build_options(context: Path, tag: str, arguments: Mapping[str, str]) -> list[str]:
    given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    return ["--file", str(context / DOCKERFILE), *given, "--tag", tag, str(context)]


def tool(name: str | None = None) -> Tool | None:
    """The tool of this name, or the first that is there; None when there is none. Raises NotReady, with a name."""
    for one in (Docker(), Buildah()):
        if name in (None, one.name):
            why = _missing(one.name)
            if not why:
                return one
            if name:
                raise NotReady(why)
    return None


def must(found: Tool | None) -> Tool:
    """`found`, or NotReady."""
    if not found:
        raise NotReady(f"no tool for images: {_missing('docker')}; {_missing('buildah')}")
    return found


def _missing(name: str) -> str:
    """Why a tool cannot be used, or ""."""
    if not shutil.which(name):
        return f"{name} is not installed"
    if name == "docker":
        try:
            asked = ("docker", "version", "--format", "{{.Server.Version}}")
            answers = not subprocess.run(asked, capture_output=True, timeout=_DAEMON_TIMEOUT_S).returncode
        except subprocess.TimeoutExpired:
            answers = False
        return "" if answers else "docker's daemon does not answer (start it, or set DOCKER_HOST)"
    return ""


# --- build and push


def checkout(start: Path) -> Path:
    """The checkout that `start` lies in. Raises RecipeError."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / DOCKERFILE).is_file() and (folder / "sdk" / "hyperpd").is_dir():
            return folder
    raise RecipeError(str(start), ["not in a checkout of hyperpd (no container/Dockerfile); give --context CHECKOUT"])


def build_arguments(engine: str, base: str | None, efa_sha256: str | None, no_efa: bool) -> dict[str, str]:
    """The Dockerfile's build arguments, as its header describes them. Raises RecipeError with every problem."""
    found = []
    if engine == "none" and (efa_sha256 or no_efa):
        found.append("--engine none has no fabric: --efa-sha256 and --no-efa go with --engine gpu")
    elif engine == "gpu" and bool(efa_sha256) == no_efa:
        found.append(
            "give --efa-sha256 with the checksum of the EFA installer that you trust"
            " (the Dockerfile says which version), or --no-efa for an image without EFA; one of them"
        )
    if efa_sha256 and not re.fullmatch("[0-9a-f]{64}", efa_sha256):
        found.append(f"--efa-sha256: not a SHA-256 of 64 hexadecimal digits (found {efa_sha256!r})")
    if base:
        reference(base, "--base")
    if found:
        raise RecipeError("hyperpd image build", found)
    base = base or (GATEWAY_BASE if engine == "none" else None)
    arguments = {"ENGINE": engine} | ({"BASE": base} if base else {})  # buildah 1.28 has to be told ENGINE
    return arguments | ({"EFA_SHA256": efa_sha256} if efa_sha256 else {}) | ({"EFA": "none"} if no_efa else {})


def revision(context: Path, dirty: str = "-dirty") -> dict[str, str]:
    """REVISION for the image's label, if git knows it."""
    if not shutil.which("git"):
        return {}
    argv = ("git", "-C", str(context), "describe", "--always", "--abbrev=40", "--exclude=*")
    told = subprocess.run([*argv, *([f"--dirty={dirty}"] if dirty else [])], capture_output=True, text=True)
    return {"REVISION": told.stdout.strip()} if not told.returncode else {}


def default_tag(engine: str) -> str:
    return f"hyperpd-gateway:{__version__}" if engine == "none" else f"hyperpd:{__version__}"


def push(shell: Shell, by: Tool, tag: str, repository: str) -> str:
    """Push the local image `tag`; `REPOSITORY@sha256:…`, or with its tag when dry. Raises RecipeError, CloudError."""
    local, target = reference(tag, "TAG"), reference(repository, "REPOSITORY")
    if target.digest:
        raise RecipeError(repository, ["a digest is what comes out; give the repository, or repository:tag"])
    target = target if target.tag else replace(target, tag=local.tag or "latest")
    return replace(target, digest=_pushed(shell, by, tag, target)).pinned


def _pushed(shell: Shell, by: Tool, tag: str, target: Reference) -> str:
    digest = by.push(shell, tag, target)
    if not (digest or shell.dry):
        raise CloudError(f"{by.name} pushed {target} and does not know its digest; ask the registry")
    return digest


# --- build without a tool: CodeBuild


def codebuild(tag: str, arguments: Mapping[str, str], context: Path, file: Path) -> tuple[str, list[str]]:
    """A CloudFormation template with a CodeBuild project, and the shell lines that build with it. Unverified.

    The project may pull its source, write its log, and push to one repository, and nothing else.
    Raises RecipeError when `tag` is not for ECR.
    """
    image = reference(tag, "--tag")
    host, _, path = image.repository.partition("/")
    if "." in host or ":" in host:
        if not re.fullmatch(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?", host) or not path:
            raise RecipeError(tag, ["CodeBuild pushes to ECR in its own account; give --tag REPOSITORY:TAG"])
    else:
        path = image.repository
    options = shlex.join(part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}"))
    buildspec = {
        "version": 0.2,
        "env": {"variables": {"DOCKER_BUILDKIT": "1"}},
        "phases": {
            "build": {  # one phase: the next one would run after a failure too
                "commands": [
                    'aws ecr get-login-password | docker login --username AWS --password-stdin "$REGISTRY"',
                    f'docker build --file {DOCKERFILE} {options} --tag "$REGISTRY/$IMAGE" .',
                    'docker push "$REGISTRY/$IMAGE"',
                    'docker inspect --format "{{index .RepoDigests 0}}" "$REGISTRY/$IMAGE"',
                ]
            }
        },
    }
    source = {"Fn::Sub": "${Bucket}/hyperpd-source.zip"}
    allowed = [
        _allow(["logs:CreateLogStream", "logs:PutLogEvents"], {"Fn::GetAtt": ["Log", "Arn"]}),
        _allow(
            ["s3:GetObject", "s3:GetObjectVersion"],
            {"Fn::Sub": "arn:${AWS::Partition}:s3:::${Bucket}/hyperpd-source.zip"},
        ),
        _allow(["ecr:GetAuthorizationToken"], "*"),  # AWS knows no resource for this one
        _allow(
            [
                *("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload"),
                *("ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"),
            ],
            {"Fn::Sub": f"arn:${{AWS::Partition}}:ecr:${{AWS::Region}}:${{AWS::AccountId}}:repository/{path}"},
        ),
    ]
    trust = _allow(["sts:AssumeRole"]) | {
        "Principal": {"Service": "codebuild.amazonaws.com"},
        "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
    }
    environment = {
        "REGISTRY": {"Fn::Sub": "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}"},
        "IMAGE": f"{path}:{image.tag or 'latest'}",
    }
    resources = {
        "Log": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {"LogGroupName": "/aws/codebuild/hyperpd-image", "RetentionInDays": 30},
        },
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
                "Policies": [
                    {"PolicyName": "build", "PolicyDocument": {"Version": "2012-10-17", "Statement": allowed}}
                ],
            },
        },
        "Build": {
            "Type": "AWS::CodeBuild::Project",
            "Properties": {
                "Name": "hyperpd-image",
                "ServiceRole": {"Fn::GetAtt": ["Role", "Arn"]},
                "Source": {
                    "Type": "S3",
                    "Location": source,
                    "BuildSpec": _Lines(yaml.safe_dump(buildspec, sort_keys=False, width=1000)),
                },
                "Artifacts": {"Type": "NO_ARTIFACTS"},
                "Environment": {
                    "Type": "LINUX_CONTAINER",
                    "ComputeType": "BUILD_GENERAL1_LARGE",  # for its disk: the CUDA image is tens of GB
                    "Image": "aws/codebuild/standard:7.0",
                    "PrivilegedMode": True,  # docker inside
                    "EnvironmentVariables": [{"Name": name, "Value": value} for name, value in environment.items()],
                },
                "LogsConfig": {"CloudWatchLogs": {"Status": "ENABLED", "GroupName": {"Ref": "Log"}}},
                "TimeoutInMinutes": 120,
            },
        },
    }
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Builds the hyperpd image with CodeBuild. Unverified.",
        "Parameters": {"Bucket": {"Type": "String", "Description": "Has hyperpd-source.zip"}},
        "Resources": resources,
    }
    lines = [
        "BUCKET=…  # a bucket of yours, in the region of the build",
        f'git -C {shlex.quote(str(context))} archive --format zip --output "$PWD/hyperpd-source.zip" HEAD',
        'aws s3 cp hyperpd-source.zip "s3://$BUCKET/hyperpd-source.zip"',
        f"aws ecr create-repository --repository-name {path}  # once",
        f"aws cloudformation deploy --stack-name hyperpd-image --template-file {shlex.quote(str(file))}"
        ' --capabilities CAPABILITY_IAM --parameter-overrides "Bucket=$BUCKET"',
        "aws codebuild start-build --project-name hyperpd-image",
    ]
    return yaml.dump(template, Dumper=_Dumper, sort_keys=False, width=1000), lines


class _Lines(str):
    """A text that is to be read as lines in YAML."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Lines, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def _allow(actions: list[str], resource: Any = None) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions} | ({"Resource": resource} if resource else {})


# --- mirror


@dataclass(frozen=True, slots=True)
class Mirror:
    """What goes where: decided before anything is copied."""

    file: RecipeFile
    source: Reference
    target: Reference  # with the tag in the user's registry
    folder: Path | None  # of the model here
    place: str = ""  # of the model in S3: s3://BUCKET/PREFIX
    model_path: str = ""  # of the model on the machines

    def recipe(self, digest: str = "") -> str:
        """The recipe for the closed network. Raises RecipeError when it would reach for a public host."""
        model = self.file.recipe.model
        document = self.file.recipe.model_dump(mode="json", exclude_unset=True)
        document |= {"image": replace(self.target, digest=digest).pinned}
        head = [f"# Made by hyperpd image mirror from a recipe with the digest {self.file.digest}."]
        if self.folder:
            kept = {k: v for k, v in document["model"].items() if k not in ("generated", "huggingface", "revision")}
            document["model"] = {"path": self.model_path, "served_as": model.name} | kept | {"path": self.model_path}
            was = f"{model.name}{f' at revision {model.revision}' if model.revision else ''}"
            head += [
                f"# The model ({was}) lies in S3. Every machine needs it at model.path before a worker starts:",
                f"#   aws s3 sync {shlex.quote(self.place)} {shlex.quote(self.model_path)}",
            ]
        text = "\n".join([*head, yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)])
        where = f"{self.file.path} mirrored"
        found = [f"{name}; name a folder of the machines instead" for name in hub_names(parse(document, where))]
        found += [f"names {host}, which a closed network does not reach" for host in public_hosts(text)]
        if found:
            raise RecipeError(where, found)
        return text


def public_hosts(text: str) -> list[str]:
    """The public hosts that `text` names; not those that are part of a private registry's path."""
    return [host for host in PUBLIC_HOSTS if re.search(rf"(?:(?<![\w/-])|(?<=//)){re.escape(host)}(?![\w-])", text)]


def plan_mirror(
    file: RecipeFile,
    registry: str,
    *,
    image: str | None = None,
    bucket: str | None = None,
    folder: Path | None = None,
    model_path: str | None = None,
) -> Mirror:
    """Decide what goes where; nothing is copied. Raises RecipeError with every problem found.

    registry: HOST/PATH; image: instead of the recipe's; bucket: s3://BUCKET/PREFIX; folder: the
    model's files here; model_path: where they will be on the machines.
    """
    recipe, found = file.recipe, []
    named = image or recipe.image
    if not named:
        found.append("no image; add `image: …` to it, or give --image")
    host = registry.partition("/")[0]
    if not ("." in host or ":" in host or host == "localhost"):
        found.append(f"--registry {registry}: no host; give HOST/PATH, as in registry.example/ml")
    if folder and not (folder / "config.json").is_file():
        found.append(f"--model-folder {folder}: no config.json here; give the folder of a Hugging Face model")
    if folder and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{2,62}(/[\w!.*'()/-]+)?", bucket or ""):
        found.append(f"--bucket {bucket}: give s3://BUCKET/PREFIX, where the model folder's files go")
    if bucket and not folder:
        found.append("--bucket goes with --model-folder: there is nothing to upload")
    if recipe.model.huggingface and not folder:
        found.append(f"{recipe.model.huggingface} comes from a hub; download it and give --model-folder")
    if model_path and not (folder and model_path.startswith("/")):
        found.append("--model-path goes with --model-folder, and is absolute")
    if found or not named:
        raise RecipeError(str(file.path), found)
    source, name = reference(named, "image"), recipe.model.name
    tag = source.tag or source.digest.replace(":", "-") or "latest"
    target = reference(f"{registry.rstrip('/')}/{source.repository.rpartition('/')[2]}:{tag}", "--registry")
    plan = Mirror(file, source, target, folder)
    if folder:
        path = model_path or recipe.model.path or f"/models/{name.rpartition('/')[2]}"
        plan = replace(plan, place=f"{str(bucket).rstrip('/')}/{name.strip('/')}", model_path=path)
    plan.recipe()
    return plan


def copy_image(shell: Shell, source: Reference, target: Reference) -> str:
    """Copy an image between registries; its digest, or "" when dry. Raises NotReady, CloudError.

    skopeo copies every architecture and keeps the digest; docker and buildah take this machine's
    architecture, and the digest may change.
    """
    if shutil.which("skopeo"):
        digest = shell.digest(
            *("skopeo", "copy", "--all", "--preserve-digests", f"docker://{source.pinned}", f"docker://{target}")
        )
        if source.digest and not shell.dry and digest != source.digest:
            raise CloudError(f"{target} is {digest}, but {source} was asked for")
        return digest
    by = must(tool())
    by.pull(shell, source)
    return _pushed(shell, by, source.pinned, target)


def model_files(folder: Path) -> list[Path]:
    """The files of a model, relative and sorted; hidden ones are left out, links are followed."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.parts))


@dataclass(frozen=True, slots=True)
class Uploaded:
    """How much went to S3, and how much was there."""

    files: int = 0
    skipped: int = 0
    sent_bytes: int = 0


def upload(folder: Path, place: str, say: Say) -> Uploaded:
    """Upload a model's files below s3://BUCKET/PREFIX; those with the same size and SHA-256 are skipped.

    The SHA-256 is kept with each object (metadata `sha256`); a file that was cut off is sent anew.
    Raises NotReady without boto3, CloudError when S3 refuses.
    """
    try:
        import boto3
    except ImportError:
        raise NotReady("uploading needs boto3: pip install 'hyperpd[aws]'") from None
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    done = Uploaded()
    with _s3_refusals(place):
        s3 = boto3.client("s3")
        for name in model_files(folder):
            path, key = folder / name, f"{prefix}/{name.as_posix()}"
            size = path.stat().st_size
            with path.open("rb") as content:
                checksum = hashlib.file_digest(content, "sha256").hexdigest()
            if _there(s3, bucket, key) == (size, checksum):
                say(f"{name}: there already ({size:,} bytes)")
                done = replace(done, skipped=done.skipped + 1)
                continue
            progress = _Progress(str(name), size, say)
            s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {"sha256": checksum}}, Callback=progress)
            say(f"{name}: uploaded ({size:,} bytes)")
            done = replace(done, files=done.files + 1, sent_bytes=done.sent_bytes + size)
    return done


def _there(s3: Any, bucket: str, key: str) -> tuple[int, str] | None:
    """Size and SHA-256 of an object, or None."""
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return None
        raise
    return head["ContentLength"], head["Metadata"].get("sha256", "")


@contextmanager
def _s3_refusals(place: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise CloudError(f"{place}: {error}\nRun it again when that is mended: what is there is skipped") from None


class _Progress:
    """A line for every tenth of a large file; called by boto3's threads with the bytes sent since."""

    def __init__(self, name: str, size: int, say: Say) -> None:
        self._name, self._size, self._say = name, size, say
        self._sent, self._told = 0, 0
        self._lock = threading.Lock()

    def __call__(self, sent: int) -> None:
        with self._lock:
            self._sent += sent
            tenths = self._sent * 10 // self._size if self._size > _REPORT_BYTES else 0
            if self._told < tenths < 10:
                self._told = tenths
                self._say(f"{self._name}: {tenths * 10} %")
