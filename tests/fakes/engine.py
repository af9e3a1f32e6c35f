"""A wire-faithful stand-in for one vLLM worker: tickets, leases, refusals and faults, no model.

It refuses a prefill leg whose fields are wrong, so a failing test points at the mistake. What it
answers is a function of the prompt, and, when a ticket is used, of the prompt that was prefilled:
a ticket given to the wrong request shows as wrong text, and so does one of another adapter. A read
after a lease's end answers 200 with somebody else's text and stays in the prefix cache, as the real
one does; leases.py has the clock. tests/real/test_recorded.py holds it to what a real engine said.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
from typing import Any

from aiohttp import web

from tests.fakes import engine_wire as wire
from tests.fakes.leases import Leases

BLOCKS = 100  # of a worker's cache; a lease pins one, and so does a request that runs
BLOCK_TOKENS, BLOCK_BYTES = 128, 1 << 19
BLOCK_MOVES_S = 0.001
LENGTH_TOKENS = 2048  # the model's
_numbers = itertools.count()


class FakeEngine:
    """One worker.

    `fault` is one of: "", "404", "429", "500", "no_ticket", "list", "busy", "error_event", "cut", "cut_inside", "hang",
    "frozen", "slow", "late_error", "no_path". Up to `proceed`, one that hangs has a request in its queue: decode renews
    its lease, and lets go of it when the client leaves. One that is frozen does nothing, and sees later who has left.
    """

    def __init__(self, leases: Leases, *models: str) -> None:
        self.leases = leases
        self.models = models or ("tiny-llama",)  # the model, then its adapters
        self.fault = ""
        self.refuses = self.breaks = ""  # a prompt that decode answers with 400, or 500, once it is asked
        self.waits_for: Any = ""  # a prompt that decode answers only with `proceed`
        self.falters_at = 0  # the event of a stream after which a fault of its middle comes
        self.slow_to_read_s = 0.0
        self.pause_s = 0.005  # after every event, or a reader sees several of them as one
        self.probed = 0
        self.probes_kept = 0  # on connections that stay open
        self.well = True
        self.ready: Any = {"state": "draining"}  # what a supervisor at this port would say when it is not
        self.metrics_read = 0
        self.stepped: list[str | None] = []  # ranks that were given the gateway's step
        self.expired = 0  # leases that ended unread
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.ids: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.cache: dict[str, str] = {}  # salted prompt → what it is taken for
        self.prefilled: set[str] = set()  # salted prompts
        self.running = 0  # those that wait in its queue included
        self.most_running = 0
        self.waiting = 0
        self.moved_bytes = 0
        self.moving_s = 0.0
        self.arrived = asyncio.Event()
        self.aborted = asyncio.Event()
        self.proceed = asyncio.Event()
        self.heart = leases.heart(lambda: self.fault == "frozen" and not self.proceed.is_set())
        self._thawing: set[asyncio.Task[None]] = set()
        self.url = ""

    async def start(self, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/ready", self._ready)
        for path in wire.APIS:
            app.router.add_post(path, self._infer)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_route("*", "/{path:.*}", self._no_path)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, address, port, ssl_context=tls)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        self.url = f"{'https' if tls else 'http'}://{address}:{self.port}"

    async def stop(self) -> None:
        for thawing in self._thawing:
            thawing.cancel()
        await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        self.probed += 1
        self.probes_kept += request.keep_alive
        return web.Response(status=200 if self.well else 503)

    async def _no_path(self, _: web.Request) -> web.Response:
        return web.Response(status=404, content_type="application/json", body=b'{"detail":"Not Found"}')

    async def _ready(self, _: web.Request) -> web.Response:
        return web.json_response(self.ready, status=503)

    async def _metrics(self, _: web.Request) -> web.Response:
        self.metrics_read += 1
        said = "".join(
            f'# TYPE vllm:{name} untyped\nvllm:{name}{{engine="0",model_name="{self.models[0]}"}} {float(value)}\n'
            for name, value in self._figures().items()
        )
        config = f'vllm:cache_config_info{{block_size="{BLOCK_TOKENS}",engine="0",num_gpu_blocks="{BLOCKS}"}} 1.0\n'
        return web.Response(text=said + config)

    def _figures(self) -> dict[str, int | float]:
        """What it says of itself now, by vLLM's names."""
        running = self.running - self.waiting
        return {
            "num_requests_running": running,
            "num_requests_waiting": self.waiting,
            "kv_cache_usage_perc": (self.leases.pinned(self.url) + running) / BLOCKS,
            "nixl_bytes_transferred_sum": self.moved_bytes,
            "nixl_xfer_time_seconds_sum": self.moving_s,
            "nixl_num_kv_expired_reqs_total": self.expired,
        }

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.fault == "hang":
            await self.proceed.wait()
        tokens = list(body["prompt"].encode())
        return web.json_response({"count": len(tokens), "max_model_len": LENGTH_TOKENS, "tokens": tokens})

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        if self.slow_to_read_s:  # a connection that closes meanwhile takes its body along
            await asyncio.sleep(self.slow_to_read_s)
        if {"authorization", "x-api-key"} & {name.lower() for name in request.headers}:
            return web.Response(status=400, text="a client's key ends at the gateway")
        body = await request.json()
        self.bodies.append(body)
        self.paths.append(request.path)
        self.ids.append(request.headers["X-Request-Id"])
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if body.get("prompt") == [1]:
            self.stepped.append(request.headers.get("X-data-parallel-rank"))
        self.arrived.set()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(request, body)
        except ConnectionError:
            return web.Response()  # nobody reads it
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        api, params = wire.APIS[request.path], body.get("kv_transfer_params")
        if self.fault == "no_path":
            return await self._no_path(request)
        if self.fault == "busy":
            return web.json_response(api.error("Service unavailable", 503), status=503)
        if wrong := api.malformed(body):  # before anything else, and in one form for all APIs; prefill is told nothing
            kind = "BadRequestError" if wrong == "stream_options" else "Bad Request"
            error = {"message": f"1 validation error: {wrong}", "type": kind, "param": wrong, "code": 400}
            return web.json_response({"error": error}, status=400)
        if body["model"] not in self.models:
            self._let_go(params)
            message = f"The model `{body['model']}` does not exist."
            return web.json_response(api.error(message, 404), status=404)
        if limit := api.beyond(body, LENGTH_TOKENS):
            self._let_go(params)
            message = f"{limit} cannot be greater than max_model_len={LENGTH_TOKENS}. Please request fewer."
            return web.json_response(api.error(message, 400), status=400)
        if self.fault == "frozen":
            await self._thawed(params)
        if self.fault == "hang" and body.get("prompt") != [1]:  # not the gateway's step
            await self._queued(params)
        self.expired += self.leases.count_expired(self.url)  # it steps
        if self.fault == "list":
            return web.json_response([])
        if self.fault in ("404", "429", "500"):
            return web.json_response(
                api.error("the worker is not as it should be", int(self.fault)), status=int(self.fault)
            )
        if body.get("temperature") == 9:
            self._let_go(params)
            return web.json_response(api.error("temperature is too high", 400), status=400)
        if params and params.get("do_remote_decode"):
            return self._prefill(request, api, body)
        return await self._decode(request, api, body, params)

    async def _queued(self, params: Any) -> None:
        """Wait for `proceed`, as the scheduler sees it; decode renews the lease meanwhile."""
        ticket = params if params and params.get("do_remote_prefill") else None
        if ticket:
            self.heart.accept(ticket)
        self.waiting += 1
        try:
            await self.proceed.wait()
        except asyncio.CancelledError:
            self._let_go(params)  # decode tells prefill
            self.aborted.set()
            raise
        finally:
            self.waiting -= 1

    async def _thawed(self, params: Any) -> None:
        """Wait for `proceed`, as nothing but the connection sees it."""
        try:
            await self.proceed.wait()
        except asyncio.CancelledError:
            self.aborted.set()
            thawing = asyncio.create_task(self._let_go_thawed(params))
            self._thawing.add(thawing)
            thawing.add_done_callback(self._thawing.discard)
            raise

    async def _let_go_thawed(self, params: Any) -> None:
        await self.proceed.wait()
        self._let_go(params)

    def _let_go(self, params: Any) -> None:
        if params and params.get("do_remote_prefill"):
            self.heart.leave(params)
            self.leases.pop(params["remote_request_id"], None)

    def _said(self, body: dict[str, Any], prompt: Any) -> str:
        return str(prompt) + (f" by {body['model']}" if body["model"] != self.models[0] else "")

    def _prefill(self, request: web.Request, api: wire.Api, body: dict[str, Any]) -> web.Response:
        wrong = api.wrong_for_prefill(body)
        if wrong:
            return web.json_response(api.error(f"not a prefill body: {wrong}", 400), status=400)
        prompts = api.prompts(body)
        tickets = []
        for prompt in prompts:  # a list pins all of them, and returns the first one's ticket
            said = self._said(body, prompt)
            lease = f"cmpl-{request.headers['X-Request-Id']}-{next(_numbers)}"
            self.leases.open(lease, self.url, said)
            salted = body.get("cache_salt", "") + said
            cached = len(said) if salted in self.prefilled else 0
            self.prefilled.add(salted)
            tickets.append(wire.ticket(lease, cached))
        answer = api.whole(["x"], wire.Usage(3 * len(prompts), len(prompts), cached))
        if body.get("return_token_ids") and api.chat:
            answer["prompt_token_ids"] = list(str(prompts[0]).encode())
        return web.json_response(answer | {"kv_transfer_params": None if self.fault == "no_ticket" else tickets[0]})

    def _text(self, body: dict[str, Any], prompt: Any, params: Any) -> str:
        """What is said to a prompt: of its own blocks, of those the ticket names, or of what the cache holds."""
        computed = self._said(body, prompt)
        key = f"{body.get('cache_salt', '')}:{computed}"
        if params:
            seen = self.heart.read(params)
            blocks = sum(map(len, params["remote_block_ids"]))
            self.moved_bytes += blocks * BLOCK_BYTES
            self.moving_s += blocks * BLOCK_MOVES_S
            if seen != computed:
                self.cache[key] = seen  # for good, or until another salt
        seen = self.cache.get(key, computed)
        # What an adapter computed is of no use to another.
        text = f"after {seen}" if seen.partition(" by ")[2] == computed.partition(" by ")[2] else "noise"
        return text + (f" seed {body['seed']}" if body.get("seed") is not None else "")

    async def _decode(
        self, request: web.Request, api: wire.Api, body: dict[str, Any], params: Any
    ) -> web.StreamResponse:
        prompts, n = api.prompts(body), body.get("n") or 1
        for told, status in ((self.refuses, 400), (self.breaks, 500)):
            if told and told in prompts:
                self._let_go(params)
                return web.json_response(api.error("refused by its content", status), status=status)
        if self.waits_for in prompts:
            await self._queued(params)
        if len(prompts) > 1 and params and any(len(str(one)) > len(str(prompts[0])) for one in prompts):
            return web.json_response(api.error("the engine died of a list with one ticket", 500), status=500)
        # Of blocks that are not there the load fails, and the lease stays.
        nowhere = params and any(number >= BLOCKS for ids in params["remote_block_ids"] for number in ids)
        fails = params and (self.fault == "error_event" or nowhere)
        cached = (params or {}).get("remote_prefill_cached_tokens", 0)
        texts = []
        self.prefilled |= {body.get("cache_salt", "") + self._said(body, prompt) for prompt in prompts}
        for prompt in [] if fails else prompts:
            for number in range(n):
                seeded = {**body, "seed": body["seed"] + number} if body.get("seed") is not None else body
                texts.append(self._text(seeded, prompt, params))
        usage = wire.Usage(3 * len(prompts), 2 * len(texts), cached)
        if not body.get("stream"):
            if fails:
                return web.json_response(api.error("Internal server error", 500), status=500)
            return web.json_response(api.whole(texts, usage))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def say(event: bytes) -> None:
            await response.write(event)
            await asyncio.sleep(self.pause_s)

        for event in api.preamble():
            await say(event)
        if fails:
            for event in api.failed():
                await say(event)
            if api.cuts:
                assert request.transport is not None
                request.transport.close()
            return response
        try:
            for number, event in enumerate(api.events(texts, usage, body)):
                await say(event)
                if number != self.falters_at:
                    continue
                if self.fault == "cut_inside":  # an event, and a character of it
                    await say(b'data: {"choices":[{"text":"\xc3')
                if self.fault in ("cut", "cut_inside"):
                    assert request.transport is not None
                    request.transport.close()
                    return response
                if self.fault in ("slow", "late_error"):
                    await self.proceed.wait()
                if self.fault == "late_error":
                    for failed in api.failed():
                        await say(failed)
                    return response
        except (asyncio.CancelledError, ConnectionError):  # the client left
            self.aborted.set()
            raise
        return response
