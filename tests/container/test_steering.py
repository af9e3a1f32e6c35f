"""What clients may steer: nothing. What a key may: priority, embeddings, the mode, and prefixes of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from hyperpd.errors import RecipeError
from hyperpd.routing.flight import Flight
from hyperpd_runtime.gateway import keys, steering
from hyperpd_runtime.gateway.passed import PASSED
from hyperpd_runtime.gateway.relay import Answer
from hyperpd_runtime.gateway.steering import STEERING
from hyperpd_runtime.gateway.telemetry import Record
from tests.container.stack import Stack, counted, running, tiny

USER, OTHER, OPERATOR = "sk-user-0123456789", "sk-other-0123456789", "sk-operator-0123456789"
COMPLETION = {"prompt": "hello", "max_tokens": 4}
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": COMPLETION,
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT,
    "/v1/responses": {"input": "hello", "max_output_tokens": 4},
    "/invocations": COMPLETION,
}
# Of the gateway itself: the names that reach an engine, whatever a client sends.
UPSTREAM = {"host", "x-request-id", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@contextlib.asynccontextmanager
async def keyed(
    folder: Path, allow: tuple[str, ...] = (), recipe: dict[str, dict[str, Any]] | None = None, **gateway: Any
) -> AsyncIterator[Stack]:
    """A stack with two users, of which the first may send `allow`, and an operator."""
    entries: list[dict[str, Any]] = [
        {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scope": scope, "concurrent_requests": None}
        for name, key, scope in (("user", USER, "user"), ("other", OTHER, "user"), ("operator", OPERATOR, "operator"))
    ]
    entries[0]["allow"] = allow
    path = folder / "keys.json"
    path.write_text(json.dumps(entries))
    file = tiny(gateway={"auth": "keys", **gateway}, **(recipe or {}))
    async with running(file, keys.of(file.recipe, str(path))) as started:
        yield started


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


def names() -> Iterator[str]:
    """Every steering header as somebody would send it."""
    for entry in STEERING:
        yield f"{entry}x" if entry.endswith("-") else entry
    yield from ("x-hyperpd-worker", "X-Data-Parallel-Rank", "x-data-parallel-host-port")
    yield from ("x-gateway-destination-endpoint", "x-gateway-destination-endpoint-subset", "x-dynamo-routing-mode")


@pytest.mark.parametrize("name", list(names()))
async def test_headers_that_steer_are_refused(stack: Stack, name: str) -> None:
    for path in ("/v1/completions", "/v1/messages", "/tokenize"):
        answer = await stack.http.post(path, json=BODIES.get(path, {"prompt": "x"}), headers={name: "10.0.0.9:8200"})
        assert answer.status_code == 400
        assert f"{name.lower()}: not accepted, " in answer.json()["error"]["message"]
        assert "10.0.0.9" not in answer.text
    assert stack.prefill.bodies == stack.decode.bodies == []


async def test_all_of_them_at_once_and_counted(stack: Stack) -> None:
    before = counted("hyperpd_decisions_total", decision="refused", why="steering_header")
    answer = await stack.ask({"x-session-id": "s", "x-dp-rank": "1", "x-hyperpd-explain": "1"})
    said = answer.json()["error"]
    assert (answer.status_code, said["code"]) == (400, "steering_header")
    assert "x-dp-rank" in said["message"]
    assert "x-session-id" in said["message"]
    assert counted("hyperpd_decisions_total", decision="refused", why="steering_header") == before + 1


async def test_what_sagemaker_writes_at_its_own_path_passes(stack: Stack) -> None:
    headers = {
        "X-Amzn-SageMaker-Custom-Attributes": "trace=1",
        "X-Amzn-SageMaker-Inference-Id": "i-1",
        "X-Amzn-SageMaker-Target-Variant": "v",
        "X-Amzn-SageMaker-Target-Model": "m",
        "X-Amzn-SageMaker-Adapter-Identifier": "tiny-llama",
        "X-Forwarded-For": "10.0.0.9",
    }
    assert (await stack.http.post("/invocations", json=COMPLETION, headers=headers)).status_code == 200


async def test_nothing_of_a_clients_headers_goes_upstream() -> None:
    theirs = {name: "theirs" for name in names() if name.lower() != "x-amzn-sagemaker-adapter-identifier"}
    theirs |= {"x-request-id": "theirs", "user-agent": "theirs", "accept": "theirs", "cookie": "theirs=1"}
    theirs |= {"traceparent": "theirs", "x-forwarded-for": "theirs", "content-type": "application/json; of=theirs"}
    async with running(tiny(gateway={"steering": "strip"})) as stack:
        for path, body in {**BODIES, "/tokenize": {"prompt": "x"}}.items():
            assert (await stack.http.post(path, content=json.dumps(body), headers=theirs)).status_code == 200
        seen = stack.prefill.headers + stack.decode.headers
        assert len(seen) >= 2 * len(BODIES)
        assert [one.keys() - UPSTREAM for one in seen] == [set()] * len(seen)
        assert "theirs" not in str(seen)


async def test_strip_drops_and_counts(tmp_path: Path) -> None:
    before = counted("hyperpd_stripped_total", where="field", what="cache_salt")
    headers = counted("hyperpd_stripped_total", where="header", what="x-gateway-")
    fields = {
        "kv_transfer_params": {"do_remote_prefill": True, "remote_host": "10.0.0.9"},
        "cache_salt": "of-another",
        "priority": -1,
        "session_id": "s",
    }
    async with running(tiny(gateway={"steering": "strip"})) as stack:
        answer = await stack.ask({"x-gateway-destination-endpoint": "10.0.0.9:1"}, **fields)
        assert answer.status_code == 200
        assert (await stack.http.post("/tokenize", json={"prompt": "x", "priority": 1})).status_code == 200
        session = {"X-Amzn-SageMaker-Session-Id": "s"}
        assert (await stack.http.post("/invocations", json=COMPLETION, headers=session)).status_code == 200
        assert stack.prefill.bodies[0]["kv_transfer_params"]["remote_host"] is None
        for body in stack.prefill.bodies + stack.decode.bodies:
            assert not {"cache_salt", "priority", "session_id"} & body.keys()
        assert "10.0.0.9" not in str(stack.decode.bodies)
        wrong = await stack.ask(colour="blue")
        assert wrong.status_code == 400  # what nobody knows is still a mistake
    assert counted("hyperpd_stripped_total", where="field", what="cache_salt") == before + 1
    assert counted("hyperpd_stripped_total", where="header", what="x-gateway-") == headers + 1


async def test_strip_drops_what_operators_alone_may_ask(tmp_path: Path) -> None:
    async with keyed(tmp_path, steering="strip") as stack:
        answer = await stack.ask({**bearer(USER), "x-hyperpd-explain": "1", "x-hyperpd-mode": "aggregated"})
        assert (answer.status_code, "x-hyperpd-decision" in answer.headers) == (200, False)
        assert len(stack.prefill.bodies) == 1  # it was not served as it said


async def test_a_key_may_be_allowed_fields(tmp_path: Path) -> None:
    async with keyed(tmp_path, ("priority", "prompt_embeds")) as stack:
        assert (await stack.ask(bearer(USER), priority=-5)).status_code == 200
        assert [body["priority"] for body in (*stack.prefill.bodies, *stack.decode.bodies)] == [-5, -5]
        for path in ("/v1/chat/completions", "/v1/responses"):
            answer = await stack.http.post(path, json=BODIES[path] | {"priority": 1}, headers=bearer(USER))
            assert answer.status_code == 200
        for path, body in (
            ("/v1/messages", {"priority": 1}),  # an engine would not read it
            ("/v1/chat/completions", {"prompt_embeds": "AAAA"}),
            ("/v1/completions", {"cache_salt": "x"}),
        ):
            answer = await stack.http.post(path, json=BODIES[path] | body, headers=bearer(USER))
            assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
        for key in (OTHER, OPERATOR):
            for field in ({"priority": 1}, {"prompt_embeds": "AAAA"}):
                answer = await stack.ask(bearer(key), **field)
                assert answer.status_code == 400
                assert "not accepted, " in answer.json()["error"]["message"]


async def test_embeddings_stay_on_decode(tmp_path: Path) -> None:
    async with keyed(tmp_path, ("prompt_embeds",)) as stack:
        body = {"prompt_embeds": "AAAA", "max_tokens": 4}
        answer = await stack.http.post("/v1/completions", json=body, headers=bearer(USER))
        assert (answer.status_code, stack.prefill.bodies) == (200, [])
        assert stack.decode.bodies[0]["prompt_embeds"] == "AAAA"


async def test_nobody_is_allowed_fields_without_a_key(stack: Stack) -> None:
    for field in ({"priority": 1}, {"prompt_embeds": "AAAA"}):
        assert (await stack.ask(**field)).status_code == 400


def test_what_a_key_is_allowed_is_checked(tmp_path: Path) -> None:
    entry = {"name": "a", "sha256": "0" * 64, "scope": "user", "concurrent_requests": None, "allow": ["vllm_xargs"]}
    with pytest.raises(RecipeError, match=r"0\.allow\.0: Input should be 'priority' or 'prompt_embeds'"):
        keys.parse(json.dumps([entry]).encode(), "keys.json")


async def test_a_mode_is_for_operators(tmp_path: Path) -> None:
    async with keyed(tmp_path, decider="uncached_tokens", threshold_tokens=100) as stack:
        refused = await stack.ask({**bearer(USER), "x-hyperpd-mode": "aggregated"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "operators_only")
        explained = {**bearer(OPERATOR), "x-hyperpd-explain": "1"}
        served = []
        for mode in ({}, {"x-hyperpd-mode": "pd"}, {"x-hyperpd-mode": "aggregated"}):
            answer = await stack.ask({**explained, **mode})
            assert answer.status_code == 200
            served.append(answer.headers["x-hyperpd-decision"])
        assert served == [
            "disaggregated; reason=plain; routing=below_threshold; served=local",
            "disaggregated; reason=plain; routing=forced; served=pd",
            "decode_only; reason=forced; routing=forced; served=decode_only",
        ]
        assert len(stack.prefill.bodies) == 1
        many = await stack.ask({**explained, "x-hyperpd-mode": "pd"}, n=2)
        assert many.headers["x-hyperpd-decision"] == "split; reason=n; routing=forced; served=pd"


async def test_a_mode_that_cannot_be_is_refused(stack: Stack) -> None:
    """Without keys whoever reaches the API is its operator."""
    assert (await stack.ask({"x-hyperpd-mode": "aggregated"})).status_code == 200
    assert stack.prefill.bodies == []
    for headers, path, body, code in (
        ({"x-hyperpd-mode": "fast"}, "/v1/completions", COMPLETION, "invalid_mode"),
        ({"x-hyperpd-mode": "pd"}, "/v1/completions", COMPLETION | {"use_beam_search": True}, "mode_impossible"),
        ({"x-hyperpd-mode": "pd"}, "/tokenize", {"prompt": "x"}, "mode_impossible"),
    ):
        answer = await stack.http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    stack.pool.disaggregated = False
    answer = await stack.ask({"x-hyperpd-mode": "pd"})
    assert "there are no prefill workers here" in answer.json()["error"]["message"]


async def test_a_session_may_come_with_any_key_and_goes_nowhere(tmp_path: Path) -> None:
    async with keyed(tmp_path, isolate_prefix_cache=True) as stack:
        for key in (USER, OPERATOR):
            for path, body in {**BODIES, "/tokenize": {"prompt": "x"}}.items():
                headers = {**bearer(key), "x-hyperpd-session": "conversation-1"}
                assert (await stack.http.post(path, json=body, headers=headers)).status_code == 200
        sent = (stack.prefill.headers, stack.decode.headers, stack.prefill.bodies, stack.decode.bodies)
        assert "conversation-1" not in str(sent)


async def test_routing_hears_of_a_session_and_believes_it_for_the_same_prompt(tmp_path: Path) -> None:
    blocks = {"kv_transfer": {"block_size_tokens": 16}}
    async with keyed(tmp_path, recipe=blocks) as stack:
        router = stack.pool.routing.router
        choose, flights = router.choose, []

        def heard(*args: Any, **more: Any) -> Flight:
            flights.append(choose(*args, **more))
            return flights[-1]

        router.choose = heard  # type: ignore[method-assign]
        # By their bytes 111 tokens; with the first of the two that the fake says, 7 blocks of 16 instead of 6.
        first, more = "a" * 444, "b" * 600

        async def cached(prompt: str, key: str, session: str) -> int:
            headers = {**bearer(key), "x-hyperpd-session": session}
            assert (await stack.ask(headers, prompt=prompt)).status_code == 200
            return flights[-1].choice.decode.cached_tokens

        assert await cached(first, USER, "s") == 0
        assert flights[0].request.session == "user/s"
        assert await cached(first + more, OTHER, "s") == 96  # another key's of that name
        assert await cached("c" * 444 + more, USER, "s") == 0  # it does not go on there
        assert await cached(first, USER, "s") == 96
        assert await cached(first + "d" * 600, USER, "s") == 112


def test_sessions_of_two_keys_never_meet(tmp_path: Path) -> None:
    def session(name: str | None, key: str | None) -> str:
        entry = {"name": key, "sha256": "0" * 64, "scope": "user", "concurrent_requests": None}
        found = keys.parse(json.dumps([entry]).encode(), "keys.json")[0] if key else None
        headers = Headers({"x-hyperpd-session": name} if name else {})
        return steering.caller(headers, "/v1/completions", found, tiny().recipe.gateway).session

    assert session(None, "a") == session(None, None) == ""
    assert session("s", "a") == session("s", "a")
    named = [session(name, key) for name in ("s", "/s", "a/s", "b") for key in (None, "a", "b", "a.b")]
    assert len(set(named)) == len(named)


async def test_keys_have_prefixes_of_their_own(tmp_path: Path) -> None:
    async with keyed(tmp_path, isolate_prefix_cache=True) as stack:
        salts = []
        for key in (USER, OTHER):
            for path, body in BODIES.items():
                assert (await stack.http.post(path, json=body, headers=bearer(key))).status_code == 200
            assert (await stack.ask(bearer(key), n=2)).status_code == 200
            sent = stack.prefill.bodies + stack.decode.bodies
            assert len(sent) == 2 * len(BODIES) + 4
            salts.append({body["cache_salt"] for body in sent})
            stack.prefill.bodies.clear()
            stack.decode.bodies.clear()
        assert [len(one) for one in salts] == [1, 1]  # on both legs, in every API
        assert salts[0] != salts[1]
        digests = [hashlib.sha256(key.encode()).hexdigest() for key in (USER, OTHER)]
        assert not any(digest[:16] in str(salts) for digest in digests)


async def test_what_one_worker_answers_is_kept_apart_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, dict[str, Any]] = {}

    async def pass_on(path: str, body: dict[str, Any], record: Record) -> Answer:
        seen[path] = body
        return Answer(200, "application/json", b"{}")

    async with keyed(tmp_path, isolate_prefix_cache=True) as stack:
        monkeypatch.setattr(stack.flow, "pass_on", pass_on)
        for path in PASSED:
            assert (await stack.http.post(path, json={}, headers=bearer(USER))).status_code == 200
    salted = {path for path, body in seen.items() if "cache_salt" in body}
    assert salted == {path for path in PASSED if "token" not in path}  # these three compute nothing


async def test_another_tenants_prompt_is_not_in_the_cache(tmp_path: Path) -> None:
    async with keyed(tmp_path, isolate_prefix_cache=True) as stack:
        cached = [
            (await stack.ask(bearer(key))).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            for key in (USER, OTHER, USER)
        ]
        assert cached == [0, 0, len("hello")]


async def test_a_poisoned_decodes_salt_comes_on_top(tmp_path: Path) -> None:
    async with keyed(tmp_path, isolate_prefix_cache=True) as stack:
        await stack.ask(bearer(USER))
        stack.flow._hide_cache(next(member for member in stack.pool.members if member.role == "decode"))
        for key in (USER, OTHER):
            await stack.ask(bearer(key))
        before, mine, theirs = (body["cache_salt"] for body in stack.decode.bodies)
        assert mine.startswith(before)
        assert len({before, mine, theirs}) == 3
        assert mine.removeprefix(before) == theirs.removeprefix(stack.prefill.bodies[-1]["cache_salt"])
        assert max(map(len, (mine, theirs))) <= 128  # vLLM's bound


async def test_keys_share_prefixes_where_nothing_is_said(tmp_path: Path) -> None:
    async with keyed(tmp_path) as stack:
        await stack.ask(bearer(USER))
        assert [body.get("cache_salt") for body in stack.prefill.bodies + stack.decode.bodies] == [None, None]


def test_isolation_needs_keys() -> None:
    with pytest.raises(RecipeError, match="isolate_prefix_cache: goes with auth: keys"):
        tiny(gateway={"isolate_prefix_cache": True})
