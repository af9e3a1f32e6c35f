"""What a gateway takes on: requests at once, the length of a body, and prompts too short to be moved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hyperpd_runtime.gateway.apis import CHAT
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
    ("asked", "how"),
    [
        ({"prompt": "x" * 36}, "short_prompt"),
        ({"prompt": "x" * 37}, "plain"),
        ({"prompt": list(range(3, 12))}, "short_prompt"),
        ({"prompt": list(range(3, 13))}, "plain"),
        ({"prompt": "x", "use_beam_search": True}, "beam_search"),  # the shape comes first
    ],
)
async def test_a_short_prompt_stays_on_decode(asked: dict[str, Any], how: str) -> None:
    async with running(tiny(gateway={"threshold_tokens": 10})) as stack:
        mode = "pd" if how == "plain" else "decode_only"
        before = counted("hyperpd_requests_total", mode=mode, why=how, outcome="ok")
        assert (await stack.ask(**asked)).status_code == 200
        assert counted("hyperpd_requests_total", mode=mode, why=how, outcome="ok") == before + 1
        assert len(stack.prefill.bodies) == (how == "plain")


async def test_each_prompt_of_a_list_is_long_or_short_by_itself() -> None:
    async with running(tiny(gateway={"threshold_tokens": 10})) as stack:
        assert (await stack.ask(prompt=["short", "l" * 100])).status_code == 200
        assert [body["prompt"] for body in stack.prefill.bodies] == ["l" * 100]


async def test_every_prompt_is_moved_where_there_is_no_threshold() -> None:
    async with running(tiny()) as stack:
        await stack.ask(prompt="x")
        assert len(stack.prefill.bodies) == 1


@pytest.mark.parametrize(
    ("messages", "tokens"),
    [
        ([{"role": "user", "content": "12345"}], 2),
        ([{"role": "user", "content": "123"}, {"role": "assistant", "content": None}, {"content": "45"}], 2),
        ([{"role": "user", "content": [{"type": "text", "text": "1234"}, {"type": "text", "text": "5"}]}], 2),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], float("inf")),
        ([7], float("inf")),
        ([{"content": 7}], float("inf")),
    ],
)
def test_the_estimate_of_a_chat(messages: Any, tokens: float) -> None:
    assert Ask({"messages": messages}, CHAT).estimated_tokens() == tokens
