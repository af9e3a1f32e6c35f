"""API keys: who may enter, and the file they come from."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from hyperpd.errors import RecipeError
from hyperpd.placement import Placement
from hyperpd_runtime.gateway import app, keys
from hyperpd_runtime.gateway.discovery import Sources
from hyperpd_runtime.gateway.flow import Flow
from hyperpd_runtime.gateway.keys import Keys
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.gateway.server import Gateway
from hyperpd_runtime.listen import Listener
from tests.container.stack import Stack, counted, free_port, running, tiny, until

ALICE, BOB = "sk-alice-0123456789", "sk-bob-9876543210"
RECIPE = tiny(gateway={"auth": "keys"})


def entry(name: str, key: str, scope: str = "user", concurrent_requests: int | None = None) -> dict[str, Any]:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return {"name": name, "sha256": digest, "scope": scope, "concurrent_requests": concurrent_requests}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps([entry("alice", ALICE, concurrent_requests=1), entry("bob", BOB, "operator")]))
    return path


@pytest.fixture
def held(file: Path) -> Keys:
    found = keys.of(RECIPE.recipe, str(file))
    assert found
    return found


@pytest.fixture
async def stack(held: Keys) -> AsyncIterator[Stack]:
    async with running(RECIPE, held) as started:
        yield started


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": f"Basic {ALICE}"}, "missing_api_key"),
        (bearer(ALICE + "0"), "invalid_api_key"),
        (bearer(entry("alice", ALICE)["sha256"]), "invalid_api_key"),  # a leaked file opens nothing
        ({"Authorization": "Bearer schlüssel".encode()}, "invalid_api_key"),
        ({"x-api-key": ""}, "missing_api_key"),
        ({"x-api-key": ALICE + "0"}, "invalid_api_key"),
        ({"x-api-key": f"Bearer {ALICE}"}, "invalid_api_key"),
        ({**bearer(ALICE), "x-api-key": BOB}, "conflicting_api_keys"),
        ({**bearer(ALICE), "x-api-key": "sk-unknown"}, "conflicting_api_keys"),
        ([("x-api-key", ALICE), ("x-api-key", BOB)], "conflicting_api_keys"),
        ([*bearer(ALICE).items(), *bearer(BOB).items()], "conflicting_api_keys"),
    ],
)
async def test_who_may_not_enter(stack: Stack, headers: Any, code: str) -> None:
    for method, path in (
        ("POST", "/v1/completions"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/invocations"),
        ("GET", "/v1/models"),
    ):
        answer = await stack.http.request(method, path, headers=headers, json={"prompt": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert not any(secret in answer.text for secret in (ALICE, BOB, "sk-unknown"))
    assert stack.prefill.bodies == stack.decode.bodies == []


async def test_who_may(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert (await stack.ask(bearer(ALICE))).status_code == 200
    assert (await stack.ask({"authorization": f"bearer  {BOB}"})).status_code == 200
    assert (await stack.http.get("/v1/models", headers=bearer(BOB))).status_code == 200
    lines = [line for line in caplog.messages if line.startswith("event=request ")]
    assert [" key=alice " in lines[0], " key=bob " in lines[1]] == [True, True]
    assert not any(secret in caplog.text for secret in (ALICE, BOB))


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": ALICE},
        {"X-Api-Key": ALICE},
        {**bearer(ALICE), "x-api-key": ALICE},
        {"Authorization": "Basic of-a-proxy", "x-api-key": ALICE},
    ],
)
async def test_a_key_in_the_other_header(
    stack: Stack, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """As Anthropic's clients send it. The stand-in of an engine refuses a request that brings a key along."""
    caplog.set_level(logging.INFO)
    assert (await stack.ask(headers)).status_code == 200
    body = {"max_tokens": 4, "messages": [{"role": "user", "content": "x"}]}
    assert (await stack.http.post("/v1/messages", headers=headers, json=body)).status_code == 200
    assert (await stack.http.post("/tokenize", headers=headers, json={"prompt": "x"})).status_code == 200
    assert (await stack.http.get("/v1/models", headers=headers)).status_code == 200
    lines = [line for line in caplog.messages if line.startswith("event=request ")]
    assert [" key=alice " in line for line in lines] == [True] * 3
    assert ALICE not in caplog.text


async def test_probes_need_no_key(stack: Stack) -> None:
    for path in ("/ping", "/health"):
        assert (await stack.http.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "sk-unknown"}, 401),
        ({"x-api-key": ALICE, "x-hyperpd-explain": "1"}, 403),
        ({"x-api-key": ALICE, "x-session-id": "1"}, 400),
    ],
)
async def test_who_may_not_is_told_before_the_body_is_read(stack: Stack, headers: dict[str, str], status: int) -> None:
    """Of a body that never comes; and the connection, which is of no use any more, is closed."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = await stack.raw(
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\n{lines}content-length: 1000\r\n\r\n{{".encode()
    )
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/invocations", "/tokenize", "/adapters"])
async def test_not_a_byte_of_a_strangers_body_is_read(held: Keys, path: str) -> None:
    said: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        said.append(message)

    server = app.api(cast(Flow, None), Pool(disaggregated=True, routing=Routing(RECIPE.recipe)), RECIPE, held)
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [(b"x-api-key", b"sk-x")]}
    await server(scope, receive, send)
    assert said[0]["status"] == 401


async def test_a_fleets_state_is_for_operators(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """Also what an error or a probe would say of it: names and addresses of workers."""
    stack.decode.fault = "500"
    said = {key: await stack.ask(bearer(key)) for key in (ALICE, BOB)}
    assert [answer.status_code for answer in said.values()] == [502, 502]
    for member in stack.pool.members:
        member.healthy, member.why = False, f"no answer at {member.url}"
    lost = {key: await stack.ask(bearer(key)) for key in (ALICE, BOB)}
    assert [answer.status_code for answer in lost.values()] == [503, 503]
    assert lost[ALICE].headers["retry-after"] == lost[BOB].headers["retry-after"]
    for answers in (said, lost):
        theirs, operators = (answers[key].json()["error"] for key in (ALICE, BOB))
        assert theirs["code"] == operators["code"]
        assert "decode-0" in operators["message"]
        assert not any(word in answers[ALICE].text for word in ("decode-0", "127.0.0.1", "prefill"))
        assert f"event=withheld request_id={theirs['request_id']} code={theirs['code']} " in caplog.text
    for path in ("/ping", "/health"):
        probed = await stack.http.get(path)
        assert (probed.status_code, probed.json()) == (503, {"status": "unavailable"})


async def test_a_key_has_a_limit_of_its_own(stack: Stack) -> None:
    stack.decode.fault = "hang"
    asking = asyncio.create_task(stack.ask(bearer(ALICE)))
    await stack.decode.arrived.wait()
    answer = await stack.ask(bearer(ALICE))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "key_overloaded")
    assert answer.headers["retry-after"] == "1"
    other = asyncio.create_task(stack.ask(bearer(BOB)))
    await until(lambda: len(stack.decode.bodies) == 2)
    stack.decode.proceed.set()
    assert [(await one).status_code for one in (asking, other)] == [200, 200]
    assert (await stack.ask(bearer(ALICE))).status_code == 200


async def test_the_file_is_replaced_while_requests_run(
    stack: Stack, held: Keys, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_LOOK_EVERY_S", 0.01)
    watching = asyncio.create_task(held.watch())
    stack.decode.fault = "hang"
    asking = asyncio.create_task(stack.ask(bearer(ALICE)))
    await stack.decode.arrived.wait()
    new = file.with_name("new.json")
    new.write_text(json.dumps([entry("alice", "sk-alice-2", concurrent_requests=1)]))
    new.replace(file)
    await until(lambda: held.status()["count"] == 1)
    assert (await stack.ask(bearer(ALICE))).status_code == 401
    assert (await stack.ask(bearer("sk-alice-2"))).status_code == 429  # it is still hers that runs
    stack.decode.proceed.set()
    assert (await asking).status_code == 200
    assert (await stack.ask(bearer("sk-alice-2"))).status_code == 200
    watching.cancel()


async def test_a_gateway_follows_its_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_LOOK_EVERY_S", 0.01)
    ports = Placement((), free_port(), free_port())
    gateway = Gateway(RECIPE, Sources(()), "127.0.0.1", ports, lambda: None, keys_file=str(file))
    await gateway.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.api_port}") as http:
            assert (await http.get("/v1/models", headers=bearer(BOB))).status_code == 200
            file.write_text(json.dumps([entry("alice", ALICE)]))
            async with asyncio.timeout(20):
                while (await http.get("/v1/models", headers=bearer(BOB))).status_code != 401:
                    pass
            assert (await http.get("/v1/models", headers=bearer(ALICE))).status_code == 200
    finally:
        await gateway.stop()


@pytest.mark.parametrize("broken", ["[", None])
async def test_a_broken_file_keeps_the_keys_and_says_so(
    stack: Stack, held: Keys, file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before, content = counted("hyperpd_key_file_failures_total"), file.read_text()
    if broken:
        file.write_text(broken)
    else:
        file.unlink()
    for _ in range(3):
        await held.look()
    assert (await stack.ask(bearer(ALICE))).status_code == 200
    assert counted("hyperpd_key_file_failures_total") == before + 1
    assert len([line for line in caplog.messages if line.startswith("event=keys_kept ")]) == 1
    port = free_port()
    listener = Listener(app.admin(stack.pool, RECIPE, lambda: None, held), "127.0.0.1", port)
    await listener.start()
    try:
        status = (await stack.http.get(f"http://127.0.0.1:{port}/status")).json()["keys"]
    finally:
        await listener.stop()
    assert status["count"] == 2
    assert ("not a JSON list" if broken else "cannot be read any more") in status["problem"]
    file.write_text(content)
    await held.look()
    assert held.status() == {"count": 2, "problem": None}


def test_every_problem_of_a_file_at_once_and_never_a_key(file: Path) -> None:
    wrong = [
        {**entry("alice", ALICE), "sha256": ALICE},
        7,
        {**entry("has space", "b"), "scope": "admin", "concurrent_requests": 0},
        {**entry("alice", "c"), "concurrent": 3},
        {"name": "dora", "sha256": entry("", "c")["sha256"]},
        {**entry("eve", "e"), "concurrent_requests": "4"},
        {**entry("fay", "f"), BOB: "bob"},
    ]
    file.write_text(json.dumps(wrong))
    with pytest.raises(RecipeError) as caught:
        Keys(file)
    text = str(caught.value)
    for says in (
        "0.sha256: String should match",
        "1: Input should be an object",
        "2.name: String should match",
        "2.scope: Input should be 'user' or 'operator'",
        "2.concurrent_requests: Input should be greater than",
        "3.name: the same as of an entry before",
        "3: a field that is not known; did you mean concurrent_requests?",
        "6: a field that is not known; known here: name, sha256, scope, concurrent_requests, allow",
        "4.sha256: the same as of an entry before",
        "4.scope: missing; add it",
        "4.concurrent_requests: missing; add it",
        "5.concurrent_requests: Input should be a valid integer",
    ):
        assert says in text
    assert len(caught.value.problems) == 12
    assert not any(secret in text for secret in (ALICE, BOB))


@pytest.mark.parametrize("content", ["", "{}", "[]", "nul", '"x"'])
def test_a_file_that_is_no_list(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(RecipeError, match="not a JSON list like"):
        Keys(file)


def test_recipe_and_setting_go_together(file: Path) -> None:
    assert keys.of(tiny().recipe, "") is None
    with pytest.raises(RecipeError, match=r"keys-file: missing; the recipe says gateway\.auth: keys"):
        keys.of(RECIPE.recipe, "")
    with pytest.raises(RecipeError, match="nobody would need a key"):
        keys.of(tiny().recipe, str(file))
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        keys.of(RECIPE.recipe, str(file) + "x")


async def test_where_an_invocation_goes_is_for_those_with_a_key(stack: Stack) -> None:
    wrong = {"X-Amzn-SageMaker-Custom-Attributes": "route=/nope"}
    answer = await stack.http.post("/invocations", json={"prompt": "x"}, headers=wrong)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")
    answer = await stack.http.post("/invocations", json={"prompt": "x"}, headers=wrong | bearer(ALICE))
    assert answer.status_code == 400
    assert "route '/nope' is not served" in answer.json()["error"]["message"]
    assert answer.headers["x-hyperpd-request-id"]
