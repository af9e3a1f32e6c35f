"""The requests as they are sent: by the rendered files, to moto; and made wrong in one place each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import httpx
import pytest
from botocore import xform_name
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT_ID
from moto.sagemaker.models import sagemaker_backends
from moto.server import ThreadedMotoServer

from hyperpd import deploy, recipe
from tests.deploy import botocore_shapes
from tests.deploy.test_sagemaker_endpoint import CASES, OPERATIONS

# Mutations that a validator cannot notice, each with why. None is known.
ACCEPTED: dict[str, str] = {}


def loaded(text: str, folder: Path) -> recipe.RecipeFile:
    """A recipe of its own from its text, or a shipped one by name."""
    source = folder / "own.yaml"
    source.write_text(text)
    return recipe.load(source if "\n" in text else text)


def written(name: str, folder: Path) -> Path:
    """A case of the snapshots as files."""
    text, settings = CASES[name]
    file = loaded(text, folder)
    rendering = deploy.render(file, "sagemaker_endpoint", settings)
    out = folder / "rendered"
    out.mkdir()
    for called, content in deploy.texts(rendering, file, settings).items():
        (out / called).write_text(content)
    return out


def for_moto(folder: Path) -> Path:
    """moto's list of instance types ends in 2021: another one, in the configuration alone."""
    for called in ("3-endpoint-config.json", "deploy_sdk.py"):
        text = (folder / called).read_text()
        changed = re.sub(r"ml\.(c7i\.4|g6e\.12|p5\.48)xlarge", "ml.m5.4xlarge", text)
        assert changed != text
        (folder / called).write_text(changed)
    return folder


def requests(folder: Path) -> dict[str, Any]:
    return {operation: json.loads((folder / called).read_text()) for called, operation in OPERATIONS.items()}


@pytest.fixture
def environ(monkeypatch):
    """A moto server, and the environment in which boto3 finds it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-2"}
    env |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    boto3.client("s3").create_bucket(
        Bucket="models-example", CreateBucketConfiguration={"LocationConstraint": "us-east-2"}
    )
    yield {**os.environ, **env}
    httpx.post(f"{env['AWS_ENDPOINT_URL']}/moto-api/reset").raise_for_status()  # its state is the process's
    server.stop()


def keys() -> list[str]:
    return [one["Key"] for one in boto3.client("s3").list_objects_v2(Bucket="models-example").get("Contents", ())]


def made(sent: dict[str, Any]) -> None:
    """What moto has is what was rendered."""
    sagemaker = boto3.client("sagemaker")
    model, config, endpoint = (sent[operation] for operation in OPERATIONS.values())
    found = sagemaker.describe_model(ModelName=model["ModelName"])
    assert found["PrimaryContainer"] == model["PrimaryContainer"]
    assert (found.get("VpcConfig") or None) == model.get("VpcConfig")
    found = sagemaker.describe_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
    (variant,), (wanted,) = found["ProductionVariants"], config["ProductionVariants"]
    assert {key: variant[key] for key in wanted} == wanted
    found = sagemaker.describe_endpoint(EndpointName=endpoint["EndpointName"])
    assert (found["EndpointConfigName"], found["EndpointStatus"]) == (endpoint["EndpointConfigName"], "InService")


@pytest.mark.parametrize("name", CASES)
def test_the_rendered_file_creates_an_endpoint_and_asks_it(name, environ, tmp_path):
    folder = for_moto(written(name, tmp_path))
    sent = requests(folder)
    for _ in range(2):  # the second finds everything there
        ran = subprocess.run([sys.executable, str(folder / "deploy.py")], env=environ, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        waiting, _, billed = ran.stdout.splitlines()
        assert waiting.startswith("waiting for ")
        there = sent["CreateEndpoint"]["EndpointName"]
        assert billed.endswith(f"aws sagemaker delete-endpoint --endpoint-name {there} --region us-east-2")
    made(sent)
    own = "\n" in CASES[name][0]
    if own:  # the container finds there what the author wrote
        source = sent["CreateModel"]["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"]
        told = environment(sent)["HYPERPD_RECIPE"].replace("/opt/ml/model/", source)
        assert [f"s3://models-example/{key}" for key in keys()] == [told]
        stored = boto3.client("s3").get_object(Bucket="models-example", Key=keys()[0])["Body"].read()
        assert stored == (tmp_path / "own.yaml").read_bytes()
    else:
        assert keys() == []


def test_an_endpoint_that_failed_is_said_to_be_deleted_first(environ, tmp_path):
    """With the same configuration nothing would be sent, and it would stay as it is."""
    folder = for_moto(written("endpoint-tiny-cpu-1p1d", tmp_path))
    command = [sys.executable, str(folder / "deploy.py")]
    assert subprocess.run(command, env=environ, capture_output=True).returncode == 0
    for endpoint in sagemaker_backends[ACCOUNT_ID]["us-east-2"].endpoints.values():
        endpoint.endpoint_status = "Failed"
        endpoint.failure_reason = "no capacity"
    ran = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert ran.returncode == 1
    assert " is Failed: no capacity. One that failed stays so; run this again after " in ran.stderr
    assert "aws sagemaker delete-endpoint --endpoint-name tiny-cpu-1p1d --region us-east-2" in ran.stderr


def environment(sent: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = sent["CreateModel"]["PrimaryContainer"]["Environment"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_role_is_a_role(name, environ, tmp_path):
    """moto parses both policies as IAM does."""
    folder = written(name, tmp_path)
    iam = boto3.client("iam")
    iam.create_role(RoleName="hyperpd", AssumeRolePolicyDocument=(folder / "1-role-trust.json").read_text())
    iam.put_role_policy(
        RoleName="hyperpd", PolicyName="hyperpd", PolicyDocument=(folder / "1-role-policy.json").read_text()
    )
    iam.delete_role_policy(RoleName="hyperpd", PolicyName="hyperpd")
    iam.delete_role(RoleName="hyperpd")


class _Recorder:
    """A stand-in of sagemaker.core's resources and shapes: calls become requests, closed against other names."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}
        self.waited = self.asked = False

    def modules(self) -> dict[str, types.ModuleType]:
        names = ("sagemaker", "sagemaker.core", "sagemaker.core.resources", "sagemaker.core.shapes")
        modules = {name: types.ModuleType(name) for name in names}
        for name in ("Model", "EndpointConfig", "Endpoint"):
            setattr(modules["sagemaker.core.resources"], name, self._resource(f"Create{name}"))
        model = botocore.session.get_session().get_service_model("sagemaker")
        for name in model.shape_names:
            shape = model.shape_for(name)
            if shape.type_name == "structure":
                setattr(modules["sagemaker.core.shapes"], name, self._of(shape))
        return modules

    @staticmethod
    def _of(shape: Any) -> Any:
        members = {xform_name(member): member for member in shape.members}
        return lambda **given: {members[key]: value for key, value in given.items()}

    def _resource(self, operation: str) -> Any:
        recorder = self

        class Resource:
            @classmethod
            def create(cls, *, region: str, **given: Any) -> Any:
                assert region == "us-east-2"
                recorder.sent[operation] = recorder._of(botocore_shapes.shape("sagemaker", operation))(**given)
                return cls()

            def wait_for_status(self, status: str, poll: int, timeout: int) -> None:
                recorder.waited = status == "InService" and 0 < poll < timeout

            def invoke(self, body: str, content_type: str, region: str) -> Any:
                recorder.asked = json.loads(body)["max_tokens"] > 0 and content_type == "application/json"
                return types.SimpleNamespace(body=types.SimpleNamespace(read=lambda: b"{}"))

        return Resource


@pytest.mark.parametrize("name", CASES)
def test_the_file_for_the_sdk_sends_the_same(name, environ, tmp_path, monkeypatch):
    folder = written(name, tmp_path)
    recorder = _Recorder()
    for called, module in recorder.modules().items():
        monkeypatch.setitem(sys.modules, called, module)
    code = compile((folder / "deploy_sdk.py").read_text(), str(folder / "deploy_sdk.py"), "exec")
    exec(code, {"__name__": "__main__", "__file__": str(folder / "deploy_sdk.py")})
    assert recorder.sent == requests(folder)
    assert recorder.waited
    assert recorder.asked


# The SDK reads back what it made, and moto says {} where SageMaker says nothing: the SDK takes that for a broken block.
_RUN_SDK = """
import runpy, sys
from botocore.client import BaseClient
call = BaseClient._make_api_call
BaseClient._make_api_call = lambda *words: {key: value for key, value in call(*words).items() if value != {}}
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.skipif("SAGEMAKER_SDK_PYTHON" not in os.environ, reason="SAGEMAKER_SDK_PYTHON: none with sagemaker-core")
@pytest.mark.parametrize("name", CASES)
def test_the_real_sdk_sends_the_same(name, environ, tmp_path):
    """A Python of its own with sagemaker-core 2.27 (450 MB, and it does not go together with the engine)."""
    folder = for_moto(written(name, tmp_path))
    command = [os.environ["SAGEMAKER_SDK_PYTHON"], "-c", _RUN_SDK, str(folder / "deploy_sdk.py")]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    made(requests(folder))


def test_every_mutation_of_every_request_is_noticed(record_property, capsys, tmp_path):
    tried: Counter[str] = Counter()
    seen: set[str] = set()
    missed = []
    for name, (text, settings) in CASES.items():
        found = {
            d.file: d.body for d in deploy.render(loaded(text, tmp_path), "sagemaker_endpoint", settings).documents
        }
        for called, operation in OPERATIONS.items():
            body = found[called]
            if (text := json.dumps(body, sort_keys=True)) in seen:
                continue
            seen.add(text)
            assert botocore_shapes.problems("sagemaker", operation, body) == []
            for each in botocore_shapes.mutations("sagemaker", operation, body):
                tried[each.what] += 1
                noticed = botocore_shapes.problems("sagemaker", operation, each.request)
                if not noticed and str(each) not in ACCEPTED:
                    missed.append(f"{name}, {operation}: {each}")
    with capsys.disabled():
        print(f"\n{len(seen)} requests, mutations tried and noticed: {dict(tried)}, missed: {len(missed)}")
    record_property("mutations", dict(tried))
    assert not missed, "\n".join(missed)
    assert tried["misspell"] > 100
    assert tried["drop"] > 30
    assert tried["value"] > 100
