"""Prefill → decode on the real engines gives what one aggregated engine gives."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from hyperpd import model
from hyperpd.environment import model_path
from hyperpd.recipe import load
from tests.real.fleet import Fleet
from tests.real.prompts import LENGTHS, complete, differences, prompt

pytestmark = pytest.mark.real


def test_twenty_prompts_equal_the_aggregated_worker(pd: Fleet, aggregated: Fleet, http: httpx.Client) -> None:
    before = pd.metric(pd.state()["admin_url"], "hyperpd_requests_total", {"mode": "pd", "outcome": "ok"})
    texts = set()
    for seed, tokens in enumerate(LENGTHS):
        ours = complete(http, pd.url, prompt(tokens, seed), logprobs=5)
        theirs = complete(http, aggregated.url, prompt(tokens, seed), logprobs=5)
        assert differences(ours, theirs) == [], f"{tokens} tokens"
        texts.add(ours["choices"][0]["text"])
    assert len(texts) == 20
    after = pd.metric(pd.state()["admin_url"], "hyperpd_requests_total", {"mode": "pd", "outcome": "ok"})
    assert after - before == 20  # every one of them was disaggregated, none recomputed


def test_a_damaged_transfer_is_seen(pd: Fleet, aggregated: Fleet, http: httpx.Client) -> None:
    """The test that proves the tests: the same comparison fails when the ticket's blocks are permuted."""
    text = prompt(900, seed=77)
    body = {"model": "tiny-llama", "prompt": text, "temperature": 0, "logprobs": 5}
    ask = {"do_remote_decode": True, "do_remote_prefill": False}
    prefilled = http.post(
        f"{pd.worker('prefill-0')}/v1/completions", json={**body, "max_tokens": 1, "kv_transfer_params": ask}
    )
    ticket = prefilled.json()["kv_transfer_params"]
    ticket["remote_block_ids"] = [list(reversed(group)) for group in ticket["remote_block_ids"]]
    # A salt keeps the wrong blocks out of the prefix cache of later tests.
    damaged = http.post(
        f"{pd.worker('decode-0')}/v1/completions",
        json={**body, "max_tokens": 16, "kv_transfer_params": ticket, "cache_salt": "damaged"},
    )
    right = complete(http, aggregated.url, text, logprobs=5)
    assert differences(damaged.json(), right) != []


def test_a_token_near_the_start_changes_what_follows(aggregated: Fleet, http: httpx.Client) -> None:
    for seed in range(5):
        text = prompt(500, 100 + seed)
        other = text[:10] + ("x" if text[10] != "x" else "y") + text[11:]
        assert (
            complete(http, aggregated.url, text)["choices"][0]["text"]
            != complete(http, aggregated.url, other)["choices"][0]["text"]
        )


def test_moved_bytes_and_computed_tokens(pd: Fleet, http: httpx.Client) -> None:
    decode = pd.worker("decode-0")
    file = load("tiny-cpu-1p1d")
    facts = model.load(Path(model_path(file.recipe)), file.recipe.model.dtype)
    tokens = 700

    def read() -> tuple[float, float, float]:
        by_source = "vllm:prompt_tokens_by_source_total"
        return (
            pd.metric(decode, "vllm:nixl_bytes_transferred_sum"),
            pd.metric(decode, by_source, {"source": "external_kv_transfer"}),
            pd.metric(decode, by_source, {"source": "local_compute"}),
        )

    before = read()
    complete(http, pd.url, prompt(tokens, seed=500))
    moved, external, local = (new - old for new, old in zip(read(), before, strict=True))
    assert moved == facts.kv_bytes(tokens, file.recipe.kv_transfer.block_size_tokens)
    # Decode computes the last prompt token again, to sample from it; the engine counts it as transferred.
    assert external + local == tokens
    assert local <= 1


def test_the_first_chunk_comes_before_the_last_is_made(pd: Fleet, http: httpx.Client) -> None:
    decode = pd.worker("decode-0")
    body = {"prompt": prompt(100, 1), "max_tokens": 1900, "temperature": 0, "stream": True}
    before = pd.metric(decode, "vllm:generation_tokens_total")
    with http.stream("POST", f"{pd.url}/v1/completions", json=body) as answer:
        chunks = answer.iter_bytes()
        assert next(chunks).startswith(b"data: ")
        assert pd.metric(decode, "vllm:generation_tokens_total") - before < 1900


@pytest.mark.parametrize("at_once", [2, 16])
def test_concurrent_requests_do_not_mix(pd: Fleet, aggregated: Fleet, http: httpx.Client, at_once: int) -> None:
    prompts = [prompt(200 + 37 * seed, 1000 + seed) for seed in range(at_once)]
    with ThreadPoolExecutor(at_once) as pool:
        ours = list(pool.map(lambda text: complete(http, pd.url, text), prompts))
    for text, answer in zip(prompts, ours, strict=True):
        assert answer["choices"][0]["text"] == complete(http, aggregated.url, text)["choices"][0]["text"]


def test_a_list_of_prompts_is_split(pd: Fleet, aggregated: Fleet, http: httpx.Client) -> None:
    prompts = [prompt(300, 2000), prompt(700, 2001), prompt(60, 2002)]
    ours, theirs = complete(http, pd.url, prompts), complete(http, aggregated.url, prompts)
    assert [(c["index"], c["text"]) for c in ours["choices"]] == [(c["index"], c["text"]) for c in theirs["choices"]]
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert ours["usage"][key] == theirs["usage"][key]


def test_chat_stream_and_invocations_agree(pd: Fleet, aggregated: Fleet, http: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": prompt(300, 3000)}], "max_tokens": 12, "temperature": 0}
    texts = set()
    for url, path in (
        (pd.url, "/v1/chat/completions"),
        (pd.url, "/invocations"),
        (aggregated.url, "/v1/chat/completions"),
    ):
        texts.add(http.post(url + path, json=body).json()["choices"][0]["message"]["content"])
    streamed = http.post(f"{pd.url}/v1/chat/completions", json={**body, "stream": True}).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    texts.add("".join(event["choices"][0]["delta"].get("content") or "" for event in events))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"{not json", 400, "invalid_json"),
        (b'{"model": "other", "prompt": "x"}', 404, "model_not_found"),
        (b'{"prompt": "x", "kv_transfer_params": {}}', 400, "invalid_field"),
        (json.dumps({"prompt": "x" * 3000, "max_tokens": 8}).encode(), 400, None),
    ],
)
def test_bad_requests_are_told_so(pd: Fleet, http: httpx.Client, content: bytes, status: int, code: str | None) -> None:
    answer = http.post(f"{pd.url}/v1/completions", content=content)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"]
    assert code is None or error["code"] == code


def test_nothing_else_is_exposed(pd: Fleet, http: httpx.Client) -> None:
    assert http.get(f"{pd.url}/ping").status_code == 200
    assert http.get(f"{pd.url}/v1/models").json()["data"][0]["id"] == "tiny-llama"
    for path in ("/metrics", "/status", "/docs", "/openapi.json", "/version", "/load"):
        assert http.get(pd.url + path).status_code == 404
