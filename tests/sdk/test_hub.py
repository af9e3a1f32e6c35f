"""hyperpd hub: the exact requests, a hub on this machine as boto3 sees it, and who is told what."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.fakes import hub as stand_in

SETTINGS = ("--set", "image=example/hyperpd:1", "--set", "instance_type=ml.m5.2xlarge")
PUBLISH = ("hub", "publish", "tiny-cpu-1p1d", "--bucket", "s3://recipes-example/hyp", "--hub", "team", *SETTINGS)
KEYS = {"AWS_ACCESS_KEY_ID": "stand-in", "AWS_SECRET_ACCESS_KEY": "stand-in", "AWS_DEFAULT_REGION": "us-east-2"}


def command(*argv: str) -> list[str]:
    return [sys.executable, "-c", "from hyperpd.cli.main import main; main()", *argv]


def hyperpd(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | KEYS | {"AWS_EC2_METADATA_DISABLED": "true"} | environment
    return subprocess.run(command(*argv), capture_output=True, text=True, env=env, timeout=120)


def test_a_dry_run_says_the_exact_requests() -> None:
    said = json.loads(hyperpd(*PUBLISH, "--dry-run", "--json", AWS_ENDPOINT_URL="http://127.0.0.1:9").stdout)
    assert not said["sent"]
    assert [(one["service"], one["operation"]) for one in said["requests"]] == [
        ("s3", "put_object"),
        ("s3", "put_object"),
        ("sagemaker", "import_hub_content"),
    ]
    spec, template, content = (one["parameters"] for one in said["requests"])
    (entry,) = json.loads(content["HubContentDocument"])["RecipeCollection"]
    assert entry["HpEksOverrideParamsS3Uri"] == f"s3://{spec['Bucket']}/{spec['Key']}"
    assert entry["HpEksPayloadTemplateS3Uri"] == f"s3://{template['Bucket']}/{template['Key']}"
    assert json.loads(spec["Body"])["decode_replicas"]["default"] == 1
    assert "kind: LeaderWorkerSet" in template["Body"]
    assert stand_in.shape_problems("ImportHubContent", content) == []
    assert [line.split()[:2] for line in said["commands"]][1] == ["hyp", "init"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"HubContentVersion": "1"}, "HubContentVersion: 1 characters"),
        ({"HubContentName": "a.b"}, "HubContentName: not"),
        ({"HubContentType": "Recipe"}, "HubContentType: not one of"),
        ({"HubContentDocument": "{\n}"}, "HubContentDocument: not"),
        ({"Hub": "a"}, "Hub: unknown"),
    ],
)
def test_the_stand_in_holds_requests_to_their_shapes(change: dict[str, str], said: str) -> None:
    content = json.loads(hyperpd(*PUBLISH, "--dry-run", "--json").stdout)["requests"][2]["parameters"]
    assert any(said in one for one in stand_in.shape_problems("ImportHubContent", content | change))


def test_a_dry_run_needs_no_boto3() -> None:
    code = (
        "import sys\nfrom hyperpd.cli.main import main\n"
        f"sys.argv = ['hyperpd', *{PUBLISH!r}, '--dry-run']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"boto3", "botocore"} & set(ran.stdout.splitlines()[-1].split()) == set()


def test_a_refusal_says_what_and_what_to_try() -> None:
    failed = hyperpd(*PUBLISH, AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")
    assert failed.returncode == 4
    assert "s3 put_object" in failed.stderr
    assert "does aws sts get-caller-identity work here" in failed.stderr
    assert "Does the bucket" not in failed.stderr  # nobody was asked
    wrong = hyperpd("hub", "publish", "tiny-cpu-1p1d", "--bucket", "s3://recipes-example", "--hub", "team", "--dry-run")
    assert (wrong.returncode, "image: the recipe names none" in wrong.stderr) == (2, True)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What hyperpd hub serve-local says: its variables, and the ARN as `arn`."""
    argv = command("hub", "serve-local", "tiny-cpu-1p1d", "--port", "0", "--out", str(tmp_path), *SETTINGS)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found: dict[str, str] = {}
        for line in process.stdout:
            if "--model-id" in line:
                found = dict(word.split("=", 1) for word in line.partition(" hyp init ")[0].split())
                found["arn"] = line.partition("--model-id ")[2].split()[0]
            if line.strip() == "hyp create":
                break
        yield found
        process.terminate()


def test_a_hub_on_this_machine(served: dict[str, str], tmp_path: Path) -> None:
    where = {"region_name": served["AWS_DEFAULT_REGION"], "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    sagemaker = boto3.client("sagemaker", endpoint_url=served["AWS_ENDPOINT_URL_SAGEMAKER"], **where)
    hub, kind, name, version = served["arn"].partition(":hub-content/")[2].split("/")
    asked = {"HubName": hub, "HubContentType": kind, "HubContentName": name, "HubContentVersion": version}
    described = sagemaker.describe_hub_content(**asked)
    assert described["HubContentArn"] == served["arn"]
    (entry,) = json.loads(described["HubContentDocument"])["RecipeCollection"]
    s3 = boto3.client("s3", endpoint_url=served["AWS_ENDPOINT_URL_S3"], **where)
    for key, file in (("HpEksPayloadTemplateS3Uri", "k8s.jinja"), ("HpEksOverrideParamsS3Uri", "override-spec.json")):
        bucket, _, at = entry[key].removeprefix("s3://").partition("/")
        assert s3.get_object(Bucket=bucket, Key=at)["Body"].read().decode() == (tmp_path / file).read_text()
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="other", Key="k8s.jinja")
    with pytest.raises(sagemaker.exceptions.ResourceNotFound, match="there is"):
        sagemaker.describe_hub_content(**asked | {"HubContentName": "other"})
    with pytest.raises(sagemaker.exceptions.ClientError, match="DescribeHubContent alone"):
        sagemaker.list_hubs()


def test_a_prefix_with_a_slash_is_said_as_it_is_taken() -> None:
    """What is printed is not what the option's own pattern refuses."""
    argv = [word + "/" if word.startswith("s3://") else word for word in PUBLISH]
    said = hyperpd(*argv, "--dry-run").stdout
    (render,) = (line.strip() for line in said.splitlines() if line.strip().startswith("hyperpd render"))
    assert "bucket=s3://recipes-example/hyp --out ." in render


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--set", "bucket=s3://mine"), "--set bucket: it serves s3://hyperpd-local itself; remove it"),
        (("--port", "0", "--out", "/dev/null/x"), "--out: 1 problem\n  - /dev/null/x/"),
        (("--port", "70000"), "--port"),
    ],
)
def test_a_local_hub_that_cannot_be_says_why(argv: tuple[str, ...], said: str) -> None:
    failed = hyperpd("hub", "serve-local", "tiny-cpu-1p1d", *SETTINGS, *argv)
    assert (failed.returncode, said in failed.stderr, "Traceback" in failed.stderr) == (2, True, False), failed.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = hyperpd("hub", "serve-local", "tiny-cpu-1p1d", *SETTINGS, "--port", str(port))
    assert (failed.returncode, f"127.0.0.1:{port}: Address already in use" in failed.stderr) == (2, True)
