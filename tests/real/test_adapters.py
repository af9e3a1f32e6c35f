"""A LoRA adapter through prefill and decode: the text of one aggregated worker, and another than the base model's."""

from __future__ import annotations

import httpx
import pytest

from tests.real import answers
from tests.real.answers import read
from tests.real.fleet import Fleet
from tests.real.prompts import complete, differences, prompt
from tests.real.recipes import ADAPTER

pytestmark = pytest.mark.real
_MESSAGES = [{"role": "user", "content": prompt(300, 8)}]
APIS = {
    "/v1/completions": {"prompt": prompt(300, 7), "max_tokens": 12, "temperature": 0},
    "/v1/chat/completions": {"messages": _MESSAGES, "max_tokens": 12, "temperature": 0},
    "/v1/responses": {"input": prompt(300, 7), "max_output_tokens": 12, "temperature": 0},
    "/v1/messages": {"messages": _MESSAGES, "max_tokens": 12, "temperature": 0},
}


def test_models_and_their_parents(pd: Fleet, http: httpx.Client) -> None:
    listed = http.get(f"{pd.url}/v1/models").json()["data"]
    assert [(entry["id"], entry.get("parent")) for entry in listed] == [("tiny-llama", None), (ADAPTER, "tiny-llama")]
    unknown = http.post(f"{pd.url}/v1/completions", json={"model": "medicine", "prompt": "x"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_an_adapter_on_both_roles(pd: Fleet, aggregated: Fleet, http: httpx.Client) -> None:
    decode, moved_bytes = pd.worker("decode-0"), "vllm:nixl_bytes_transferred_sum"
    for seed, length in enumerate((60, 300, 700)):
        text, before = prompt(length, 8000 + seed), pd.metric(decode, moved_bytes)
        base = complete(http, pd.url, text, logprobs=5)
        between = pd.metric(decode, moved_bytes)
        law = complete(http, pd.url, text, model=ADAPTER, logprobs=5)
        # The same prompt's blocks again: the adapter's are not those of the base model.
        assert pd.metric(decode, moved_bytes) - between == between - before > 0
        assert differences(law, complete(http, aggregated.url, text, model=ADAPTER, logprobs=5)) == []
        assert differences(base, complete(http, aggregated.url, text, logprobs=5)) == []
        assert differences(base, law) != []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", APIS)
def test_an_adapter_in_every_api(pd: Fleet, aggregated: Fleet, http: httpx.Client, path: str, stream: bool) -> None:
    asked = {**APIS[path], "stream": stream}
    law, right, base = (
        read(http.post(fleet.url + path, json={**asked, "model": name}))
        for fleet, name in ((pd, ADAPTER), (aggregated, ADAPTER), (pd, "tiny-llama"))
    )
    assert answers.differences(law, right) == []
    assert answers.differences(law, base) != []


def test_an_adapter_as_sagemaker_names_it(pd: Fleet, http: httpx.Client) -> None:
    component = {"X-Amzn-SageMaker-Adapter-Identifier": ADAPTER}
    asked = {"prompt": prompt(300, 9), "max_tokens": 12, "temperature": 0}
    answer = http.post(f"{pd.url}/invocations", json=asked, headers=component).json()
    assert answer["choices"] == complete(http, pd.url, prompt(300, 9), model=ADAPTER, max_tokens=12)["choices"]
