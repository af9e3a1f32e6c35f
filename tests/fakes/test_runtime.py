"""The stand-in for sagemaker-runtime, as stock boto3 sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import ClientError, EventStreamError

from hyperpd.sse import Decoder
from tests.fakes import wire
from tests.fakes.runtime import BODY_BYTES, Runtime, message

ONCE = Config(retries={"total_max_attempts": 1})
EVENTS = ['{"choices": [{"text": "grüße 🙂"}]}', *(f'{{"choices": [{{"text": "{n}"}}]}}' for n in range(20)), "[DONE]"]
STREAM = "".join(f"data: {event}\n\n" for event in EVENTS).encode()


class Container:
    """Answers with the same bytes; keeps what it was asked."""

    def __init__(self) -> None:
        self.answer = wire.Answer(200, {"Content-Type": "text/event-stream"}, STREAM)
        self.asked: list[wire.Request] = []
        self.proceed = threading.Event()
        self.proceed.set()

    def __call__(self, request: wire.Request) -> wire.Answer:
        self.asked.append(request)
        assert self.proceed.wait(30)
        return self.answer


@pytest.fixture
def container() -> Container:
    return Container()


@pytest.fixture
def runtime(container: Container) -> Iterator[Runtime]:
    with wire.serve(container) as url, Runtime({"tiny": url}) as runtime:
        yield runtime
        container.proceed.set()


def invoke(runtime: Runtime, body: bytes = b"{}", **given: Any) -> Any:
    return runtime.client(config=ONCE).invoke_endpoint(EndpointName="tiny", Body=body, **given)


def stream(runtime: Runtime) -> Any:
    return runtime.client(config=ONCE).invoke_endpoint_with_response_stream(EndpointName="tiny", Body=b"{}")


def read(answer: Any) -> list[bytes]:
    """The parts of a stream; closes it."""
    with closing(answer["Body"]) as body:
        return [event["PayloadPart"]["Bytes"] for event in body]


def test_a_whole_answer(runtime: Runtime, container: Container) -> None:
    container.answer = wire.Answer(200, {"Content-Type": "application/json"}, b'{"a": 1}')
    answer = invoke(runtime, b'{"b": 2}', CustomAttributes="route=/v1/completions", SessionId="s1", InferenceId="i1")
    assert (answer["Body"].read(), answer["ContentType"]) == (b'{"a": 1}', "application/json")
    (asked,) = container.asked
    assert (asked.path, asked.body) == ("/invocations", b'{"b": 2}')
    theirs = {name: value for name, value in asked.headers.items() if name.startswith("x-am")}
    assert theirs == {
        "x-amzn-sagemaker-custom-attributes": "route=/v1/completions",
        "x-amzn-sagemaker-session-id": "s1",
    }


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_cut_anywhere_and_add_up(container: Container, seed: int) -> None:
    with wire.serve(container) as url, Runtime({"tiny": url}, seed=seed) as runtime:
        answer = stream(runtime)
        parts = read(answer)
    assert answer["ContentType"] == "text/event-stream"
    assert b"".join(parts) == STREAM
    decoder = Decoder()
    assert [event for part in parts for event in decoder.feed(part)] == EVENTS


def test_some_seed_cuts_a_character(container: Container) -> None:
    def cut(part: bytes) -> bool:
        try:
            part.decode()
        except UnicodeDecodeError:
            return True
        return False

    container.answer = wire.Answer(200, {"Content-Type": "text/event-stream"}, "data: 🙂🙂🙂🙂\n\n".encode())
    seen = set()
    for seed in range(5):
        with wire.serve(container) as url, Runtime({"tiny": url}, seed=seed) as runtime:
            seen |= set(map(cut, read(stream(runtime))))
    assert True in seen


@pytest.mark.parametrize("kind", ["ModelStreamError", "InternalStreamFailure"])
def test_an_exception_in_the_stream(runtime: Runtime, kind: str) -> None:
    runtime.breaks = kind
    with pytest.raises(EventStreamError) as caught:
        read(stream(runtime))
    assert caught.value.response["Error"]["Code"] == kind


def test_a_wrong_checksum_is_seen(runtime: Runtime) -> None:
    runtime.breaks = "corrupt"
    with pytest.raises(ChecksumMismatch):
        read(stream(runtime))


def test_framing_is_that_of_botocores_own_parser() -> None:
    from botocore.eventstream import EventStreamBuffer

    buffer = EventStreamBuffer()
    data = message({":message-type": "event", "b": "ü"}, b"payload") + message({}, b"")
    for index in range(len(data)):
        buffer.add_data(data[index : index + 1])
    first, second = buffer
    assert (first.headers, first.payload) == ({":message-type": "event", "b": "ü"}, b"payload")
    assert (second.headers, second.payload) == ({}, b"")


@pytest.mark.parametrize("ask", [invoke, stream])
def test_a_containers_error_is_a_model_error(runtime: Runtime, container: Container, ask: Any) -> None:
    said = json.dumps({"error": {"message": "no", "code": "invalid_field"}})
    container.answer = wire.Answer(400, {"Content-Type": "application/json"}, said.encode())
    with pytest.raises(ClientError) as caught:
        ask(runtime)
    response = caught.value.response
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", 400)
    assert (response["OriginalMessage"], response["ResponseMetadata"]["HTTPStatusCode"]) == (said, 424)


@pytest.mark.parametrize("ask", [invoke, stream])
def test_sixty_seconds(runtime: Runtime, container: Container, ask: Any) -> None:
    container.proceed.clear()
    with ThreadPoolExecutor(1) as beside:
        asking = beside.submit(ask, runtime)
        while not container.asked:
            assert not asking.done()
        runtime.advance(59)
        assert not asking.done()
        runtime.advance(1)
        error = asking.exception()
        container.proceed.set()
    assert isinstance(error, ClientError)
    assert error.response["OriginalStatusCode"] == 0
    assert "timed out while waiting" in str(error)


def test_six_mebibytes(runtime: Runtime, container: Container) -> None:
    invoke(runtime, b" " * BODY_BYTES)["Body"].read()
    with pytest.raises(ClientError, match=f"less than or equal to {BODY_BYTES}"):
        invoke(runtime, b" " * (BODY_BYTES + 1))
    assert len(container.asked) == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"EndpointName": "other"}, "ValidationError"),
        ({"CustomAttributes": "x" * 1025}, "ValidationError"),
        ({"SessionId": "not a session"}, "ValidationError"),
    ],
)
def test_a_wrong_request_is_refused(runtime: Runtime, container: Container, given: Any, code: str) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.client(config=ONCE).invoke_endpoint(**({"EndpointName": "tiny", "Body": b"{}"} | given))
    assert (caught.value.response["Error"]["Code"], container.asked) == (code, [])


@pytest.mark.parametrize(
    "given", [{"config": ONCE.merge(Config(signature_version=UNSIGNED))}, {"region_name": "eu-west-1", "config": ONCE}]
)
def test_who_does_not_sign_is_refused(runtime: Runtime, container: Container, given: Any) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.client(**given).invoke_endpoint(EndpointName="tiny", Body=b"{}")
    assert (caught.value.response["ResponseMetadata"]["HTTPStatusCode"], container.asked) == (403, [])


def test_throttled(runtime: Runtime, container: Container) -> None:
    runtime.throttles = 1
    with pytest.raises(ClientError, match="ThrottlingException"):
        invoke(runtime)
    invoke(runtime)
    assert len(container.asked) == 1


def test_the_environment_leads_there(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in runtime.environment().items():
        monkeypatch.setenv(name, value)
    client = boto3.Session().client("sagemaker-runtime", config=ONCE)
    assert client.invoke_endpoint(EndpointName="tiny", Body=b"{}")["Body"].read() == STREAM
