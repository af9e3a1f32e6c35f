"""One client, three ways in, on real engines: whoever reads, reads the tokens of the aggregated worker.

The runtime is a stand-in (tests/fakes/runtime.py), the gateway behind it and the workers are real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config

from hyperpd.client import Client, Endpoint
from hyperpd.errors import Rejected
from hyperpd.sse import Decoder
from tests.fakes.hyperpod import Control
from tests.fakes.runtime import Runtime
from tests.real.fleet import Fleet, until
from tests.real.prompts import complete, prompt
from tests.sdk.test_sagemaker_endpoint_invoke import ask, needs_sdk

pytestmark = pytest.mark.real
OPTIONS: dict[str, Any] = {"max_tokens": 16, "temperature": 0}
PROMPTS = [prompt(60, 9001), prompt(700, 9002), "Grüße 🙂 " * 60]


@pytest.fixture
def runtime(pd: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with Runtime({"tiny": pd.url}, seed=7) as runtime:
        for name, value in runtime.environment().items():
            monkeypatch.setenv(name, value)
        yield runtime


def body(text: str, **options: Any) -> bytes:
    return json.dumps({"model": "tiny-llama", "prompt": text, **OPTIONS, **options}).encode()


@pytest.mark.parametrize("text", PROMPTS, ids=["short", "long", "not ASCII"])
def test_every_reader_reads_the_same_tokens(
    pd: Fleet, aggregated: Fleet, http: httpx.Client, runtime: Runtime, text: str
) -> None:
    (expected,) = complete(http, aggregated.url, text, return_token_ids=True)["choices"]
    assert len(expected["token_ids"]) == 16

    with Client(pd.url) as by_url, Client(Endpoint("tiny")) as by_endpoint:
        for client in (by_url, by_endpoint):
            (choice,) = client.complete(text, **OPTIONS, return_token_ids=True)["choices"]
            assert (choice["token_ids"], choice["text"]) == (expected["token_ids"], expected["text"])
            assert "".join(client.stream(text, **OPTIONS)) == expected["text"]
        with by_url.as_openai() as openai:
            chunks = list(openai.completions.create(model="tiny-llama", prompt=text, stream=True, **OPTIONS))
            assert "".join(chunk.choices[0].text for chunk in chunks) == expected["text"]

    stock = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    whole = stock.invoke_endpoint(EndpointName="tiny", Body=body(text, return_token_ids=True))
    assert json.loads(whole["Body"].read())["choices"][0]["token_ids"] == expected["token_ids"]
    streamed = stock.invoke_endpoint_with_response_stream(
        EndpointName="tiny", Body=body(text, return_token_ids=True, stream=True)
    )
    decoder = Decoder()
    said = [data for event in streamed["Body"] for data in decoder.feed(event["PayloadPart"]["Bytes"])]
    assert said.pop() == "[DONE]"
    choices = [choice for data in said for choice in json.loads(data)["choices"]]
    assert [token for choice in choices for token in choice["token_ids"]] == expected["token_ids"]

    assert [call.operation for call in runtime.calls] == ["InvokeEndpoint", "InvokeEndpointWithResponseStream"] * 2


def test_it_was_disaggregated(pd: Fleet, runtime: Runtime) -> None:
    def counted() -> float:
        return pd.metric(pd.state()["admin_url"], "hyperpd_requests_total", {"mode": "pd", "outcome": "ok"})

    before = counted()
    with Client(Endpoint("tiny")) as client:
        client.complete(prompt(900, 9003), **OPTIONS)
        "".join(client.stream(prompt(900, 9004), **OPTIONS))
    assert counted() - before == 2  # a stream that is read to its end counts as one, too


def test_leaving_a_stream_ends_it_on_the_worker(pd: Fleet, runtime: Runtime) -> None:
    decode = pd.worker("decode-0")
    before = pd.metric(decode, "vllm:generation_tokens_total")
    with Client(Endpoint("tiny")) as client:
        for _ in client.stream(prompt(900, 9005), max_tokens=1000, ignore_eos=True):
            break
        until(lambda: pd.metric(decode, "vllm:num_requests_running") == 0)
    assert 1 <= pd.metric(decode, "vllm:generation_tokens_total") - before < 1000
    assert runtime.running == 0


def test_what_the_gateway_refuses_has_its_request(pd: Fleet, runtime: Runtime) -> None:
    for to in (pd.url, Endpoint("tiny")):
        with Client(to) as client, pytest.raises(Rejected) as caught:
            client.complete("x", no_such_field=1)
        assert caught.value.request_id
        assert caught.value.request_id in pd.log()


@needs_sdk
def test_the_real_sdks_endpoint(aggregated: Fleet, http: httpx.Client, runtime: Runtime) -> None:
    text = prompt(500, 9006)
    expected = complete(http, aggregated.url, text)["choices"][0]["text"]
    with Control() as control:
        assert set(ask(runtime, control, {"prompt": text, **OPTIONS}).values()) == {expected}
