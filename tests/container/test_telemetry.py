"""The line that a request leaves in the log, and what it adds to the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from hyperpd.errors import DecodeFailed
from hyperpd_runtime.gateway import telemetry, usage
from tests.container.stack import Stack, counted, running, tiny

SECRET = "tulips-at-noon"
ASKED: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": SECRET},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": SECRET}]},
    "/v1/responses": {"input": SECRET},
    "/v1/messages": {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 9},
}
STAMPS = ("queue_ms", "prefill_ms", "handoff_ms", "first_token_ms", "total_ms")
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as started:
        yield started


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    found = [one.getMessage() for one in caplog.records if one.getMessage().startswith("event=request ")]
    return [dict(pair.split("=", 1) for pair in line.split(" ")) for line in found]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ASKED)
async def test_one_line_says_all_of_a_request(
    stack: Stack, caplog: pytest.LogCaptureFixture, path: str, stream: bool
) -> None:
    caplog.set_level("DEBUG", "hyperpd.gateway")
    before = counted("hyperpd_tokens_total", kind="output")
    body = {**ASKED[path], "stream": stream}
    if stream and path.endswith("completions"):
        body["stream_options"] = {"include_usage": True}
    for _ in range(2):  # the second time prefill has it cached
        answer = await stack.http.post(path, json=body, headers={"authorization": "Bearer sk-not-for-logs"})
        assert answer.status_code == 200
    first, line = lines(caplog)
    assert line | {"client_id": "", "request_id": ""} == {
        **dict.fromkeys((*STAMPS, *TOKENS), "") | line,
        **{"event": "request", "client_id": "", "request_id": "", "key": "-", "decision": "disaggregated"},
        **{"why": "plain", "mode": "pd", "prefill": "prefill-0", "decode": "decode-0", "outcome": "ok"},
    }
    assert [line[name].isdigit() for name in STAMPS] == [True, True, stream, stream, True]
    assert (first["cached_tokens"], line["cached_tokens"]) == ("0", str(len(SECRET)))
    assert (line["prompt_tokens"], line["output_tokens"]) == ("3", "2")
    assert counted("hyperpd_tokens_total", kind="output") == before + 4
    assert not {SECRET, "sk-not-for-logs"} & {*caplog.text.replace("'", " ").split()}
    assert SECRET not in caplog.text


async def test_a_stream_that_says_no_usage_has_no_tokens(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hyperpd.gateway")
    await stack.ask(stream=True)
    (line,) = lines(caplog)
    assert [line[name] for name in TOKENS] == ["-", "-", "-"]
    assert line["first_token_ms"].isdigit()


async def test_a_split_request_is_one_line_of_all_its_parts(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hyperpd.gateway")
    await stack.ask(prompt=["one", "two"], n=2, temperature=1, stream=True, stream_options={"include_usage": True})
    (line,) = lines(caplog)
    assert (line["decision"], line["mode"], line["outcome"]) == ("split", "pd", "ok")
    assert all(line[name].isdigit() for name in STAMPS)
    assert [line[name] for name in ("prompt_tokens", "output_tokens")] == ["6", "8"]


async def test_who_never_got_a_ticket_has_no_handoff(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hyperpd.gateway")
    handoffs = counted("hyperpd_handoff_seconds_count")
    stack.prefill.fault = "500"
    await stack.ask(stream=True)
    (line,) = lines(caplog)
    assert (line["mode"], line["handoff_ms"]) == ("recomputed", "-")
    assert counted("hyperpd_handoff_seconds_count") == handoffs


async def test_a_handoff_that_failed_is_none(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hyperpd.gateway")
    stack.decode.fault = "error_event"
    first_events = counted("hyperpd_first_event_seconds_count")
    await stack.ask(stream=True)
    assert counted("hyperpd_first_event_seconds_count") == first_events + 1  # not of what failed, too
    (line,) = lines(caplog)
    assert (line["mode"], line["prefill_ms"].isdigit(), line["handoff_ms"]) == ("recomputed", True, "-")


async def test_stages_are_histograms(stack: Stack) -> None:
    names = [f"hyperpd_{stage}_seconds_count" for stage in ("queue", "prefill", "handoff", "first_event", "request")]
    before = [counted(name) for name in names]
    await stack.ask(stream=True)
    await stack.ask()
    assert [counted(name) - was for name, was in zip(names, before, strict=True)] == [2, 2, 1, 1, 2]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DecodeFailed("decode-0 answered 500 with an error"), "decode-0 answered 500 with an error"),
        (aiohttp.ClientPayloadError(f"Bad chunk size: b'{SECRET}'"), "ClientPayloadError"),
        (aiohttp.ServerDisconnectedError(f"{SECRET}"), "ServerDisconnectedError"),
        (ValueError(SECRET), "ValueError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_for_the_log_never_quotes_an_engine(error: Exception, said: str) -> None:
    assert telemetry.described(error) == said


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        (b"", {}),
        (b'data: {"usage": null}\n\n', {}),
        (b'{"usage":{"prompt_tokens":7,"completion_tokens":2}}', {"prompt": 7, "output": 2}),
        (b'tokens": 3}, "usage": {"input_tokens": 7, "output_tokens": 2}, "user": null}', {"prompt": 7, "output": 2}),
        (b'{"usage":{"prompt_tokens":7,"completion_tokens":2},"metadata":{"usage":{"x":1}}}',
         {"prompt": 7, "output": 2}),
        (b'{"usage":{"input_tokens":1,"cache_read_input_tokens":5,"cache_creation_input_tokens":2,"output_tokens":3}}',
         {"prompt": 8, "cached": 5, "output": 3}),
        (b'{"usage":{"prompt_tokens":7,"completion_tok', {}),
        (b'{"usage":{"prompt_tokens":"7","completion_tokens":[]}}', {}),
        (b'{"usage":{"prompt_tokens":7,"completion_tokens":2,"prompt_tokens_details":7}}', {"prompt": 7, "output": 2}),
        (b'\xff"usage": {"prompt_tokens":7,"completion_tokens":0}', {"prompt": 7, "output": 0}),
    ],
)  # fmt: skip
def test_tokens_of_the_end_of_an_answer(said: bytes, tokens: dict[str, int]) -> None:
    assert usage.tokens(said) == tokens
