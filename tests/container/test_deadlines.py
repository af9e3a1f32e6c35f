"""What takes too long: told as an error, ended upstream, and counted by what was passed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hyperpd.errors import TimedOut
from hyperpd.recipe import Limits
from hyperpd.sse import Decoder
from hyperpd_runtime.gateway import deadlines, legs
from hyperpd_runtime.gateway.apis import CHAT
from hyperpd_runtime.gateway.deadlines import Deadlines
from hyperpd_runtime.gateway.relay import Answer
from hyperpd_runtime.gateway.telemetry import Record
from tests.container.stack import Stack, counted, running, tiny, until

LONG_S, SHORT_S = 3600, 0.2
HELLO = [{"role": "user", "content": "hello"}]
APIS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hello"},
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 4},
}


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Legs that have just been sent are closed at once."""
    monkeypatch.setattr(legs, "_GRACE_S", 0.05)


def limited(**limits: float) -> Any:
    return running(tiny(gateway={"limits": dict.fromkeys(("first_token_s", "idle_s", "total_s"), LONG_S) | limits}))


def outcomes(code: str) -> float:
    return sum(
        counted("hyperpd_requests_total", mode=mode, why=why, outcome=code)
        for mode in ("pd", "passed", "-")
        for why in ("plain", "prompt_list", "/tokenize")
    )


async def _nothing_is_left(stack: Stack) -> None:
    await stack.settled()
    await until(lambda: not stack.leases.pinned())
    assert stack.pool.in_flight == 0
    assert stack.pool.members[1].room.taken == 0
    await until(lambda: not stack.flow.legs._session.connector._acquired)  # connections in use


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize(("limit", "stream"), [("total_s", False), ("total_s", True), ("first_token_s", True)], ids=str)
async def test_no_answer_begins_in_time(path: str, limit: str, stream: bool) -> None:
    code = limit.replace("_s", "_timeout")
    async with limited(**{limit: SHORT_S}) as stack:
        stack.decode.fault = "hang"
        before = outcomes(code)
        answer = await stack.http.post(path, json={**APIS[path], "stream": stream})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (504, code)
        assert f"for 0.2 s, as long as gateway.limits.{limit} allows" in error["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert error["type"] == ("timeout_error" if path == "/v1/messages" else "server_error")
        assert outcomes(code) == before + 1
        await _nothing_is_left(stack)


async def test_a_whole_answer_has_no_first_token() -> None:
    async with limited(first_token_s=1e-9) as stack:
        assert (await stack.ask()).status_code == 200
        assert (await stack.ask(stream=True)).status_code == 504


async def test_what_goes_to_one_worker_has_an_end() -> None:
    async with limited(total_s=SHORT_S) as stack:
        stack.decode.fault = "hang"
        answer = await stack.http.post("/tokenize", json={"prompt": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "total_timeout")
        await _nothing_is_left(stack)


@pytest.mark.parametrize(("path", "limit"), [*((path, "idle_s") for path in APIS), ("/v1/completions", "total_s")])
async def test_a_stream_stops_in_the_middle(path: str, limit: str) -> None:
    code = limit.replace("_s", "_timeout")
    async with limited(**{limit: 2 if limit == "total_s" else SHORT_S}) as stack:
        stack.decode.fault, stack.decode.falters_at = "slow", 1  # says two events, and then nothing
        before = outcomes(code)
        answer = await stack.http.post(path, json={**APIS[path], "stream": True})
        *_, last = Decoder().feed(answer.content)
        said = json.loads(last)
        assert answer.status_code == 200
        assert said["error"]["code"] == code
        assert said.get("type") == ("error" if path in ("/v1/responses", "/v1/messages") else None)
        assert outcomes(code) == before + 1
        await stack.decode.aborted.wait()
        await _nothing_is_left(stack)


async def test_the_stream_of_a_list_of_prompts_stops_too() -> None:
    code = "idle_timeout"
    async with limited(idle_s=SHORT_S) as stack:
        stack.decode.fault = "slow"
        before = outcomes(code)
        answer = await stack.ask(prompt=["one", "two"], stream=True)
        *_, last = Decoder().feed(answer.content)
        assert json.loads(last)["error"]["code"] == code
        assert outcomes(code) == before + 1
        await _nothing_is_left(stack)


async def test_a_client_that_reads_slowly_is_not_taken_for_a_silent_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(deadlines.time, "monotonic", lambda: now_s)
    watch = deadlines._Watch(Limits(idle_s=10, total_s=100), Record("r", began_s=0.0))

    async def events() -> Any:
        nonlocal now_s
        yield b"first"
        now_s = 69.0
        watch._look()
        yield b"second"
        watch._look()
        await asyncio.Event().wait()

    relayed = events()
    assert await watch.next(relayed) == b"first"
    now_s = 60.0  # nobody has asked for the second
    watch._look()
    assert (await watch.next(relayed), watch.passed) == (b"second", "")
    now_s = 200.0  # the end has passed, and is told when there is somebody to tell it to
    watch._look()
    assert watch.passed == ""
    assert (await watch.next(relayed), watch.passed) == (None, "total_s")
    watch.stop()


async def test_decode_is_let_go_before_the_client_has_read_that_it_is() -> None:
    async def events() -> Any:
        yield b"data: 1"
        await asyncio.Event().wait()

    closed: list[bool] = []
    answer = Answer(200, "text/event-stream", b"", events(), lambda: closed.append(True))
    told = Deadlines(Limits(idle_s=0.01)).within(answer, CHAT, Record("r")).events
    assert told
    assert (await anext(told), closed) == (b"data: 1", [])
    assert b"idle_timeout" in await anext(told)
    assert closed == [True]


async def test_once_decode_works_its_first_text_may_be_held_back() -> None:
    """The role of a chat comes with the first token; a tool parser, or reasoning that is not shown, says no more."""
    record = Record("r")

    async def answering() -> Answer:
        record.at_work()
        await asyncio.sleep(4 * SHORT_S)
        return Answer(200, "text/event-stream")

    limits = Limits(first_token_s=SHORT_S, total_s=LONG_S)
    assert (await Deadlines(limits).answer(answering(), record, stream=True)).status == 200
    limits = Limits(first_token_s=SHORT_S, total_s=2 * SHORT_S)
    record = Record("r")
    with pytest.raises(TimedOut, match="total_s"):
        await Deadlines(limits).answer(answering(), record, stream=True)


async def test_parts_of_a_request_tell_that_they_work() -> None:
    told: list[str] = []
    record = Record("r", at_work=lambda: told.append("work"))
    record.for_part().at_work()
    assert told == ["work"]
