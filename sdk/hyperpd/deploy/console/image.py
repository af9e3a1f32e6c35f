"""The stack that builds the image at a click: a repository in ECR, and a CodeBuild project that fills it."""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import yaml

from hyperpd.deploy.console import access, hosted
from hyperpd.deploy.console.cluster import UNVERIFIED, VERSION, bucket_parameter, prefix_parameter
from hyperpd.deploy.console.options import pattern
from hyperpd.deploy.console.site import Object, Site, parameter, ref, sub
from hyperpd.deploy.target import Document
from hyperpd.errors import RecipeError
from hyperpd.image.tools import DOCKERFILE, Reference, reference

FILE, SOURCE_FILE = "0-image.yaml", "image-source.json"
# What the Dockerfile copies from its context; the tests hold it to that.
CONTEXT = (
    *("LICENSE", "README.md", "pyproject.toml", "lifecycle_scripts", "recipes", "sdk"),
    *(DOCKERFILE, "container/check_image.py", "container/engine-cpu.lock", "container/entrypoint.sh"),
    "container/hyperpd_runtime",
)
# Of what lies in these folders, what is ours: all of it texts, as one file of JSON can have them.
_SUFFIXES = ("", ".env", ".json", ".lock", ".md", ".py", ".sh", ".toml", ".tsv", ".yaml")
_UNPACK = (
    "import json, pathlib as p;"
    " [(p.Path(n).parent.mkdir(parents=True, exist_ok=True), p.Path(n).write_text(t))"
    " for n, t in json.load(open('source.json')).items()]"
)
# One phase: the next one would run after a failure, too.
_COMMANDS = (
    'test "${IMAGE%%/*}" = "$REGISTRY" || { echo "error: $IMAGE is not of this account, $REGISTRY"; exit 1; }',
    'aws s3 cp --no-progress "$SOURCE" source.json',
    'echo "$SOURCE_SHA256  source.json" | sha256sum --check --strict',
    f'python3 -c "{_UNPACK}"',
    "chmod 755 container/entrypoint.sh",  # texts have no modes
    'aws ecr get-login-password | docker login --username AWS --password-stdin "$REGISTRY"',
    f"docker build --file {DOCKERFILE} --build-arg ENGINE=gpu"
    ' --build-arg "${EFA_SHA256:+EFA_SHA256=}${EFA_SHA256:-EFA=none}" --tag "$IMAGE" .',
    'docker push "$IMAGE"',
    'docker inspect --format "{{index .RepoDigests 0}}" "$IMAGE"',
)


def made(site: Site) -> bool:
    """Whether there is a stack that builds the image."""
    return not why_not(site)


def why_not(site: Site) -> str:
    """Why no stack builds it; empty: one does."""
    if not (site.eks or hosted.made(site)):
        return "no stack here runs it."
    if "@" in site.image:
        return f"`{site.image}` is named by its digest, so it is in ECR. Named by a tag, a stack would build it."
    if not _reference(site).tag:
        return f"`{site.image}` has to be in ECR. Named by a tag, as in `…/hyperpd:0.1.0`, a stack would build it."
    if not checkout():
        return f"`{site.image}` has to be in ECR. Rendered from a checkout of hyperpd, a stack would build it."
    return ""


def checkout() -> Path | None:
    """The checkout that this file is in; None where hyperpd is installed without one."""
    folder = Path(__file__).resolve().parents[4]
    return folder if (folder / DOCKERFILE).is_file() else None


@cache
def source() -> str:
    """What the image is built from, as one text: path → text."""
    folder = checkout()
    assert folder, "made() says if there is one"
    found = {}
    for path in sorted(one for name in CONTEXT for one in (folder / name, *(folder / name).rglob("*"))):
        name = path.relative_to(folder)
        hidden = any(part[0] == "." or part == "__pycache__" for part in name.parts)
        if path.is_file() and path.suffix in _SUFFIXES and not hidden:
            found[name.as_posix()] = _text(path)
    return json.dumps(found, ensure_ascii=False, indent=0) + "\n"


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise RecipeError(str(path), ["is no text, and the image is built from texts; remove it"]) from None


def efa_installer() -> str:
    """The file that the build downloads and holds to its checksum."""
    found = re.search(r"^ARG EFA=(\S+)$", json.loads(source())[DOCKERFILE], re.MULTILINE)
    assert found, "the Dockerfile says which"
    return f"aws-efa-installer-{found[1]}.tar.gz"


def needs_efa(site: Site) -> bool:
    """Whether the recipe runs over EFA: an image without it would be refused as workers start."""
    return site.recipe.fabric == "efa" and not site.recipe.aggregated


def document(site: Site) -> Document:
    """Repository, role, project."""
    said = f"SHA-256 that you trust of {efa_installer()}"
    body: Object = {
        "AWSTemplateFormatVersion": VERSION,
        "Description": f"hyperpd: builds the image {site.image}",
        "Parameters": {
            "Bucket": bucket_parameter(site),
            "Prefix": prefix_parameter(site),
            "EfaSha256": parameter(
                said if needs_efa(site) else f"{said}; empty: an image without EFA",
                site.options.efa_sha256 or (None if needs_efa(site) else ""),
                AllowedPattern=pattern("efa_sha256", empty=not needs_efa(site)),
            ),
        },
        "Resources": {
            "Repository": {
                "Type": "AWS::ECR::Repository",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": {
                    "RepositoryName": _reference(site).repository.partition("/")[2],
                    "ImageTagMutability": "IMMUTABLE",
                    "ImageScanningConfiguration": {"ScanOnPush": True},
                    "Tags": site.tags,
                },
            },
            "Log": {
                "Type": "AWS::Logs::LogGroup",
                "DeletionPolicy": "Delete",
                "UpdateReplacePolicy": "Delete",
                "Properties": {
                    "LogGroupName": sub("/aws/codebuild/${AWS::StackName}"),
                    "RetentionInDays": 30,
                    "Tags": site.tags,
                },
            },
            "Role": access.role(None, "codebuild.amazonaws.com", access.builder(SOURCE_FILE), site.tags, access.OURS),
            "Build": {"Type": "AWS::CodeBuild::Project", "Properties": _project(site)},
        },
        "Outputs": {"Project": {"Description": "CodeBuild project: Start build", "Value": ref("Build")}},
    }
    notes = {
        "Resources.Repository.DeletionPolicy": "Nodes and endpoints pull it for as long as they are there.",
        "Resources.Repository.Properties.ImageTagMutability": "A tag means one image, always: what runs is what was"
        " built. Another image, another tag.",
        "Resources.Build.Properties.Environment.PrivilegedMode": "For docker in it. The build's own machine, thrown"
        " away after it.",
    }
    return Document(FILE, UNVERIFIED, body, notes)


def _project(site: Site) -> Object:
    spec = {
        "version": 0.2,
        "env": {"variables": {"DOCKER_BUILDKIT": "1"}},
        "phases": {"build": {"commands": list(_COMMANDS)}},
    }
    environment = {
        "REGISTRY": sub("${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}"),
        "IMAGE": site.image,
        "SOURCE": sub(f"s3://${{Bucket}}/${{Prefix}}/{SOURCE_FILE}"),
        "SOURCE_SHA256": hashlib.sha256(source().encode()).hexdigest(),
        "EFA_SHA256": ref("EfaSha256"),
    }
    return {
        "Name": ref("AWS::StackName"),
        "Description": "Builds hyperpd's image and pushes it to its repository",
        "ServiceRole": {"Fn::GetAtt": ["Role", "Arn"]},
        "Source": {"Type": "NO_SOURCE", "BuildSpec": yaml.safe_dump(spec, sort_keys=False, width=1000)},
        "Artifacts": {"Type": "NO_ARTIFACTS"},
        "Environment": {
            "Type": "LINUX_CONTAINER",
            "ComputeType": "BUILD_GENERAL1_LARGE",  # for its disk: the CUDA image is tens of GB
            "Image": "aws/codebuild/standard:7.0",
            "PrivilegedMode": True,
            "EnvironmentVariables": [{"Name": name, "Value": value} for name, value in environment.items()],
        },
        "LogsConfig": {"CloudWatchLogs": {"Status": "ENABLED", "GroupName": ref("Log")}},
        "ConcurrentBuildLimit": 1,
        "TimeoutInMinutes": 120,
        "Tags": site.tags,
    }


def _reference(site: Site) -> Reference:
    return reference(site.image, "image")
