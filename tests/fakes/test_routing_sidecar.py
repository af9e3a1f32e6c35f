"""The played sidecar makes the documented requests, and no others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fakes.routing_sidecar import ASK, PREFILLER, REQUEST_ID, RoutingSidecar

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TICKET = {"do_remote_prefill": True, "remote_block_ids": [[1]], "remote_request_id": "a"}


class Worker:
    """Keeps what it is sent, and answers as told."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.seen: list[tuple[web.Request, Any]] = []
        self._answers = list(answers)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.seen.append((request, json.loads(await request.read() or b"null")))
        status, body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(body, str):
            return web.Response(text=body, content_type="text/event-stream")
        return web.json_response(body, status=status)


def played(
    prefill: Worker,
    decode: Worker,
    body: dict[str, Any],
    retries: int = 0,
    remote: bool = True,
    path: str = "/v1/completions",
    more: dict[str, str] | None = None,
) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        await prefill.start()
        await decode.start()
        sidecar = RoutingSidecar(decode.port, retries)
        await sidecar.start()
        try:
            headers = ({PREFILLER: f"127.0.0.1:{prefill.port}, 10.0.0.1:1"} if remote else {}) | (more or {})
            async with (
                aiohttp.ClientSession() as http,
                http.post(sidecar.url + path, json=body, headers=headers) as answer,
            ):
                return answer.status, await answer.text()
        finally:
            await sidecar.stop()
            await prefill.stop()
            await decode.stop()

    return asyncio.run(run())


def test_two_legs_in_order() -> None:
    usage = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5}}
    prefill = Worker((200, {"kv_transfer_params": TICKET, "usage": usage}))
    decode = Worker((200, {"choices": [], "usage": {"prompt_tokens": 9, "prompt_tokens_details": None}}))
    body = {"model": "m", "prompt": "x", "max_tokens": 8, "stream": False, "stream_options": None, "n": 2}
    status, said = played(prefill, decode, body)
    ((first, asked),), ((second, decoded),) = prefill.seen, decode.seen
    limits = {"max_tokens": 1, "max_completion_tokens": 1, "min_tokens": 1}
    assert asked == {"model": "m", "prompt": "x", "n": 2, "stream": False, "kv_transfer_params": ASK, **limits}
    assert decoded == {**body, "kv_transfer_params": TICKET}
    assert first.headers["x-request-id"] == second.headers["x-request-id"]
    assert PREFILLER not in {*first.headers, *second.headers}
    assert status == 200
    assert json.loads(said)["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("/v1/messages", {"max_tokens": 8}, {"max_tokens": 1, "max_completion_tokens": 1, "min_tokens": 1}),
        ("/v1/responses", {"max_output_tokens": 8, "max_tokens": 8}, {"max_output_tokens": 1, "max_tokens": 8}),
        (
            "/inference/v1/generate",
            {"sampling_params": {"max_tokens": 8, "seed": 1}, "max_tokens": 8},
            {"sampling_params": {"max_tokens": 1, "min_tokens": 1, "seed": 1}, "max_tokens": 8},
        ),
        ("/inference/v1/generate", {}, {"sampling_params": {"max_tokens": 1, "min_tokens": 1}}),
    ],
)
def test_each_path_has_limits_of_its_own(path: str, body: dict[str, Any], asked: dict[str, Any]) -> None:
    prefill, decode = Worker((200, {"kv_transfer_params": TICKET})), Worker((200, {}))
    assert played(prefill, decode, body, path=path)[0] == 200
    ((_, first),), ((_, second),) = prefill.seen, decode.seen
    assert first == {**asked, "stream": False, "kv_transfer_params": ASK}
    assert second == {**body, "kv_transfer_params": TICKET}


def test_a_clients_request_id_stays_and_comes_first() -> None:
    prefill, decode = Worker((200, {"kv_transfer_params": TICKET})), Worker((200, {}))
    played(prefill, decode, {"prompt": "x"}, more={REQUEST_ID: "mine"})
    ((first, _),), ((second, _),) = prefill.seen, decode.seen
    assert first.headers.getall(REQUEST_ID) == second.headers.getall(REQUEST_ID)
    assert first.headers.getall(REQUEST_ID)[0] == first.headers[REQUEST_ID] == "mine"
    assert len(first.headers.getall(REQUEST_ID)) == 2


def test_without_the_header_decode_has_it_alone() -> None:
    prefill, decode = Worker((200, {})), Worker((200, {"choices": []}))
    assert played(prefill, decode, {"prompt": "x"}, remote=False)[0] == 200
    assert prefill.seen == []
    assert [body for _, body in decode.seen] == [{"prompt": "x"}]


def test_a_stream_passes_line_by_line_with_its_usage_recounted() -> None:
    prefill = Worker((200, {"kv_transfer_params": TICKET}))
    text = (
        'data: {"choices": [{"text": "a"}]}\n\ndata: {"choices": [], "usage": {"prompt_tokens": 3}}\n\ndata: [DONE]\n\n'
    )
    _, said = played(prefill, Worker((200, text)), {"prompt": "x", "stream": True, "stream_options": {}})
    first, last, done = (event.removeprefix("data: ") for event in said.strip().split("\n\n"))
    assert (json.loads(first), done) == ({"choices": [{"text": "a"}]}, "[DONE]")
    assert json.loads(last)["usage"] == {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}}


def test_prefill_is_tried_again_only_where_that_may_help() -> None:
    good = (200, {"kv_transfer_params": TICKET})
    prefill = Worker((503, {}), good)
    assert played(prefill, Worker((200, {})), {"prompt": "x"}, retries=1)[0] == 200
    assert len(prefill.seen) == 2
    prefill, decode = Worker((500, {"error": "no"}), good), Worker((200, {}))
    assert played(prefill, decode, {"prompt": "x"}, retries=1) == (500, '{"error": "no"}')
    assert (len(prefill.seen), decode.seen) == (1, [])


def test_a_missing_ticket_is_not_noticed() -> None:
    decode = Worker((200, {}))
    assert played(Worker((200, {})), decode, {"prompt": "x"})[0] == 200
    assert decode.seen[0][1]["kv_transfer_params"] is None
