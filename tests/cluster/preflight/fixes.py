"""Runs what a finding prints as its fix: AWS commands, edits of the cluster file, and the shell's own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jmespath
import yaml
from botocore import xform_name
from botocore.session import get_session

from tests.cluster.files import merged
from tests.fakes.aws import Aws

Document = dict[str, Any]
Run = Callable[[list[str]], str]
_SET = re.compile(r"set ([\w.-]+): (.+)")
_SHELL = ("sed", "mv")
_OTHERS = ("git", "helm")  # not here: a test says what they would do
_RENAMED = {"version": "kubernetes-version"}  # of eks: --version is the CLI's own


def apply(fix: str, document: Document, run: Run) -> Document:
    """The document after the fix, its commands run one after the other. Words that are neither stop the test."""
    printed = ""
    for line in fix.splitlines():
        if edit := _SET.fullmatch(line):
            value = yaml.safe_load(re.sub(r"\bID\b", printed.strip(), edit[2]))
            document = _put(document, edit[1].split("."), value)
        elif line.split(" ")[0] in ("aws", *_OTHERS):
            printed = run(shlex.split(line))
        elif line.split(" ")[0] in _SHELL:
            subprocess.run(shlex.split(line), check=True)
        else:
            raise AssertionError(f"nobody can run this: {line}")
    return document


def _put(document: Document, path: list[str], value: Any) -> Document:
    change: Any = value
    for key in reversed(path):
        change = {key: change}
    return merged(document, change)


def interpreter(aws: Aws) -> Run:
    """The AWS CLI's grammar as far as fixes use it, over boto3: kebab-case options, JSON, shorthand of one key=value,
    words in a row; --query and --output."""

    def run(argv: list[str]) -> str:
        _, service, operation, *rest = argv
        if (service, operation) == ("s3", "cp"):
            return _copy(aws, *rest[:2])
        name = {"s3api": "s3"}.get(service, service)
        given = _options(rest)
        assert given.pop("region", [None]) in ([None], [aws.environment["AWS_REGION"]])
        query = given.pop("query", [None])[0]
        given.pop("output", None)
        model = get_session().get_service_model(name)
        wire = next(each for each in model.operation_names if xform_name(each, "-") == operation)
        shape = model.operation_model(wire).input_shape
        members = {_RENAMED.get(member, xform_name(member, "-")): member for member in shape.members}
        parameters = {
            members[option]: _value(values, shape.members[members[option]]) for option, values in given.items()
        }
        answer = getattr(aws.client(name), xform_name(wire))(**parameters)
        return str(jmespath.search(query, answer)) if query else ""

    return run


def stock(aws: Aws, folder: Path) -> Run:
    """The AWS CLI itself, which AWS_CLI names."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "AWS_PAGER": "", **aws.environment}

    def run(argv: list[str]) -> str:
        assert argv[0] == "aws"
        done = subprocess.run(
            [os.environ["AWS_CLI"], *argv[1:]], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(argv)}: {done.stderr}"
        return done.stdout

    return run


def _options(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            found[word[2:]] = []
        else:
            found[list(found)[-1]].append(word)
    return found


def _value(values: list[str], shape: Any) -> Any:
    if shape.type_name == "structure" and "=" in values[0] and not values[0].startswith("{"):
        key, _, value = values[0].partition("=")
        return {key: value}
    if shape.type_name in ("structure", "map"):
        return json.loads(values[0])
    if shape.type_name == "list":
        return json.loads(values[0]) if values[0].startswith("[") else values
    if shape.type_name in ("integer", "long"):
        return int(values[0])
    return float(values[0]) if shape.type_name in ("double", "float") else values[0]


def _copy(aws: Aws, source: str, target: str) -> str:
    client: Any = aws.client("s3")
    if source.startswith("s3://"):
        bucket, _, key = source.removeprefix("s3://").partition("/")
        Path(target).write_bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    else:
        bucket, _, key = target.removeprefix("s3://").partition("/")
        client.put_object(Bucket=bucket, Key=key, Body=Path(source).read_bytes())
    return ""


__all__ = ["Run", "apply", "interpreter", "stock"]
