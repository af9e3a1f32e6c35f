"""The table: every shape of request, what is decided, and that client, metric and header agree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from hyperpd.sse import Decoder
from hyperpd_runtime.gateway import guard
from hyperpd_runtime.gateway.apis import BY_PATH, CHAT, COMPLETIONS, MESSAGES, RESPONSES, Api
from hyperpd_runtime.gateway.guard import TABLE, decide
from hyperpd_runtime.gateway.passed import ADAPTERS, PASSED
from hyperpd_runtime.gateway.shapes import Ask
from hyperpd_runtime.gateway.split import split
from tests.container.stack import Stack, counted, running, tiny

MESSAGE = {"messages": [{"role": "user", "content": "hello"}]}
TOOL = {"type": "function", "name": "weather"}


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


@pytest.mark.parametrize(
    ("api", "body", "why"),
    [
        (COMPLETIONS, {"prompt": "x"}, "plain"),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, "plain"),
        (COMPLETIONS, {"prompt": ["x"]}, "plain"),
        (COMPLETIONS, {"prompt": [[1, 2]]}, "plain"),
        (COMPLETIONS, {"prompt": ["x", "y"]}, "prompt_list"),
        (COMPLETIONS, {"prompt": [[1], [2]], "stream": True}, "prompt_list"),
        # The engine is not strict: it makes whole numbers of these, and several prompts.
        (COMPLETIONS, {"prompt": [[1, 2], [3.0]]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": [[1, 2], ["3"]]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": [["1", "2"], ["3"]]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": [["x", "y"], ["z"]]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": [[1], [True]]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": ["x", [1]]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": [1, "2"]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": [1, 2.0]}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": [["1"]]}, "plain"),
        (COMPLETIONS, {"prompt": [[1, 2.0], [3]], "n": 2}, "prompt_mixed"),
        (COMPLETIONS, {"prompt": "x", "n": 2}, "n"),
        (COMPLETIONS, {"prompt": "x", "n": 2, "temperature": 0}, "n_greedy"),
        (COMPLETIONS, {"prompt": "x", "n": 2, "temperature": "0"}, "n_greedy"),
        (COMPLETIONS, {"prompt": ["x", "y"], "n": 2, "temperature": 0}, "n_greedy"),
        (COMPLETIONS, {"prompt": "x", "n": 129}, "too_many"),
        (COMPLETIONS, {"prompt": "x", "n": 0}, "too_many"),
        (COMPLETIONS, {"prompt": "x", "n": "2"}, "too_many"),
        (COMPLETIONS, {"prompt": "x", "n": True}, "too_many"),
        (COMPLETIONS, {"prompt": "x", "n": 2, "seed": "1"}, "too_many"),
        (COMPLETIONS, {"prompt": "x", "n": 2, "seed": 10**4299}, "too_many"),  # the next one has too many digits
        (COMPLETIONS, {"prompt": "x", "n": 2, "seed": -7}, "n"),
        (COMPLETIONS, {"prompt": ["x"] * 65, "n": 2}, "too_many"),
        (COMPLETIONS, {"prompt": ["x"] * 129}, "too_many"),
        (COMPLETIONS, {"prompt": ["x"] * 128}, "prompt_list"),
        (COMPLETIONS, {"prompt": "x", "best_of": 3}, "best_of"),
        (COMPLETIONS, {"prompt": "x", "n": 2, "best_of": 2}, "n"),
        (COMPLETIONS, {"prompt": "x", "use_beam_search": True, "n": 2}, "beam_search"),
        (COMPLETIONS, {"prompt": "x", "prompt_logprobs": 0}, "prompt_logprobs"),
        (COMPLETIONS, {"prompt": "x", "echo": True, "logprobs": 0}, "prompt_logprobs"),
        (COMPLETIONS, {"prompt": "x", "echo": True}, "plain"),
        (COMPLETIONS, {"prompt": "x", "logprobs": 5}, "plain"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 1}, "one_token"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 0, "echo": True}, "one_token"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": -5}, "one_token"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": "1"}, "one_token"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": float("inf")}, "one_token"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 2048}, "plain"),  # cut to what the prompt leaves
        (COMPLETIONS, {"prompt": "x", "max_tokens": 2049}, "beyond_length"),
        (COMPLETIONS, {"prompt": ["x", "y"], "max_tokens": 2049}, "beyond_length"),
        (COMPLETIONS, {"prompt": "x", "n": 2, "max_tokens": 2049}, "beyond_length"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 10**400}, "beyond_length"),  # more than a float holds
        (CHAT, {**MESSAGE, "max_tokens": 2049}, "beyond_length"),
        (CHAT, {**MESSAGE, "max_tokens": 9, "max_completion_tokens": 2049}, "beyond_length"),
        (CHAT, {**MESSAGE, "max_tokens": 2049, "max_completion_tokens": 9}, "plain"),  # the latter counts
        (RESPONSES, {"input": "x", "max_output_tokens": 2049}, "beyond_length"),
        (MESSAGES, {**MESSAGE, "max_tokens": 2049}, "beyond_length"),
        (COMPLETIONS, {"prompt": "x", "temperature": 10**400, "n": 2}, "n"),
        (COMPLETIONS, {"prompt": "x", "max_tokens": None}, "plain"),
        (COMPLETIONS, {"prompt": "x", "stream_options": {"include_usage": True}}, "stream_options"),
        (COMPLETIONS, {"prompt": ["x", "y"], "stream_options": {"include_usage": True}}, "stream_options"),
        (COMPLETIONS, {"prompt": "x", "stream_options": {"include_usage": True}, "stream": True}, "plain"),
        (CHAT, {**MESSAGE, "stream_options": {}}, "plain"),
        (COMPLETIONS, {"prompt": "x", "truncate_prompt_tokens": -1}, "truncation"),
        (CHAT, {**MESSAGE, "max_tokens": 9, "max_completion_tokens": 1}, "one_token"),
        (CHAT, {**MESSAGE, "n": 3}, "n"),
        (CHAT, {**MESSAGE, "tools": [{"type": "function", "function": {}}]}, "plain"),
        (CHAT, {"messages": [{"content": [{"type": "text", "text": "x"}]}]}, "plain"),
        (CHAT, {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "media"),
        (CHAT, {"messages": [{"content": [{"image_url": "x"}]}]}, "media"),  # the engine guesses the type
        (CHAT, {"messages": [{"content": [{"type": ["image"]}]}]}, "plain"),
        (RESPONSES, {"input": [{"content": [{"type": "input_image"}]}]}, "media"),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]}, "media"),
        (MESSAGES, {"messages": [{"content": [{"type": "image", "source": {}}]}], "max_tokens": 9}, "media"),
        (MESSAGES, {"messages": [{"content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]}, "media"),
        (MESSAGES, {"messages": [{"content": [{"type": "tool_use", "input": {"file": "x"}}]}]}, "plain"),
        (RESPONSES, {"input": "x"}, "plain"),
        (RESPONSES, {"input": "x", "max_output_tokens": 1}, "one_token"),
        (RESPONSES, {"input": "x", "truncation": "auto"}, "truncation"),
        (RESPONSES, {"input": "x", "tools": [TOOL]}, "plain"),
        (RESPONSES, {"input": "x", "tools": [TOOL, {"type": "code_interpreter"}]}, "builtin_tools"),
        (RESPONSES, {"input": "x", "store": False}, "plain"),
        (RESPONSES, {"input": "x", "store": True}, "stored"),
        (RESPONSES, {"input": "x", "background": True}, "stored"),
        (RESPONSES, {"input": "x", "previous_response_id": "resp_1"}, "stored"),
        (MESSAGES, {**MESSAGE, "max_tokens": 1}, "one_token"),
        (MESSAGES, {**MESSAGE, "max_tokens": 2, "thinking": {"type": "enabled"}}, "plain"),
    ],
)
def test_a_shape_and_its_line(api: Api, body: dict[str, Any], why: str) -> None:
    assert decide(Ask(body, api, length_tokens=2048)).why == why


def test_every_line_has_a_test_and_a_reason() -> None:
    cases = {case[2] for case in _cases()}
    assert {shape.why for shape in TABLE} == cases | {"prompt_embeds"}  # test_steering.py
    assert all(shape.because for shape in TABLE)
    assert len({shape.why for shape in TABLE}) == len(TABLE)
    assert TABLE[-1].fits(Ask({}, COMPLETIONS))


def _cases() -> list[Any]:
    (mark,) = (mark for mark in test_a_shape_and_its_line.pytestmark if mark.name == "parametrize")
    return list(mark.args[1])


_IDS = st.integers(0, 9) | st.sampled_from([1.0, "1", True])


@given(st.lists(_IDS | st.text(max_size=2) | st.lists(_IDS, max_size=2), min_size=2, max_size=3))
def test_no_list_that_the_engine_may_take_for_several_prompts_goes_with_one_ticket(prompt: list[Any]) -> None:
    """vLLM's own type of the field (vllm/entrypoints/openai/completion/protocol.py, 0.32) says what it makes of it."""
    try:
        seen = _PROMPT.validate_python(prompt)
    except ValidationError:
        return
    several = isinstance(seen[0], list | str)
    assert (decide(Ask({"prompt": prompt}, COMPLETIONS)).why == "plain") <= (not several)


_PROMPT: TypeAdapter[Any] = TypeAdapter(list[NonNegativeInt] | list[list[NonNegativeInt]] | str | list[str])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.data(), st.sampled_from([*BY_PATH.values()]))
def test_whatever_is_in_a_body_it_is_decided_or_refused(data: st.DataObject, api: Api) -> None:
    fields = st.sampled_from(sorted({*api.fields, *guard.FORBIDDEN, "colour"}))
    body = data.draw(st.dictionaries(fields, _VALUES, max_size=6)) | data.draw(
        st.sampled_from([{}, {api.prompt: "x"}, {api.prompt: ["x", "y"]}, {api.prompt: [3, 4]}])
    )
    try:
        admitted = guard.admit(body, api, ["m"])
    except guard.Refused:
        return
    assert admitted.shape.how != "refused"
    if admitted.shape.how == "split":
        parts = split(admitted)
        assert 1 < len(parts) <= guard.MOST_PARTS
        assert {part.shape.how for part in parts} <= {"disaggregated", "decode_only"}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/v1/completions", {"prompt": "hello"}, "after hello"),
        ("/v1/chat/completions", MESSAGE, "after hello"),
        ("/v1/responses", {"input": "hello"}, "after hello"),
        ("/v1/messages", {**MESSAGE, "max_tokens": 5}, "after hello"),
        ("/invocations", {"prompt": "hello"}, "after hello"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_api_goes_through_both_roles(
    stack: Stack, path: str, body: dict[str, Any], text: str, stream: bool
) -> None:
    answer = await stack.http.post(path, json={**body, "stream": stream}, headers={"x-hyperpd-explain": "1"})
    assert answer.status_code == 200
    assert answer.headers["x-hyperpd-decision"] == "disaggregated; reason=plain; routing=remote; served=pd"
    assert all(word in answer.text for word in text.split())
    assert "error" not in answer.text
    assert "remote_host" not in answer.text
    assert (len(stack.prefill.bodies), stack.leases) == (1, {})
    assert stack.prefill.paths == stack.decode.paths


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "hello"}),
        ("/v1/chat/completions", MESSAGE),
        ("/v1/responses", {"input": "hello"}),
        ("/v1/messages", {**MESSAGE, "max_tokens": 5}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_no_api_shows_the_client_a_failed_load(
    stack: Stack, path: str, body: dict[str, Any], stream: bool
) -> None:
    """Chat and messages say their first event before they say that it failed, responses close the connection."""
    stack.decode.fault = "error_event"
    answer = await stack.http.post(path, json={**body, "stream": stream}, headers={"x-hyperpd-explain": "1"})
    assert (
        answer.headers["x-hyperpd-decision"] == "disaggregated; reason=plain; routing=handoff_failed; served=recomputed"
    )
    assert ("error" in answer.text, "hello" in answer.text) == (False, True)
    await stack.settled()
    assert stack.leases == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["hello", ["one", "two"]])
async def test_more_than_the_model_has_room_for_costs_no_prefill(stack: Stack, prompt: Any, stream: bool) -> None:
    answer = await stack.ask(prompt=prompt, max_tokens=2049, stream=stream)
    assert (answer.status_code, "cannot be greater than" in answer.text) == (400, True)
    assert (len(stack.prefill.bodies), len(stack.decode.bodies)) == (0, 1)
    assert (await stack.ask(max_tokens=2048)).status_code == 200
    assert len(stack.prefill.bodies) == 1


async def test_a_streams_options_without_a_stream_pin_nothing(stack: Stack) -> None:
    """The engine refuses them as it does what it has read, but tells prefill nothing."""
    answer = await stack.ask(stream_options={"include_usage": True})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "BadRequestError")
    assert (stack.prefill.bodies, stack.leases) == ([], {})


@pytest.mark.parametrize(
    ("body", "explanation"),
    [
        ({"prompt": ["a", "b"]}, "split; reason=prompt_list; routing=remote; served=pd"),
        ({"prompt": "a", "n": 2, "temperature": 1}, "split; reason=n; routing=remote; served=pd"),
        ({"prompt": "a", "max_tokens": 1}, "decode_only; reason=one_token; routing=shape_guard; served=decode_only"),
        ({"prompt": "a", "best_of": 4}, "refused; reason=best_of; routing=-; served=-"),
        ({"prompt": "a", "priority": 4}, "refused; reason=priority; routing=-; served=-"),
        ({"prompt": "a", "colour": 4}, "refused; reason=invalid_field; routing=-; served=-"),
        ({"model": "other"}, "refused; reason=invalid_field; routing=-; served=-"),
        ({"prompt": "a", "model": "other"}, "refused; reason=model_not_found; routing=-; served=-"),
    ],
)
async def test_the_decision_is_counted_and_said_to_who_asks(
    stack: Stack, body: dict[str, Any], explanation: str
) -> None:
    decision, reason, *_ = explanation.split("; ")
    labels = {"decision": decision, "why": reason.removeprefix("reason=")}
    before = counted("hyperpd_decisions_total", **labels)
    assert await stack.explain("/v1/completions", body) == explanation
    assert counted("hyperpd_decisions_total", **labels) == before + 1
    assert "x-hyperpd-decision" not in (await stack.http.post("/v1/completions", json=body)).headers


async def test_an_answer_says_nothing_it_does_not_know(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hyperpd.gateway")
    answer = await stack.ask(prompt="a secret", headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert f"request_id={answer.headers['x-hyperpd-request-id']} client_id='mine'" in caplog.text
    assert "secret" not in caplog.text
    assert answer.headers["x-hyperpd-request-id"] not in ("mine", *stack.prefill.ids, *stack.decode.ids)
    refused = await stack.ask(priority=1, headers={"x-request-id": "mine"})
    assert refused.headers["x-request-id"] == "mine"
    assert refused.json()["error"]["request_id"] == refused.headers["x-hyperpd-request-id"]


async def test_messages_has_errors_of_its_own_form(stack: Stack) -> None:
    answer = await stack.http.post("/v1/messages", json={"messages": []})
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert "messages: missing or empty" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("GET", "/v1/messages", {}, 405, "invalid_request_error"),
        ("GET", "/v1/messages/x", {}, 404, "not_found_error"),
        ("POST", "/invocations", {"X-Amzn-SageMaker-Custom-Attributes": "route=/v1/messages"}, 400, None),
        ("POST", "/v1/messages", {}, 400, None),
    ],
)
async def test_wherever_messages_are_asked_for(
    stack: Stack, method: str, path: str, headers: dict[str, str], status: int, kind: str | None
) -> None:
    answer = await stack.http.request(method, path, headers=headers, json={"messages": []})
    assert (answer.status_code, answer.json()["type"]) == (status, "error")
    assert answer.json()["error"]["type"] == (kind or "invalid_request_error")


async def test_a_type_of_error_is_one_that_the_api_has(stack: Stack) -> None:
    stack.decode.fault = "500"
    body = {**MESSAGE, "max_tokens": 5}
    assert (await stack.http.post("/v1/messages", json=body)).json()["error"]["type"] == "api_error"
    stack.pool.members[1].healthy = False
    assert (await stack.http.post("/v1/messages", json=body)).json()["error"]["type"] == "overloaded_error"


async def test_an_error_event_has_its_type(stack: Stack) -> None:
    stack.decode.fault = "cut"
    answer = await stack.http.post("/v1/responses", json={"input": "hello", "stream": True})
    *_, last = Decoder().feed(answer.content)
    assert json.loads(last)["type"] == "error"
    assert "stream was cut" in last


async def test_what_has_no_second_leg_is_passed(stack: Stack) -> None:
    answer = await stack.http.post("/tokenize", json={"prompt": "hi"}, headers={"x-hyperpd-explain": "1"})
    assert answer.json()["tokens"] == [104, 105]
    assert answer.headers["x-hyperpd-decision"] == "passed; reason=/tokenize; routing=-; served=passed"
    refused = await stack.http.post("/tokenize", json={"prompt": "hi", "cache_salt": "x"})
    assert (refused.status_code, "cache_salt" in refused.text) == (400, True)
    unknown = await stack.http.post("/tokenize", json={"prompt": "hi", "model": "x"})
    assert unknown.status_code == 404


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/chat/completions"])
async def test_what_the_model_does_not_do_is_an_error_as_any_other(stack: Stack, path: str) -> None:
    """An engine has no such path then, and says so in FastAPI's words."""
    stack.prefill.fault = stack.decode.fault = "no_path"
    answer = await stack.http.post(path, json={"input": "x"} if "embed" in path else MESSAGE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert answer.json()["error"]["message"] == f"{path}: the model that is served here does not do that"
    await stack.settled()
    assert (stack.pool.in_flight, stack.leases) == (0, {})


async def test_adapters_are_fixed(stack: Stack) -> None:
    """One role would have an adapter that the other lacks."""
    for path in ADAPTERS:
        answer = await stack.http.post(path.replace("{name}", "law"), json={"lora_name": "law", "lora_path": "/x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "adapters_are_fixed")
    assert stack.prefill.bodies == stack.decode.bodies == []


async def test_an_inference_component_is_an_adapter() -> None:
    async with running(tiny(model={"adapters": [{"name": "law", "path": "/adapters/law"}]})) as stack:
        headers = {"X-Amzn-SageMaker-Adapter-Identifier": "law"}
        answer = await stack.http.post("/invocations", json={"prompt": "hello", "model": "tiny-llama"}, headers=headers)
        assert answer.json()["choices"][0]["text"] == "after hello by law"
        assert [engine.bodies[0]["model"] for engine in (stack.prefill, stack.decode)] == ["law", "law"]
        headers["X-Amzn-SageMaker-Adapter-Identifier"] = "tax"
        assert (await stack.http.post("/invocations", json={"prompt": "hello"}, headers=headers)).status_code == 404
        headers = {"X-Amzn-SageMaker-Session-Id": "1"}
        answer = await stack.http.post("/invocations", json={"prompt": "hello"}, headers=headers)
        assert answer.json()["error"]["code"] == "no_sessions"


def test_no_list_of_fields_lets_a_client_steer() -> None:
    lists = [*(api.fields for api in BY_PATH.values()), *PASSED.values()]
    assert [fields & guard.FORBIDDEN.keys() for fields in lists] == [set()] * len(lists)
    assert all("chat_template" not in fields for fields in lists)  # code that the engine would run


async def test_only_operators_see_decisions_where_there_are_keys(keyed: Any) -> None:
    for key, status in (("user", 403), ("operator", 200)):
        headers = {"authorization": f"Bearer {key}-key", "x-hyperpd-explain": "1"}
        answer = await keyed.http.post("/v1/completions", json={"prompt": "x"}, headers=headers)
        assert (answer.status_code, "x-hyperpd-decision" in answer.headers) == (status, status == 200)
    assert answer.headers["x-hyperpd-decision"].endswith("served=pd")


@pytest.fixture
async def keyed(tmp_path: Any) -> AsyncIterator[Stack]:
    import hashlib
    import json

    from hyperpd_runtime.gateway.keys import Keys

    entries = [
        {"name": scope, "sha256": hashlib.sha256(f"{scope}-key".encode()).hexdigest(), "scope": scope}
        | {"concurrent_requests": None}
        for scope in ("user", "operator")
    ]
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(entries))
    async with running(tiny(gateway={"auth": "keys"}), Keys(file)) as started:
        yield started
