"""`hyperpd invoke` as a user types it, to a gateway's URL and to an endpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from hyperpd.sse import encode
from tests.fakes import wire
from tests.fakes.runtime import Runtime

HYPERPD = [sys.executable, "-c", "from hyperpd.cli.main import main; main()", "invoke"]
TEXTS = ["grüße ", "🙂"]


class Backend:
    """A gateway's answers to one prompt, over both paths."""

    def __init__(self) -> None:
        self.asked: list[wire.Request] = []
        self.answers: list[wire.Answer] = []  # before the usual one
        self.ask = threading.Event()
        self.proceed = threading.Event()
        self.proceed.set()

    def __call__(self, request: wire.Request) -> wire.Answer:
        if request.path == "/v1/models":
            return _json(200, {"data": [{"id": "tiny"}]})
        self.asked.append(request)
        self.ask.set()
        self.proceed.wait(30)
        if self.answers:
            return self.answers.pop(0)
        body = json.loads(request.body)
        if body.get("stream"):
            events = [json.dumps({"choices": [{"text": text}]}) for text in TEXTS]
            return wire.Answer(200, {"Content-Type": "text/event-stream"}, b"".join(map(encode, [*events, "[DONE]"])))
        if "messages" in body:
            return _json(200, {"choices": [{"message": {"content": "chat"}}]})
        return _json(200, {"choices": [{"text": "".join(TEXTS)}]})


def _json(status: int, body: object, **headers: str) -> wire.Answer:
    return wire.Answer(status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode())


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.proceed.set()


@pytest.fixture
def url(backend: Backend) -> Iterator[str]:
    with wire.serve(backend) as url:
        yield url


@pytest.fixture
def runtime(url: str) -> Iterator[Runtime]:
    with Runtime({"tiny": url}) as runtime:
        yield runtime


def invoke(*argv: str, told: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HYPERPD, *argv], capture_output=True, text=True, input=told, env=os.environ | environment, timeout=60
    )


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        (["hello"], "grüße 🙂\n"),
        (["hello", "--stream"], "grüße 🙂\n"),
        (["hello", "--chat"], "chat\n"),
        (["-"], "grüße 🙂\n"),
    ],
)
@pytest.mark.parametrize("way", ["url", "endpoint"])
def test_both_ways(backend: Backend, url: str, runtime: Runtime, way: str, argv: list[str], out: str) -> None:
    to = ["--url", url] if way == "url" else ["--endpoint", "tiny", "--region", "us-east-2"]
    ran = invoke(*argv, *to, told="from stdin\n", **runtime.environment())
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, out, "")
    body = json.loads(backend.asked[0].body)
    prompt = body["messages"][0]["content"] if "messages" in body else body["prompt"]
    assert prompt == ("from stdin\n" if argv == ["-"] else "hello")
    assert len(runtime.calls) == (way == "endpoint")


def test_json_and_session(url: str, runtime: Runtime) -> None:
    ran = invoke("x", "--endpoint", "tiny", "--session", "s1", "--json", **runtime.environment())
    assert json.loads(ran.stdout)["choices"][0]["text"] == "grüße 🙂"
    assert runtime.calls[0].members["SessionId"] == "s1"


def test_what_failed_has_its_request_and_a_next_step(backend: Backend, url: str, runtime: Runtime) -> None:
    backend.answers = [_json(503, {"error": {"message": "no worker", "request_id": "r1"}}) for _ in range(6)]
    for to, step in ((["--url", url], "hyperpd status"), (["--endpoint", "tiny"], "aws sagemaker describe-endpoint")):
        ran = invoke("secret", *to, **runtime.environment())
        assert (ran.returncode, ran.stdout) == (5, "")
        *again, error, tried = ran.stderr.splitlines()
        assert [line.partition(";")[0] for line in again] == ["no worker (request r1)"] * 2
        assert (error, tried[: 5 + len(step)]) == ("error: no worker (request r1)", f"try: {step}")
        assert "secret" not in ran.stderr


def test_a_stream_that_breaks_ends_its_line(backend: Backend, url: str) -> None:
    begun = encode('{"choices": [{"text": "a"}]}')
    backend.answers = [wire.Answer(200, {"Content-Type": "text/event-stream"}, begun)]
    ran = invoke("x", "--stream", "--url", url)
    assert (ran.returncode, ran.stdout) == (5, "a\n")
    assert "before its last event" in ran.stderr
    assert "(request " in ran.stderr


@pytest.mark.parametrize("way", ["url", "endpoint"])
def test_ctrl_c(backend: Backend, url: str, runtime: Runtime, way: str) -> None:
    backend.proceed.clear()
    to = ["--url", url] if way == "url" else ["--endpoint", "tiny"]
    process = subprocess.Popen(
        [*HYPERPD, "x", *to],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | runtime.environment(),
    )
    assert backend.ask.wait(30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.lstrip()) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(
    ("argv", "wrong"),
    [
        (["x", "--stream", "--json"], ["--stream", "--json"]),
        (["x", "--endpoint", "e", "--url", "http://u", "--key-file", __file__], ["--url", "--key-file"]),
        (["x", "--region", "r", "--session", "s"], ["--region and --session"]),
        (["-", "--url", "http://u"], ["empty"]),
        (["x", "--url", "gateway:8080"], ["'gateway:8080' is no gateway's"]),
    ],
)
def test_what_does_not_go_together(argv: list[str], wrong: list[str]) -> None:
    ran = invoke(*argv)
    assert ran.returncode == 2
    assert [word for word in wrong if word not in ran.stderr] == []


NO_TEXT = "no text: it was still reasoning, or calls a tool; more --max-tokens, or --json shows all\n"


@pytest.mark.parametrize(
    ("argv", "answer", "out"),
    [
        (["--chat"], _json(200, {"choices": [{"message": {"content": None, "reasoning": "hm"}}]}), ""),
        (["--chat"], _json(200, {"choices": [{"message": {"tool_calls": []}}]}), ""),
        (
            ["--chat", "--stream"],
            wire.Answer(
                *(200, {"Content-Type": "text/event-stream"}),
                encode('{"choices": [{"delta": {"reasoning": "hm"}}]}') + encode("[DONE]"),
            ),
            "\n",
        ),
    ],
)
def test_an_answer_without_text(backend: Backend, url: str, argv: list[str], answer: wire.Answer, out: str) -> None:
    backend.answers = [answer]
    ran = invoke("x", *argv, "--url", url)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, out, NO_TEXT)


@pytest.mark.parametrize("said", [{}, {"choices": []}, {"choices": [{}]}, {"choices": None}])
@pytest.mark.parametrize("argv", [[], ["--chat"]])
def test_an_answer_that_is_no_completion(backend: Backend, url: str, argv: list[str], said: object) -> None:
    backend.answers = [_json(200, said)]
    ran = invoke("x", *argv, "--url", url)
    assert (ran.returncode, ran.stdout) == (5, "")
    assert ran.stderr.startswith(f"error: {url} does not speak OpenAI's API: ")
    assert "--json shows" in ran.stderr
