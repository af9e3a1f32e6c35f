"""What an image is built from, with a tool of this machine or by CodeBuild."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hyperpd import __version__
from hyperpd.errors import RecipeError
from hyperpd.image.tools import DOCKERFILE, reference

# The gateway needs no engine: this instead of the Dockerfile's vLLM image. Unverified: never pulled here.
GATEWAY_BASE = "docker.io/library/python:3.11-slim-bookworm"


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
