"""llm-d's routing sidecar, played: the requests that v0.10.0 makes with --kv-connector=nixlv2, in their order.

Written from the documented sequence (docs/disaggregation.md and pkg/sidecar of llm-d/llm-d-router), not a copy. It
stands beside a decode worker, which it knows as localhost, and passes on what it has nothing to add to.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

PREFILLER = "x-prefiller-host-port"
REQUEST_ID = "x-request-id"
_CHAT = ("max_tokens", "max_completion_tokens", "min_tokens")
GENERATE = "/inference/v1/generate"  # its limits are within sampling_params
# The paths whose prefill it has done elsewhere, with the limits that it sets to 1 there.
LIMITS = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": _CHAT,
    "/v1/messages": _CHAT,
    "/v1/responses": ("max_output_tokens",),
    GENERATE: ("max_tokens", "min_tokens"),
}
ASK = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
PASSING = (502, 503, 504)  # tried again at the same worker
_HOP = {"host", "content-length", "transfer-encoding", "connection", PREFILLER}
Body = dict[str, Any]


class RoutingSidecar:
    """The sidecar of the decode worker at localhost:`model_server_port`."""

    def __init__(self, model_server_port: int, prefill_max_retries: int = 0) -> None:
        self._decoder = f"http://127.0.0.1:{model_server_port}"
        self._retries = prefill_max_retries
        self.legs: list[tuple[str, str, Body]] = []  # (leg, request id, body), as sent
        self.url = ""

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/health", self._health)
        for path in LIMITS:
            app.router.add_post(path, self._disaggregated)
        app.router.add_route("*", "/{rest:.*}", self._pass)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _disaggregated(self, request: web.Request) -> web.StreamResponse:
        hosts = [host.strip() for host in request.headers.get(PREFILLER, "").split(",")]
        if not hosts[0]:
            return await self._pass(request)
        body: Body = await request.json()
        request_id = str(uuid.uuid1())  # one for both legs
        status, headers, said = await self._prefill(hosts[0], request, prefill_body(request.path, body), request_id)
        if not 200 <= status < 300:
            return web.Response(status=status, body=said, content_type=headers.get("Content-Type", "").split(";")[0])
        answer = json.loads(said)
        leg = {**body, "kv_transfer_params": answer.get("kv_transfer_params")}  # a missing ticket is only logged there
        details = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
        self.legs.append(("decode", request_id, leg))
        return await self._relay(request, json.dumps(leg).encode(), request_id, int(details.get("cached_tokens") or 0))

    async def _prefill(
        self, host: str, request: web.Request, body: Body, request_id: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        url, headers = f"http://{host}{request.rel_url}", passed_on(request, request_id)
        for attempt in range(self._retries + 1):
            self.legs.append(("prefill", request_id, body))
            try:
                async with self._session.post(url, json=body, headers=headers) as answer:
                    if answer.status not in PASSING or attempt == self._retries:
                        return answer.status, answer.headers, await answer.read()
            except aiohttp.ClientConnectionError as error:
                if attempt == self._retries:
                    return 502, {"Content-Type": "application/json"}, json.dumps({"error": str(error)}).encode()
        raise AssertionError("not reached")

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        return await self._relay(request, await request.read(), None, None)

    async def _relay(
        self, request: web.Request, body: bytes, request_id: str | None, cached_tokens: int | None
    ) -> web.StreamResponse:
        """The decoder's answer, as it comes; with `cached_tokens` its usage says what prefill had cached."""
        headers = passed_on(request, request_id)
        url = f"{self._decoder}{request.rel_url}"
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            if cached_tokens is None or "event-stream" not in answer.headers.get("Content-Type", ""):
                whole = await answer.read() if cached_tokens is not None else None
                if whole is not None:
                    await response.write(recounted(whole, cached_tokens or 0))
                else:
                    async for piece in answer.content.iter_any():
                        await response.write(piece)
                return response
            async for line in answer.content:
                event = line.removeprefix(b"data: ")
                if event != line:
                    line = b"data: " + recounted(event.rstrip(b"\n"), cached_tokens) + b"\n"
                await response.write(line)
            return response


def prefill_body(path: str, body: Body) -> Body:
    """The client's body as prefill gets it; n, several prompts and prompt_logprobs are left as they are."""
    found = {key: value for key, value in body.items() if key != "stream_options"}
    least: Body = dict.fromkeys(LIMITS[path], 1)
    if path == GENERATE:
        least = {"sampling_params": body.get("sampling_params", {}) | least}
    return found | {"kv_transfer_params": ASK, "stream": False} | least


def passed_on(request: web.Request, request_id: str | None) -> CIMultiDict[str]:
    """The client's headers, and this id beside: one that the client has given stays, and comes first."""
    # In one case: aiohttp takes names that differ in it for one header given twice, and keeps the last.
    every = ((key.lower(), value) for key, value in request.headers.items())
    kept = CIMultiDict((key, value) for key, value in every if key not in _HOP)
    if request_id:
        kept.add(REQUEST_ID, request_id)
    return kept


def recounted(text: bytes, cached_tokens: int) -> bytes:
    """JSON with usage.prompt_tokens_details.cached_tokens set, where it has usage; anything else as it is."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    if not isinstance(body, dict) or not isinstance(usage := body.get("usage"), dict):
        return text
    usage["prompt_tokens_details"] = {**(usage.get("prompt_tokens_details") or {}), "cached_tokens": cached_tokens}
    return json.dumps(body).encode()
