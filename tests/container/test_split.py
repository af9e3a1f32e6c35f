"""Several prompts or answers: what is asked of the engine for each, and what comes out when they are joined again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpd.errors import DecodeFailed
from hyperpd.sse import Decoder
from hyperpd_runtime.gateway.apis import CHAT, COMPLETIONS
from hyperpd_runtime.gateway.guard import Admitted, admit
from hyperpd_runtime.gateway.split import Joiner, join, split
from tests.container.stack import running, tiny
from tests.fakes.engine_wire import Api, Usage


def admitted(**body: Any) -> Admitted:
    return admit(dict(body), CHAT if "messages" in body else COMPLETIONS, ["m"])


def test_every_answer_has_the_seed_that_the_engine_would_give_it() -> None:
    parts = split(admitted(prompt=["x", "y"], n=2, seed=7, best_of=2, temperature=0.5))
    assert [(part.body["prompt"], part.body["seed"]) for part in parts] == [("x", 7), ("x", 8), ("y", 7), ("y", 8)]
    assert all(not {"n", "best_of"} & part.body.keys() for part in parts)
    assert {part.shape.why for part in parts} == {"plain"}


def test_a_seed_that_is_none_is_left_to_the_engine() -> None:
    assert [part.body["seed"] for part in split(admitted(prompt=["x", "y"], seed=[]))] == [[], []]


def test_without_a_seed_there_is_none() -> None:
    assert all("seed" not in part.body for part in split(admitted(prompt="x", n=3)))
    chat = split(admitted(messages=[{"role": "user", "content": "x"}], n=2, seed=1))
    assert [part.body["seed"] for part in chat] == [1, 2]


def test_the_tokens_of_a_prompt_count_once() -> None:
    answers = [Api().whole(["a"], Usage(prompt, 2, cached)) for prompt, cached in ((3, 1), (3, 0), (9, 4), (9, 0))]
    usage = join(answers, per_prompt=2)["usage"]
    assert usage == {
        "prompt_tokens": 12,
        "completion_tokens": 8,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 5},
    }


@given(st.data(), st.integers(1, 4), st.booleans())
def test_streams_join_however_they_are_cut_and_in_whatever_order(data: Any, parts: int, usage: bool) -> None:
    body = {"stream_options": {"include_usage": True}} if usage else {}
    texts = [f"answer {part} é😀" for part in range(parts)]
    streams = [b"".join(Api().events([text], Usage(3, 2), body)) for text in texts]
    joiner, said = Joiner(parts, per_prompt=1), b""
    while any(streams):
        part = data.draw(st.sampled_from([number for number, left in enumerate(streams) if left]))
        cut = data.draw(st.integers(min(20, len(streams[part])), len(streams[part])))
        said += joiner.feed(part, streams[part][:cut])
        streams[part] = streams[part][cut:]
    *payloads, done = Decoder().feed(said)
    events = [json.loads(payload) for payload in payloads]
    assert done == "[DONE]"
    assert {(event["id"], event["created"]) for event in events} == {("1", 7)}
    for part, text in enumerate(texts):
        choices = [choice for event in events for choice in event["choices"] if choice["index"] == part]
        assert "".join(choice["text"] for choice in choices).strip() == text
        assert [choice["finish_reason"] for choice in choices][-1] == "length"
    totals = [event["usage"] for event in events if "usage" in event]
    assert [total["total_tokens"] for total in totals] == ([5 * parts] if usage else [])


@pytest.mark.parametrize("cut", [b'data: {"id":"1","cho', b'data: {"id":"1","choices":[{"text":"\xc3', b"data: [DON"])
def test_an_event_that_was_cut_is_left_out_and_the_error_follows(cut: bytes) -> None:
    """Anywhere, also inside a character."""
    error, joiner = COMPLETIONS.error_event(DecodeFailed("cut")), Joiner(2, per_prompt=1)
    assert b"".join(joiner.feed(0, chunk) for chunk in (cut, b"\n\n", error)) == error


@pytest.mark.parametrize("stream", [False, True])
async def test_every_part_has_its_own_handoff(stream: bool) -> None:
    async with running(tiny()) as stack:
        answer = await stack.ask(prompt=["one", "two"], n=2, seed=3, temperature=1, stream=stream)
        if stream:
            events = [json.loads(payload) for payload in Decoder().feed(answer.content) if payload != "[DONE]"]
            said = ["", "", "", ""]
            for event in events:
                (choice,) = event["choices"]
                said[choice["index"]] += choice["text"]
        else:
            said = [choice["text"] for choice in answer.json()["choices"]]
        wanted = [f"after {word} seed {seed}" for word in ("one", "two") for seed in (3, 4)]
        assert [text.strip() for text in said] == wanted
        assert len(stack.prefill.bodies) == 4
        tickets = [body["kv_transfer_params"]["remote_request_id"] for body in stack.decode.bodies]
        assert len({*tickets}) == 4
        assert stack.leases == {}


async def test_a_part_that_is_cut_inside_an_event_ends_all_with_an_error() -> None:
    async with running(tiny()) as stack:
        stack.prefill.fault = "500"  # a handoff's usage is put right, in whole events alone
        stack.decode.fault = "cut_inside"
        answer = await stack.ask(prompt=["one", "two"], stream=True)
        *_, last = Decoder().feed(answer.content)
        assert json.loads(last)["error"]["code"] == "stream_cut"


async def test_a_part_that_is_no_answer_is_said_to_have_failed() -> None:
    async with running(tiny()) as stack:
        stack.prefill.fault, stack.decode.fault = "500", "list"
        answer = await stack.ask(prompt=["one", "two"])
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (502, "answer_broken")
        assert error["message"] == "an answer of decode cannot be read; try again"
        assert stack.pool.in_flight == 0
