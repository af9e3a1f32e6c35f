"""The request path against fake engines, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from hyperpd.errors import NoWorkerAvailable
from hyperpd.recipe import load
from hyperpd_runtime.gateway import pool
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.routing import Routing
from tests.container.stack import Stack, counted, routed, running, tiny
from tests.fakes.engine import FakeEngine

RECIPE = load("tiny-cpu-1p1d").recipe


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


async def test_the_ticket_travels_and_nothing_else_does(stack: Stack) -> None:
    answer = await stack.ask(stream_options=None, min_tokens=2)
    assert answer.json()["choices"][0]["text"] == "after hello"
    assert stack.decode.bodies[0]["kv_transfer_params"]["remote_block_ids"] == [[1, 2]]
    assert stack.decode.bodies[0]["min_tokens"] == 2
    assert stack.leases == {}
    assert not set(stack.prefill.ids) & set(stack.decode.ids)


@pytest.mark.parametrize("fault", ["no_ticket", "list", "500", "404", "429"])
async def test_a_prefill_fault_is_recomputed_and_counted(stack: Stack, fault: str) -> None:
    kind = "ticket_missing" if fault == "no_ticket" else "prefill_failed"
    faults = counted("hyperpd_faults_total", kind=kind)
    recomputed = counted("hyperpd_recomputed_requests_total", why="prefill_failed")
    stack.prefill.fault = fault
    answer = await stack.ask()
    assert answer.json()["choices"][0]["text"] == "after hello"
    assert len(stack.prefill.bodies) == 2  # retried once
    assert "kv_transfer_params" not in stack.decode.bodies[0]
    assert counted("hyperpd_faults_total", kind=kind) == faults + 2
    assert counted("hyperpd_recomputed_requests_total", why="prefill_failed") == recomputed + 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_load_is_retried_without_the_ticket(stack: Stack, stream: bool) -> None:
    """Streaming it is HTTP 200 with an error event; the client never sees it."""
    stack.decode.fault = "error_event"
    answer = await stack.ask(stream=stream)
    assert answer.status_code == 200
    assert "error" not in answer.text
    assert "after" in answer.text
    assert ["kv_transfer_params" in body for body in stack.decode.bodies[:1]] == [True]
    assert not stack.pool.pairs[0].proven  # until the next canary
    assert stack.pool.not_ready() is not None
    await stack.settled()
    assert stack.leases == {}


async def test_client_leaves_during_prefill(stack: Stack) -> None:
    stack.prefill.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.prefill.arrived.wait()
    asking.cancel()
    await asyncio.wait_for(stack.prefill.aborted.wait(), 10)
    assert stack.decode.bodies == []


async def test_client_leaves_before_decode_answered(stack: Stack) -> None:
    stack.decode.fault = "hang"
    asking = asyncio.create_task(stack.ask())
    await stack.decode.arrived.wait()
    assert len(stack.leases) == 1
    asking.cancel()
    await asyncio.wait_for(stack.decode.aborted.wait(), 10)
    await stack.settled()
    assert stack.leases == {}


async def test_client_leaves_mid_stream(stack: Stack) -> None:
    stack.decode.fault = "slow"
    async with stack.http.stream("POST", "/v1/completions", json={"prompt": "hello", "stream": True}) as answer:
        assert "after" in await anext(answer.aiter_text())
    await asyncio.wait_for(stack.decode.aborted.wait(), 10)


async def test_a_cut_stream_ends_with_an_error_event(stack: Stack) -> None:
    stack.decode.fault = "cut"
    answer = await stack.ask(stream=True)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["error"]["code"] == "stream_cut"
    assert "[DONE]" not in answer.text


async def test_a_list_of_prompts_never_shares_a_ticket(stack: Stack) -> None:
    answer = await stack.ask(prompt=["one", "two", "three"])
    assert [c["text"] for c in answer.json()["choices"]] == ["after one", "after two", "after three"]
    usage = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
    assert answer.json()["usage"] == usage | {"prompt_tokens_details": {"cached_tokens": 0}}
    assert len(stack.prefill.bodies) == 3


@pytest.mark.parametrize(
    "options", [{"n": 2, "temperature": 0}, {"max_tokens": 1}, {"prompt_logprobs": 1}, {"use_beam_search": True}]
)
async def test_shapes_that_are_never_disaggregated(stack: Stack, options: dict[str, Any]) -> None:
    assert (await stack.ask(**options)).status_code == 200
    assert stack.prefill.bodies == []


async def test_what_the_engine_refuses_is_told_and_not_tried_again(stack: Stack) -> None:
    answer = await stack.ask(temperature=9)
    assert (answer.status_code, "too high" in answer.text) == (400, True)
    assert (len(stack.prefill.bodies), len(stack.decode.bodies)) == (1, 0)


async def test_no_worker(stack: Stack) -> None:
    stack.pool.members[1].healthy = False
    answer = await stack.ask()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"]["code"] == "no_worker_available"
    assert (await stack.http.get("/ping")).status_code == 503


@pytest.mark.parametrize("field", ["kv_transfer_params", "priority", "cache_salt", "vllm_xargs", "request_id"])
async def test_clients_steer_nothing(stack: Stack, field: str) -> None:
    answer = await stack.ask(**{field: {"remote_host": "10.0.0.1"}})
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]
    assert stack.prefill.bodies == stack.decode.bodies == []


@pytest.mark.parametrize("stream", ["false", 1, "true"])
async def test_stream_is_a_boolean(stack: Stack, stream: Any) -> None:
    answer = await stack.ask(stream=stream)
    assert (answer.status_code, "stream: must be true or false" in answer.text) == (400, True)


async def test_every_worker_has_its_turn() -> None:
    members = pool.Pool(
        [Endpoint(role, f"{role}-{n}", f"http://127.0.0.1:{n}") for role in ("prefill", "decode") for n in range(2)],
        disaggregated=True,
        routing=Routing(RECIPE),
    )
    for member in members.members:
        member.healthy = True
    for pair in members.pairs:
        pair.proven = True
    assert {name for _ in range(2) for name in routed(members)} == {member.name for member in members.members}
    assert members.not_ready() is None


async def test_a_pair_that_cannot_exchange_kv_is_never_tried(stack: Stack) -> None:
    pair = stack.pool.pairs[0]
    recipe = load("tiny-cpu-1p1d").recipe
    stack.pool.identify(pair.prefill, recipe.fingerprint("prefill"))
    stack.pool.identify(pair.decode, replace(recipe.fingerprint("decode"), block_size_tokens=64))
    await stack.pool._prove(pair, stack.flow.canary)
    assert not pair.proven
    assert pair.why.startswith("block_size_multiple: decode's 64 tokens")
    assert stack.prefill.bodies == []


async def test_wrong_ways_are_openai_errors(stack: Stack) -> None:
    for method, path, status, code in (
        ("GET", "/v1/completions", 405, "method_not_allowed"),
        ("GET", "/x", 404, "not_found"),
    ):
        answer = await stack.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_decode_worker_of_another_model_is_never_picked(stack: Stack) -> None:
    workers = [Endpoint(role, role, f"http://127.0.0.1:{n}") for n, role in enumerate(("prefill", "decode"))]
    members = pool.Pool(workers, disaggregated=True, routing=Routing(RECIPE))
    recipe = RECIPE
    for member in members.members:
        member.healthy = True
    prefill, decode = members.members
    with pytest.raises(NoWorkerAvailable, match="no pair proven"):  # nothing is served before the first canary
        routed(members)
    members._was_ready = True
    members.identify(prefill, recipe.fingerprint("prefill"))
    members.identify(decode, recipe.fingerprint("decode", model_path="/other"))
    with pytest.raises(NoWorkerAvailable):
        routed(members)
    members.identify(decode, recipe.fingerprint("decode"))
    prefill.healthy = False
    assert routed(members)[0] == "decode"


async def test_an_error_in_the_middle_of_a_stream_is_counted(stack: Stack) -> None:
    faults = counted("hyperpd_faults_total", kind="error_event")
    stack.decode.fault = "late_error"
    async with stack.http.stream("POST", "/v1/completions", json={"prompt": "hello", "stream": True}) as answer:
        chunks = answer.aiter_text()
        await anext(chunks)
        stack.decode.proceed.set()
        assert "KV load failed" in "".join([chunk async for chunk in chunks])
    assert counted("hyperpd_faults_total", kind="error_event") == faults + 1


async def test_draining(stack: Stack) -> None:
    """/ping says so at once; what runs is finished, and counted until its last byte."""
    stack.decode.fault = "slow"
    async with stack.http.stream("POST", "/v1/completions", json={"prompt": "hello", "stream": True}) as answer:
        stack.pool.draining = True
        assert (await stack.http.get("/ping")).json()["reason"] == "draining"
        assert stack.pool.in_flight == 1
        stack.decode.proceed.set()
        assert (await answer.aread()).endswith(b"data: [DONE]\n\n")
    while stack.pool.in_flight:
        await asyncio.sleep(0.01)
    for body in ({}, {"prompt": "x"}):  # refused and answered requests leave as well
        await stack.http.post("/v1/completions", json=body)
    assert stack.pool.in_flight == 0


@pytest.mark.parametrize(
    ("attributes", "body", "status"),
    [
        ("", {"prompt": "x"}, 200),
        ("", {"messages": [{"role": "user", "content": "x"}]}, 200),
        ("route=/v1/completions", {"prompt": "x"}, 200),
        ("trace=1, route=/v1/chat/completions", {"prompt": "x"}, 400),
        ("route=/tokenize", {"prompt": "x"}, 400),
    ],
)
async def test_invocations(stack: Stack, attributes: str, body: dict[str, Any], status: int) -> None:
    headers = {"X-Amzn-SageMaker-Custom-Attributes": attributes}
    assert (await stack.http.post("/invocations", json=body, headers=headers)).status_code == status


async def test_unknown_fields_are_named(stack: Stack) -> None:
    error = (await stack.ask(temperatur=0)).json()["error"]
    assert error["message"] == "temperatur: unknown, did you mean temperature?"


async def test_an_adapter_is_asked_for_by_its_name() -> None:
    adapters = [{"name": name, "path": f"/adapters/{name}"} for name in ("poet", "clerk")]
    async with running(tiny(model={"adapters": adapters})) as stack:
        listed = (await stack.http.get("/v1/models")).json()["data"]
        assert [(entry["id"], entry["parent"]) for entry in listed] == [
            ("tiny-llama", None),
            ("poet", "tiny-llama"),
            ("clerk", "tiny-llama"),
        ]
        answer = await stack.ask(model="poet")  # prefill and decode with the same one, or the text would tell
        assert answer.json()["choices"][0]["text"] == "after hello by poet"
        assert [engine.bodies[0]["model"] for engine in (stack.prefill, stack.decode)] == ["poet", "poet"]
        assert (await stack.ask()).json()["choices"][0]["text"] == "after hello"
        refused = await stack.ask(model="clerc")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert "'tiny-llama' and 'poet' and 'clerk'" in refused.json()["error"]["message"]


async def test_only_streams_say_when_their_first_token_came(stack: Stack) -> None:
    """Of a whole answer the first event is its end: autoscaling would take long answers for slow prefill."""
    name = "hyperpd_first_event_seconds_count"
    before = counted(name)
    await stack.ask()
    assert counted(name) == before
    await stack.ask(stream=True)
    assert counted(name) == before + 1


async def test_a_decode_worker_that_is_gone_is_replaced_by_another(stack: Stack) -> None:
    """It takes over the request, and gives the ticket back."""
    other = FakeEngine(stack.leases)
    await other.start()
    await stack.decode.stop()
    try:
        stack.pool.update([*(m.endpoint for m in stack.pool.members), Endpoint("decode", "decode-1", other.url)])
        stack.pool.members[2].healthy = True
        answer = await stack.ask()
        assert answer.json()["choices"][0]["text"] == "after hello"
        await stack.settled()
        assert stack.leases == {}
        assert sorted(body["model"] for body in other.bodies) == ["hyperpd-release", "tiny-llama"]
    finally:
        await other.stop()


async def test_a_decode_worker_that_is_gone_is_replaced_where_there_is_no_ticket_too(stack: Stack) -> None:
    other = FakeEngine(stack.leases)
    await other.start()
    await stack.decode.stop()
    try:
        for gone in (True, False):
            answers = [await stack.ask(max_tokens=1) for _ in range(2)]
            assert {answer.status_code for answer in answers} == {502 if gone else 200}
            workers = [*(m.endpoint for m in stack.pool.members), Endpoint("decode", "decode-1", other.url)]
            stack.pool.update(workers)
            stack.pool.members[2].healthy = True
            stack.pool.pairs[0].proven = False  # none is: both have their turn
    finally:
        await other.stop()


async def test_a_worker_that_no_pair_is_proven_of_answers_where_the_proven_one_is_gone(stack: Stack) -> None:
    other = FakeEngine(stack.leases)
    await other.start()
    await stack.decode.stop()
    try:
        stack.pool.update([*(m.endpoint for m in stack.pool.members), Endpoint("decode", "decode-1", other.url)])
        stack.pool.members[2].healthy = True
        answer = await stack.ask(max_tokens=1)  # with no ticket nothing says that the pair is dead
        assert (answer.status_code, len(other.bodies)) == (200, 1)
        assert routed(stack.pool) == ("decode-0", "prefill-0")  # until a probe finds it gone
    finally:
        await other.stop()
