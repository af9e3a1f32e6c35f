"""Endpoints of the SageMaker SDK, asked by hyperpd and by the SDK itself; the real one has an environment of its own
(make sdk-test)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from hyperpd import sagemaker
from hyperpd.errors import RecipeError
from hyperpd.sse import encode
from tests.fakes import wire
from tests.fakes.gate import ACCOUNT, REGION
from tests.fakes.hyperpod import Control
from tests.fakes.runtime import Runtime

SDK = Path(__file__).resolve().parents[2] / "sdk"
# argv: a body of a completion. Prints what was read, by whom.
ASK = """
import json, sys
import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant
from hyperpd import sagemaker

session = boto3.Session()
role = "arn:aws:iam::111122223333:role/ours"
image = "111122223333.dkr.ecr.us-east-2.amazonaws.com/hyperpd:1"
Model.create(
    model_name="tiny", execution_role_arn=role, primary_container=ContainerDefinition(image=image), session=session
)
variant = ProductionVariant(
    variant_name="AllTraffic", model_name="tiny", instance_type="ml.p5.48xlarge", initial_instance_count=1
)
EndpointConfig.create(endpoint_config_name="tiny", production_variants=[variant], session=session)
made = Endpoint.create(endpoint_name="tiny", endpoint_config_name="tiny", session=session)
made.wait_for_status("InService", poll=0, timeout=60)

body = json.loads(sys.argv[1])
said = {name: value for name, value in body.items() if name != "prompt"}
with sagemaker.client(made, attributes={"tenant": "a"}) as client:
    ours = client.complete(body["prompt"], **said)["choices"][0]["text"]
    streamed = "".join(client.stream(body["prompt"], **said))

content = {"content_type": "application/json", "custom_attributes": "route=/v1/completions"}
theirs = json.loads(made.invoke(body=json.dumps(body), **content).body.read())["choices"][0]["text"]

try:  # sends the request, and cannot hand its answer over
    made.invoke_with_response_stream(body=json.dumps({**body, "stream": True}), **content)
    streams = "works"
except AttributeError as error:
    streams = str(error)
print(json.dumps({"ours": ours, "ours_streamed": streamed, "theirs": theirs, "its stream": streams}))
"""
needs_sdk = pytest.mark.skipif(
    "SAGEMAKER_SDK_PYTHON" not in os.environ, reason="SAGEMAKER_SDK_PYTHON: none with sagemaker-core"
)


def ask(runtime: Runtime, control: Control, body: dict[str, Any]) -> dict[str, str]:
    """What the real SDK's endpoint says to it, by reader."""
    there = {"AWS_ENDPOINT_URL_SAGEMAKER": control.url, **runtime.environment()}
    command = [os.environ["SAGEMAKER_SDK_PYTHON"], "-c", ASK, json.dumps(body)]
    environment = {**os.environ, "PYTHONPATH": str(SDK), **there}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    said: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    # sagemaker-core 2.27.0; where this fails, the SDK has learned to stream: read it here, too.
    assert said.pop("its stream") == "'EventStream' object has no attribute 'get'"
    return said


def answer(request: wire.Request) -> wire.Answer:
    if not json.loads(request.body).get("stream"):
        body = {"choices": [{"text": "grüße 🙂"}]}
        return wire.Answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
    events = [json.dumps({"choices": [{"text": text}]}, ensure_ascii=False) for text in ("grüße", " ", "🙂")]
    return wire.Answer(200, {"Content-Type": "text/event-stream"}, b"".join(map(encode, [*events, "[DONE]"])))


@needs_sdk
def test_the_real_sdks_endpoint_says_the_same_to_everyone() -> None:
    with wire.serve(answer) as url, Runtime({"tiny": url}) as runtime, Control() as control:
        said = ask(runtime, control, {"prompt": "hello", "max_tokens": 4})
    assert set(said.values()) == {"grüße 🙂"}
    assert said.keys() == {"ours", "ours_streamed", "theirs"}
    assert [call.members["CustomAttributes"] for call in runtime.calls] == [
        *["route=/v1/completions,tenant=a"] * 2,
        *["route=/v1/completions"] * 2,
    ]


def test_its_session_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    session = boto3.Session(aws_access_key_id="AKIASTANDIN0000000000", aws_secret_access_key="stand-in")
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/tiny"
    resource = SimpleNamespace(endpoint_name="tiny", endpoint_arn=arn, _session=session, _region=None)
    with wire.serve(answer) as url, Runtime({"tiny": url}) as runtime:
        for name, value in runtime.environment().items():
            monkeypatch.setenv(name, value if "URL" in name else "other")
        with sagemaker.client(resource, session_id="s1") as client:
            assert "".join(client.stream("hello")) == "grüße 🙂"
    assert [(call.endpoint, call.members["SessionId"]) for call in runtime.calls] == [("tiny", "s1")]


def test_no_endpoint() -> None:
    with pytest.raises(RecipeError, match="SimpleNamespace has no endpoint_name"):
        sagemaker.client(SimpleNamespace())
