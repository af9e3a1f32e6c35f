"""The client over a SageMaker endpoint: stand-in for the runtime, our gateway behind it, fake engines behind that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from hyperpd import errors
from hyperpd.client import AsyncClient, Client, Endpoint, Retries, Retry, Timeouts
from tests.container.stack import Stack, running, tiny, until
from tests.fakes import wire
from tests.fakes.gate import Disconnected
from tests.fakes.runtime import BODY_BYTES, Runtime

QUICK = Retries(first_pause_s=0.0)
CHAT = [{"role": "user", "content": "hello"}]


@dataclass
class Hosted:
    stack: Stack
    runtime: Runtime

    def client(self, endpoint: str = "tiny", retries: Retries = QUICK, **said: Any) -> AsyncClient:
        return AsyncClient(Endpoint(endpoint, **said), retries=retries)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return monkeypatch


@contextlib.asynccontextmanager
async def hosting(aws: pytest.MonkeyPatch, seed: int = 0) -> AsyncIterator[Hosted]:
    async with running(tiny()) as stack:
        with Runtime({"tiny": str(stack.http.base_url)}, seed=seed) as runtime:
            for name, value in runtime.environment().items():
                aws.setenv(name, value)
            yield Hosted(stack, runtime)
            for engine in (stack.prefill, stack.decode):
                engine.proceed.set()


async def read(pieces: AsyncIterator[str], seen: list[str]) -> None:
    async for text in pieces:
        seen.append(text)


@pytest.fixture
async def hosted(aws: pytest.MonkeyPatch) -> AsyncIterator[Hosted]:
    async with hosting(aws) as hosted:
        yield hosted


@pytest.mark.parametrize("seed", range(6))
async def test_text_is_that_of_the_gateways_url(aws: pytest.MonkeyPatch, seed: int) -> None:
    prompt = "grüße 🙂"
    async with (
        hosting(aws, seed) as hosted,
        hosted.client() as client,
        AsyncClient(str(hosted.stack.http.base_url)) as other,
    ):
        assert "".join([text async for text in client.stream(prompt)]).strip() == f"after {prompt}"
        assert [text async for text in client.stream(prompt)] == [text async for text in other.stream(prompt)]
        assert [text async for text in client.stream_chat(CHAT)] == [text async for text in other.stream_chat(CHAT)]
        whole, theirs = await client.complete(prompt), await other.complete(prompt)
        assert whole["choices"] == theirs["choices"]
        assert (await client.chat(CHAT))["choices"] == (await other.chat(CHAT))["choices"]
        assert [call.operation for call in hosted.runtime.calls].count("InvokeEndpointWithResponseStream") == 3


async def test_who_does_not_await(hosted: Hosted) -> None:
    def ask() -> tuple[str, Any]:
        with Client(Endpoint("tiny")) as client:
            return "".join(client.stream("hello")).strip(), client.complete("hello")["choices"][0]["text"]

    assert await asyncio.to_thread(ask) == ("after hello", "after hello")


async def test_what_is_said_beside_the_body(hosted: Hosted) -> None:
    async with hosted.client(session_id="s1", attributes={"tenant": "a"}, TargetVariant="AllTraffic") as client:
        with pytest.raises(errors.Rejected, match="sessions are not kept") as caught:  # it did arrive
            await client.chat(CHAT)
    assert caught.value.code == "no_sessions"
    assert caught.value.request_id
    assert caught.value.request_id in str(caught.value)
    (call,) = hosted.runtime.calls
    assert call.members == {
        "CustomAttributes": "route=/v1/chat/completions,tenant=a",
        "SessionId": "s1",
        "TargetVariant": "AllTraffic",
    }


@pytest.mark.parametrize("attributes", [{"route": "/x"}, {"a": "b,c"}, {"a=": "b"}, {"ü": "b"}])
def test_attributes_that_cannot_be_said(attributes: dict[str, str]) -> None:
    with pytest.raises(errors.RecipeError, match="cannot be said"):
        Endpoint("tiny", attributes=attributes)


@pytest.mark.parametrize(
    ("breaks", "code"),
    [
        ("ModelStreamError", "model_stream_error"),
        ("InternalStreamFailure", "internal_stream_failure"),
        ("cut", "connection_lost"),
        ("corrupt", "connection_lost"),
    ],
)
async def test_a_stream_that_breaks_is_an_error_and_is_not_repeated(hosted: Hosted, breaks: str, code: str) -> None:
    hosted.runtime.breaks = breaks
    async with hosted.client() as client:
        with pytest.raises(errors.RequestError) as caught:
            await read(client.stream("secret"), [])
    assert (caught.value.code, caught.value.request_id) == (code, "stand-in-1")
    assert "stand-in-1" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (client.retried, len(hosted.runtime.calls)) == (0, 1)


async def test_a_stream_that_ends_early_is_an_error(aws: pytest.MonkeyPatch) -> None:
    begun = wire.Answer(200, {"Content-Type": "text/event-stream"}, b'data: {"choices": [{"text": "a"}]}\n\n')
    with wire.serve(lambda _: begun) as url, Runtime({"tiny": url}) as runtime:
        for name, value in runtime.environment().items():
            aws.setenv(name, value)
        async with AsyncClient(Endpoint("tiny")) as client:
            seen: list[str] = []
            with pytest.raises(errors.DecodeFailed) as caught:
                await read(client.stream("hello"), seen)
    assert (seen, caught.value.code, len(runtime.calls)) == (["a"], "stream_cut", 1)


@pytest.mark.parametrize("streamed", [False, True])
async def test_sixty_seconds_are_explained_and_not_repeated(hosted: Hosted, streamed: bool) -> None:
    hosted.stack.decode.fault = "hang"
    async with hosted.client() as client:
        pieces = client.stream("hello")
        asking = asyncio.ensure_future(anext(pieces) if streamed else client.complete("hello"))
        await until(hosted.stack.decode.arrived.is_set)
        hosted.runtime.advance(60)
        with pytest.raises(errors.RequestError, match="60 s") as caught:
            await asking
    assert (caught.value.status, caught.value.code) == (504, "sagemaker_timeout")
    assert ("try: streaming" in str(caught.value)) is not streamed
    assert len(hosted.runtime.calls) == 1


async def test_a_container_that_hangs_up(aws: pytest.MonkeyPatch) -> None:
    with wire.serve(hang_up) as url, Runtime({"tiny": url}) as runtime:
        for name, value in runtime.environment().items():
            aws.setenv(name, value)
        async with AsyncClient(Endpoint("tiny"), retries=Retries(attempts=1)) as client:
            with pytest.raises(errors.DecodeFailed, match=r"server error \(0\)") as caught:
                await client.complete("hello")
    assert caught.value.code == "model_error"


def hang_up(_: wire.Request) -> wire.Answer:
    raise Disconnected


async def test_eight_minutes_are_explained(hosted: Hosted) -> None:
    hosted.stack.decode.fault = "slow"
    async with hosted.client() as client:
        pieces = client.stream("hello")
        assert await anext(pieces)
        hosted.runtime.advance(480)
        with pytest.raises(errors.DecodeFailed, match="bounds how long") as caught:
            await anext(pieces)
    assert caught.value.code == "model_stream_error"


async def test_six_mebibytes_are_explained(hosted: Hosted) -> None:
    async with hosted.client() as client:
        with pytest.raises(errors.Rejected, match=r"6,291,456 \(6 MiB\)") as caught:
            await client.complete("x" * BODY_BYTES)
    assert (caught.value.status, caught.value.code) == (413, "payload_too_large")


@pytest.mark.parametrize("listens", [True, False])
async def test_throttled(hosted: Hosted, caplog: pytest.LogCaptureFixture, listens: bool) -> None:
    hosted.runtime.throttles = 1
    told: list[Retry] = []
    # SageMaker says no Retry-After; a second is the client's own.
    async with AsyncClient(Endpoint("tiny"), on_retry=told.append if listens else None) as client:
        with caplog.at_level(logging.DEBUG, "hyperpd"):
            assert (await client.complete("secret"))["choices"][0]["text"] == "after secret"
    logged = [one.getMessage() for one in caplog.records if one.name == "hyperpd.client"]
    if listens:
        assert [(one.attempt, type(one.error)) for one in told] == [(1, errors.Overloaded)]
        assert logged == []
    else:
        assert [line.rpartition(" ")[0] for line in logged] == [
            "request=stand-in-1 attempt=1 status=429 code=ThrottlingException"
        ]
    assert (client.retried, "secret" in caplog.text) == (1, False)


async def test_the_containers_error_is_the_gateways(hosted: Hosted) -> None:
    hosted.stack.prefill.fault = hosted.stack.decode.fault = "busy"
    async with hosted.client() as client:
        with pytest.raises(errors.RequestError, match="describe-endpoint --endpoint-name tiny") as caught:
            await client.complete("hello")
        assert len(hosted.runtime.calls) == 3  # 5xx before anything began
        assert caught.value.request_id
        with pytest.raises(errors.Rejected, match="no_such") as rejected:
            await client.complete("hello", no_such=1)
    assert rejected.value.status == 400
    assert len(hosted.runtime.calls) == 4


@pytest.mark.parametrize("fault", ["", "slow"])
async def test_leaving_ends_the_request_upstream(hosted: Hosted, fault: str) -> None:
    """Also where nothing comes that would wake who reads."""
    hosted.stack.decode.fault = fault
    hosted.stack.decode.pause_s = 1.0
    async with hosted.client() as client:
        async with contextlib.aclosing(client.stream("hello")) as pieces:
            assert await anext(pieces)
        await asyncio.wait_for(hosted.stack.decode.aborted.wait(), 30)
        await until(lambda: hosted.runtime.running == 0)


async def test_nothing_within_first_token_s(hosted: Hosted) -> None:
    async with AsyncClient(Endpoint("tiny"), timeouts=Timeouts(first_token_s=0.3)) as client:
        await client.complete("hello")  # makes boto3's client
        hosted.stack.decode.fault = "hang"
        with pytest.raises(errors.RequestError, match=r"first_token_s, 0\.3 s") as caught:
            await anext(client.stream("hello"))
    assert (caught.value.code, len(hosted.runtime.calls)) == ("timeout", 2)


async def test_where_there_is_no_such_endpoint(hosted: Hosted) -> None:
    async with hosted.client("other") as client:
        with pytest.raises(errors.Rejected, match="list-endpoints") as caught:
            await client.complete("hello")
    assert (caught.value.status, caught.value.code) == (404, "endpoint_not_found")


async def test_who_may_not(hosted: Hosted, aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    async with hosted.client() as client:
        with pytest.raises(errors.Rejected, match="sagemaker:InvokeEndpoint") as caught:
            await client.complete("hello")
    assert caught.value.status == 403


async def test_without_credentials(hosted: Hosted, aws: pytest.MonkeyPatch) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    async with hosted.client() as client:
        with pytest.raises(errors.CloudError, match="aws configure"):
            await client.complete("hello")


async def test_without_a_region(aws: pytest.MonkeyPatch) -> None:
    aws.delenv("AWS_DEFAULT_REGION", raising=False)
    aws.delenv("AWS_REGION", raising=False)
    async with AsyncClient(Endpoint("tiny")) as client:
        with pytest.raises(errors.CloudError, match="--region"):
            await client.complete("hello")


async def test_nobody_there(aws: pytest.MonkeyPatch) -> None:
    with Runtime({}) as runtime:
        for name, value in runtime.environment().items():
            aws.setenv(name, value)
    async with AsyncClient(Endpoint("tiny"), retries=QUICK) as client:
        with pytest.raises(errors.RequestError) as caught:
            await client.complete("hello")
    assert (caught.value.code, client.retried) == ("unreachable", 2)


async def test_what_needs_a_url(aws: pytest.MonkeyPatch) -> None:
    async with AsyncClient(Endpoint("tiny")) as client:
        with pytest.raises(errors.Rejected, match="gateway's URL"):
            await client.models()
        with pytest.raises(errors.RecipeError, match="gateway's URL"):
            client.as_openai()
    with pytest.raises(errors.RecipeError, match="api_key"):
        AsyncClient(Endpoint("tiny"), api_key="k")


async def test_without_the_extra(aws: pytest.MonkeyPatch) -> None:
    aws.setitem(sys.modules, "boto3", None)
    async with AsyncClient(Endpoint("tiny")) as client:
        with pytest.raises(errors.NotReady, match=r"pip install 'hyperpd\[aws\]'"):
            await client.complete("hello")


def test_boto3_is_imported_by_the_first_call_alone() -> None:
    code = "import sys; from hyperpd.client import Client, Endpoint; Client(Endpoint('x')).close(); print(*sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"boto3", "botocore", "openai"} & set(seen) == set()
