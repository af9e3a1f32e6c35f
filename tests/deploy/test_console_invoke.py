"""The function that asks the endpoint: run from the template's text, by boto3, against a stand-in of SageMaker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.deploy.console_stacks import ACCOUNT, GIVEN, REGION, Stack, statements, templates, texts

NAME = "gpt-oss-120b-p6-b200-4p1d"
ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/hyperpd-endpoint"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Name three rivers."}]}


class Runtime(ThreadingHTTPServer):
    """InvokeEndpoint of one endpoint, whose container answers `status` and `answer`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.answer = 200, json.dumps({"choices": [{"message": {"content": "Rhine"}}]})
        self.asked: list[Any] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """As the API's model has it: errors of a container are ModelError, 424."""

    server: Runtime

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(json.loads(body))
        signed = self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256")
        if self.path != "/endpoints/hyperpd-endpoint/invocations" or not signed:
            self._answer(400, {"message": f"no {self.path}"}, "ValidationError")
        elif self.headers["Content-Type"] != "application/json":
            self._answer(415, {"message": "no JSON"}, "ValidationError")
        elif self.server.status == 200:
            self._answer(200, json.loads(self.server.answer))
        else:
            said = {"OriginalStatusCode": self.server.status, "OriginalMessage": self.server.answer}
            self._answer(424, {"message": "Received error from the container", **said}, "ModelError")

    def _answer(self, status: int, body: Any, kind: str = "") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        if kind:
            self.send_header("x-amzn-ErrorType", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def runtime(monkeypatch) -> Iterator[Runtime]:
    made = Runtime()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{made.server_address[1]}")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("ENDPOINT", "hyperpd-endpoint")
    yield made
    made.shutdown()
    made.server_close()


def _resources() -> dict[str, Any]:
    return Stack(templates(NAME, "eks")["2-endpoint.yaml"], GIVEN).resources()


def _asked(body: Any) -> Any:
    """What Lambda would call, out of the template."""
    function = _resources()["Ask"]["Properties"]
    names: dict[str, Any] = {"__name__": "index"}
    exec(compile(function["Code"]["ZipFile"], "index.py", "exec"), names)
    return names[function["Handler"].removeprefix("index.")](body, None)


def test_the_answer_is_the_containers(runtime):
    assert _asked(BODY) == {"status": 200, "answer": {"choices": [{"message": {"content": "Rhine"}}]}}
    assert runtime.asked == [BODY]


@pytest.mark.parametrize("said", ['{"error": {"message": "no worker"}}', "no worker"])
def test_a_refusal_of_the_container_is_shown_and_not_asked_again(said, runtime):
    runtime.status, runtime.answer = 503, said
    answer = json.loads(said) if said.startswith("{") else said
    assert _asked(BODY) == {"status": 503, "answer": answer}
    assert len(runtime.asked) == 1


def test_what_sagemaker_itself_refuses_is_an_error_of_the_function(runtime, monkeypatch):
    monkeypatch.setenv("ENDPOINT", "other")
    with pytest.raises(Exception, match="no /endpoints/other/invocations"):
        _asked(BODY)


def test_it_may_ask_this_endpoint_and_nothing_else():
    made = _resources()
    found = {one["Sid"]: (one["Action"], one["Resource"]) for one in statements(made["AskRole"])}
    assert set(found) == {"AskEndpoint", "Logs"}
    assert found["AskEndpoint"] == (["sagemaker:InvokeEndpoint"], [ARN])
    variables = made["Ask"]["Properties"]["Environment"]["Variables"]
    assert variables == {"ENDPOINT": "hyperpd-endpoint"}
    assert made["Ask"]["Properties"]["FunctionName"] == "hyperpd"  # that of its stack


def test_the_page_ends_5a_as_it_ends_on_a_cluster():
    """With the same clicks on a function of the stack's name; nothing of SageMaker's pages."""
    said = texts(NAME, "eks")["console.md"]
    alone, served = said.partition("## 5a.")[2].partition("## 5b.")[0], said.partition("## 6.")[2]
    for part, stack in ((alone, "hyperpd-endpoint"), (served, "hyperpd-serve")):
        clicks = part.partition("1. Open ")[2].partition("[unverified]")[0]
        assert clicks.partition("\n")[0].endswith(f"#/functions/{stack}?tab=testing")
        assert clicks.partition("\n")[2].startswith("2. Test event, Create new event, Event name `ask`, Event JSON:")
    assert "Studio" not in said
