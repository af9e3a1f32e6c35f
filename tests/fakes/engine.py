"""A wire-faithful stand-in for one vLLM worker: tickets, leases, refusals and faults, no model.

It refuses a prefill leg whose fields are wrong, so a failing test points at the mistake. What it
answers is a function of the prompt, and, when a ticket is used, of the prompt that was prefilled:
a ticket given to the wrong request shows as wrong text, and so does one of another adapter.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web


class FakeEngine:
    """One worker. `fault` is one of: "", "500", "no_ticket", "error_event", "cut", "hang", "slow", "late_error"."""

    def __init__(self, leases: dict[str, str], *models: str) -> None:
        self.leases = leases  # request id → prompt, shared by the workers of one fleet
        self.models = models or ("tiny-llama",)  # the model, then its adapters
        self.fault = ""
        self.probed = 0
        self.well = True
        self.ready: Any = {"state": "draining"}  # what a supervisor at this port would say when it is not
        self.metrics_read = 0
        self.expired = 0  # leases that ended unread
        self.bodies: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.arrived = asyncio.Event()
        self.aborted = asyncio.Event()
        self.proceed = asyncio.Event()
        self.url = ""

    async def start(self, address: str = "127.0.0.1", port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/ready", self._ready)
        for path in ("/v1/completions", "/v1/chat/completions"):
            app.router.add_post(path, self._infer)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, address, port)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        self.url = f"http://{address}:{self.port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        self.probed += 1
        return web.Response(status=200 if self.well else 503)

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response(self.ready, status=503)

    async def _metrics(self, _: web.Request) -> web.Response:
        self.metrics_read += 1
        return web.Response(text=f'vllm:nixl_num_kv_expired_reqs_total{{engine="0"}} {self.expired}.0\n')

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.ids.append(request.headers["X-Request-Id"])
        self.arrived.set()
        params = body.get("kv_transfer_params")
        if body["model"] not in self.models:
            if params:
                self.leases.pop(params["remote_request_id"], None)
            return web.json_response({"error": {"message": "no such model", "code": 404}}, status=404)
        if self.fault == "hang" and body.get("prompt") != [1]:  # not the gateway's step
            try:
                await self.proceed.wait()
            except asyncio.CancelledError:
                if params and params.get("do_remote_prefill"):
                    self.leases.pop(params["remote_request_id"], None)  # decode tells prefill
                self.aborted.set()
                raise
        if self.fault == "500":
            return web.json_response({"error": {"message": "Internal server error"}}, status=500)
        if body.get("temperature") == 9:
            return web.json_response({"error": {"message": "temperature is too high"}}, status=400)
        prompt = body.get("prompt") or body["messages"][-1]["content"]
        if params and params.get("do_remote_decode"):
            return self._prefill(body, prompt)
        return await self._decode(request, body, prompt, params)

    def _said(self, body: dict[str, Any], prompt: Any) -> str:
        return str(prompt) + (f" by {body['model']}" if body["model"] != self.models[0] else "")

    def _prefill(self, body: dict[str, Any], prompt: Any) -> web.Response:
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        if limit != 1 or body.get("n") != 1 or body.get("stream") or "stream_options" in body or "min_tokens" in body:
            return web.json_response({"error": {"message": f"not a prefill body: {sorted(body)}"}}, status=400)
        lease = f"cmpl-{len(self.bodies)}"
        self.leases[lease] = self._said(body, prompt)
        ticket = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_engine_id": "prefill-0-x",
            "remote_request_id": lease,
            "remote_block_ids": [[1, 2]],
            "remote_host": "127.0.0.1",
            "remote_port": 5600,
            "tp_size": 1,
        }
        answer = {"choices": [{"index": 0, "text": "x"}]}
        return web.json_response(answer | ({} if self.fault == "no_ticket" else {"kv_transfer_params": ticket}))

    async def _decode(self, request: web.Request, body: dict[str, Any], prompt: Any, params: Any) -> web.StreamResponse:
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str) and params:
            return web.json_response({"error": {"message": "the engine died of a list with one ticket"}}, status=500)
        seen = computed = self._said(body, prompt)
        if params:
            seen = self.leases.pop(params["remote_request_id"], "freed blocks")
        # What an adapter computed is of no use to another.
        text = f"after {seen}" if seen.partition(" by ")[2] == computed.partition(" by ")[2] else "noise"
        if not body.get("stream"):
            if self.fault == "error_event" and params:
                return web.json_response({"error": {"message": "Internal server error"}}, status=500)
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            return web.json_response({"id": "1", "choices": [{"index": 0, "text": text}], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.fault == "error_event" and params:
            await response.write(b'data: {"error": {"message": "KV load failed", "code": 500}}\n\ndata: [DONE]\n\n')
            return response
        try:
            for word in text.split(" "):
                event = {"choices": [{"index": 0, "text": word + " "}]}
                await response.write(f"data: {json.dumps(event)}\n\n".encode())
                if self.fault == "cut":
                    assert request.transport is not None
                    request.transport.close()
                    return response
                if self.fault == "late_error":
                    await response.write(b'data: {"error": {"message": "KV load failed", "code": 500}}\n\n')
                    break
                if self.fault == "slow":
                    await self.proceed.wait()
        except asyncio.CancelledError:
            self.aborted.set()
            raise
        await response.write(b"data: [DONE]\n\n")
        return response
