"""examples/sagemaker-endpoint, run as it is: boto3, and the real SageMaker SDK, against the stand-in of the runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import wire
from tests.fakes.runtime import Runtime

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "sagemaker-endpoint"
EVENTS = ['{"choices": [{"text": "grüße 🙂"}]}', *(f'{{"choices": [{{"text": " {n}"}}]}}' for n in range(9)), "[DONE]"]
SDK = os.environ.get("SAGEMAKER_SDK_PYTHON")


def _answer(request: wire.Request) -> wire.Answer:
    if b'"stream": true' in request.body:
        content = "".join(f"data: {event}\n\n" for event in EVENTS)
        return wire.Answer(200, {"Content-Type": "text/event-stream"}, content.encode())
    return wire.Answer(200, {"Content-Type": "application/json"}, '{"choices": [{"text": "grüße 🙂"}]}'.encode())


@pytest.mark.parametrize(
    ("python", "script"),
    [
        pytest.param(sys.executable, "ask_boto3.py", id="boto3"),
        pytest.param(SDK, "ask_sdk.py", id="real_sdk", marks=pytest.mark.skipif(not SDK, reason="make sdk-test")),
    ],
)
def test_each_script_prints_the_answer_twice(python: str, script: str) -> None:
    with wire.serve(_answer) as url, Runtime({"tiny": url}) as runtime:
        ended = subprocess.run(
            [python, FOLDER / script, "tiny", "m", "Once"],
            env={**os.environ, **runtime.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "grüße 🙂\ngrüße 🙂 0 1 2 3 4 5 6 7 8\n"
