"""What a gateway takes on: requests at once, the length of a body, and prompts too short to be moved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperpd.errors import RecipeError
from hyperpd.recipe import Limits
from hyperpd_runtime.gateway import bounds
from hyperpd_runtime.gateway.apis import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Api
from hyperpd_runtime.gateway.shapes import Ask
from tests.container.stack import counted, running, tiny, until

SMALL = {"limits": {"body_mib": 1 / 1024}}  # 1 KiB


async def test_more_requests_than_the_recipe_allows() -> None:
    async with running(tiny(gateway={"limits": {"concurrent_requests": 2}})) as stack:
        refused = counted("hyperpd_requests_total", mode="-", why="-", outcome="overloaded")
        stack.decode.fault = "hang"
        asking = [asyncio.create_task(stack.ask()) for _ in range(2)]
        await until(lambda: len(stack.decode.bodies) == 2)
        answer = await stack.ask()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("overloaded", "rate_limit_error")
        assert counted("hyperpd_requests_total", mode="-", why="-", outcome="overloaded") == refused + 1
        assert (await stack.http.get("/ping")).status_code == 200  # it would be answered in a moment
        stack.decode.proceed.set()
        assert [(await one).status_code for one in asking] == [200, 200]
        assert (await stack.ask()).status_code == 200
        assert stack.pool.in_flight == 0
        assert len(stack.prefill.bodies) == 3


@pytest.mark.parametrize(
    "sent",
    [
        b"content-length: 1025\r\n\r\n",  # told so at once: nothing of it has been sent
        b"expect: 100-continue\r\ncontent-length: 1025\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n" + 2 * (b"300\r\n" + 0x300 * b"x" + b"\r\n"),  # and it goes on
    ],
)
async def test_a_body_that_is_too_long_is_not_read(sent: bytes) -> None:
    async with running(tiny(gateway=SMALL)) as stack:
        answer = await stack.raw(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + sent)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"body_too_large"' in answer
        assert b"connection: close\r\n" in answer
        assert stack.pool.in_flight == 0
        assert stack.prefill.bodies == stack.decode.bodies == []


@pytest.mark.parametrize(("spaces", "status"), [(0, 200), (1, 413)])
async def test_a_body_of_exactly_the_limit(spaces: int, status: int) -> None:
    async with running(tiny(gateway=SMALL)) as stack:
        body = b'{"prompt": "x"}'.ljust(1024 + spaces)
        assert (await stack.http.post("/v1/completions", content=body)).status_code == status


@pytest.mark.parametrize(
    ("asked", "remote"),
    [
        ({"prompt": "x" * 36}, False),
        ({"prompt": "x" * 37}, True),
        ({"prompt": list(range(3, 12))}, False),
        ({"prompt": list(range(3, 13))}, True),
        ({"prompt": ["x" * 37]}, True),  # a list of one
        ({"prompt": ["x" * 36]}, False),
        ({"prompt": "x" * 37, "use_beam_search": True}, False),  # the shape comes first
    ],
)
async def test_a_short_prompt_stays_on_decode(asked: dict[str, Any], remote: bool) -> None:
    async with running(tiny(gateway={"decider": "uncached_tokens", "threshold_tokens": 10})) as stack:
        assert (await stack.ask(**asked)).status_code == 200
        assert len(stack.prefill.bodies) == remote


async def test_each_prompt_of_a_list_is_long_or_short_by_itself() -> None:
    async with running(tiny(gateway={"decider": "uncached_tokens", "threshold_tokens": 10})) as stack:
        assert (await stack.ask(prompt=["short", "l" * 100])).status_code == 200
        assert [body["prompt"] for body in stack.prefill.bodies] == ["l" * 100]


async def test_every_prompt_is_moved_by_the_decider_always() -> None:
    async with running(tiny()) as stack:
        await stack.ask(prompt="x")
        assert len(stack.prefill.bodies) == 1


HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("path", "asked", "sent"),
    [
        ("/v1/completions", {"prompt": "x"}, {"max_tokens": 16}),  # what the engine takes it for
        ("/v1/completions", {"prompt": "x", "max_tokens": None}, {"max_tokens": 40}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 9}, {"max_tokens": 9}),
        ("/v1/chat/completions", {"messages": HELLO}, {"max_completion_tokens": 40}),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 9}, {"max_tokens": 9}),
        ("/v1/responses", {"input": "x", "max_output_tokens": None}, {"max_output_tokens": 40}),
        ("/v1/messages", {"messages": HELLO}, {"max_tokens": 40}),
    ],
)
async def test_an_output_of_no_stated_length_is_bounded(path: str, asked: dict[str, Any], sent: dict[str, int]) -> None:
    async with running(tiny(gateway={"limits": {"output_tokens": 40}})) as stack:
        assert (await stack.http.post(path, json=asked)).status_code == 200
        (body,) = stack.decode.bodies
        assert {key: value for key, value in body.items() if key.startswith("max_")} == sent


def test_without_limits_of_its_own_a_request_is_as_long_as_the_model_allows() -> None:
    for limits in (Limits(), Limits(output_tokens=8)):
        ask = Ask({"prompt": [7] * 100_000, "max_tokens": 10**6}, COMPLETIONS)
        found = bounds.excess(ask, limits)
        assert (found and found.param) == ("max_tokens" if limits.output_tokens else None)
    body = {"messages": HELLO}
    assert bounds.output_limit(Ask(body, CHAT), Limits()) == {}
    assert bounds.output_limit(Ask({"prompt": "x"}, COMPLETIONS), Limits(output_tokens=8)) == {"max_tokens": 8}


@pytest.mark.parametrize(
    ("api", "body", "tokens", "exact"),
    [
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 3, True),
        (COMPLETIONS, {"prompt": [[1, 2, 3], [1]]}, 3, True),
        (COMPLETIONS, {"prompt": ["x" * 9, "x"]}, 3, False),
        (COMPLETIONS, {"prompt": ["x", 7, None]}, 1, False),
        (CHAT, {"messages": [{"content": "12345"}, {"content": [{"type": "text", "text": "678"}]}]}, 3, False),
        (CHAT, {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "x" * 99}}]}]}, 0, False),
        (CHAT, {"messages": [], "tools": [{"function": {"description": "x" * 40}}]}, 10, False),
        (MESSAGES, {"messages": [], "system": [{"type": "text", "text": "x" * 36}]}, 10, False),
        (MESSAGES, {"messages": [{"content": [{"type": "image", "source": {"data": "x" * 99}}]}]}, 0, False),
        (RESPONSES, {"input": "12345", "instructions": "678"}, 2, False),
    ],
)
def test_the_longest_prompt(api: Api, body: dict[str, Any], tokens: int, exact: bool) -> None:
    """Of dictionaries every text counts, the names of types among them; of media nothing does."""
    assert Ask(body, api).longest_prompt() == (tokens, exact)


async def test_a_limit_itself_is_allowed() -> None:
    limits = {"prompt_tokens": 4, "output_tokens": 4, "choices": 4}
    async with running(tiny(gateway={"limits": limits})) as stack:
        for asked in ({"prompt": [5] * 4}, {"prompt": "x" * 16}, {"prompt": ["x", "y"], "n": 2, "temperature": 1}):
            assert (await stack.ask(**asked)).status_code == 200
        assert (await stack.ask(prompt="x" * 17)).json()["error"]["code"] == "context_length_exceeded"


def test_limits_are_checked_all_at_once() -> None:
    wrong = {"body_mib": 0, "header_kib": 1, "json_depth": 1, "choices": 0, "idle_s": 0, "total_s": -1, "total": 1}
    with pytest.raises(RecipeError) as caught:
        tiny(gateway={"limits": wrong})
    assert len(caught.value.problems) == len(wrong)
    assert "did you mean total_s?" in str(caught.value)


async def test_what_a_page_can_send_unasked_is_not_taken() -> None:
    """A script's request without a preflight: no Content-Type, and the page's origin."""
    async with running(tiny()) as stack:
        body = b'{"prompt": "hello", "max_tokens": 4}'
        answer = await stack.http.post("/v1/completions", content=body, headers={"origin": "https://page.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert (await stack.http.post("/v1/completions", content=body)).status_code == 200  # as boto3 may


async def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    async with running(tiny()) as stack:
        assert (await stack.ask(max_tokens=4.0)).status_code == 200
        assert isinstance(stack.decode.bodies[-1]["max_tokens"], int)
        assert (await stack.ask(max_tokens=4.5)).status_code == 400
