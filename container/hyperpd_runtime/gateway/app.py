"""The two FastAPI apps: the API on 8080 and the admin port. Routes, and the error handler."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hyperpd.errors import Rejected, RequestError
from hyperpd.recipe import RecipeFile
from hyperpd_runtime.gateway import guard, sagemaker, telemetry
from hyperpd_runtime.gateway.flow import Answer, Flow
from hyperpd_runtime.gateway.keys import Keys
from hyperpd_runtime.gateway.limits import Door
from hyperpd_runtime.gateway.pool import Pool

_UNREAD = (401, 413, 429)  # the rest of the body is not read: that ends the connection
_CLIENT_LEFT = 499  # nginx's number for it; nobody reads it


def api(flow: Flow, pool: Pool, file: RecipeFile, keys: Keys | None = None) -> FastAPI:
    """What clients see. keys: one of them is needed, but for /ping and /health, which platforms probe."""
    app = FastAPI(title="hyperpd", docs_url=None, redoc_url=None, openapi_url=None)
    model, gateway = file.recipe.model, file.recipe.gateway
    names = (model.name, *(adapter.name for adapter in model.adapters))
    door = Door(gateway.limits, pool, keys)

    async def infer(request: Request, kind: Literal["completions", "chat", "any"]) -> Response:
        record = telemetry.Record(uuid.uuid4().hex, request.headers.get("x-request-id", "-")[:128])
        headers = {"x-request-id": record.request_id}
        request.state.record = record
        try:
            door.enter(request.headers, record)
            admitted = guard.admit(await door.body(request), kind, names, gateway.threshold_tokens)
            answer = await _unless_client_leaves(request, flow.run(admitted, record))
        except RequestError as error:
            error.request_id = record.request_id
            record.end(error.code)
            raise
        except ClientDisconnect:
            record.end("client_left")
            return Response(status_code=_CLIENT_LEFT)
        if answer is None:
            record.end("client_left")
            return Response(status_code=_CLIENT_LEFT)
        if answer.rest is None:
            record.end("ok" if answer.status == 200 else f"engine_{answer.status}")
            return Response(answer.first, answer.status, headers, answer.content_type)
        return _Relayed(answer, headers)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await infer(request, "completions")

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await infer(request, "chat")

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        return await infer(request, sagemaker.route(request.headers))

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        door.check(request.headers)
        entry = {"object": "model", "owned_by": "hyperpd", "max_model_len": model.max_len_tokens}
        parents = (None, *(model.name for _ in model.adapters))
        return {
            "object": "list",
            "data": [{"id": name, "parent": parent, **entry} for name, parent in zip(names, parents, strict=True)],
        }

    @app.api_route("/ping", methods=["GET", "HEAD"])
    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> Response:
        why = pool.unavailable()
        return JSONResponse({"status": "unavailable", "reason": why}, 503) if why else JSONResponse({"status": "ok"})

    _errors(app)
    return app


def admin(pool: Pool, file: RecipeFile, drain: Callable[[], None], keys: Keys | None = None) -> FastAPI:
    """What operators see: status, metrics, and drain, which begins an orderly end of this process."""
    app = FastAPI(title="hyperpd admin", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(telemetry.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/status")
    async def status() -> dict[str, Any]:
        return {
            "recipe": file.recipe.name,
            "recipe_digest": file.digest,
            "ready": pool.unavailable() is None,
            "not_as_planned": pool.not_ready(),
            "keys": keys.status() if keys else None,
            **pool.status(),
        }

    @app.post("/drain", status_code=202)
    async def drain_gateway() -> dict[str, str]:
        drain()
        return {"state": "draining"}

    _errors(app)
    return app


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def request_error(_: Request, error: RequestError) -> Response:
        headers = {"x-request-id": error.request_id or ""}
        if error.retry_after_s:
            headers["retry-after"] = str(error.retry_after_s)
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        if error.status in _UNREAD:
            headers["connection"] = "close"
        return JSONResponse(error.body(), error.status, headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path}: {error.detail}"
        code = str(error.detail).lower().replace(" ", "_")  # not_found, method_not_allowed
        return JSONResponse(Rejected(what, code=code).body(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        if record := getattr(request.state, "record", None):
            record.end("defect")
        message = f"a defect in the gateway: {type(error).__name__}; its log has the traceback"
        return JSONResponse(RequestError(message).body(), 500)


class _Relayed(StreamingResponse):
    """A stream that closes its decode leg however it ends, also when the client left before it began."""

    def __init__(self, answer: Answer, headers: dict[str, str]) -> None:
        super().__init__(_chained(answer), answer.status, headers, answer.content_type)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def _unless_client_leaves(request: Request, running: Any) -> Answer | None:
    """The answer, or None when the client left first; then `running` is cancelled, and with it its legs."""
    task = asyncio.ensure_future(running)
    leaving = asyncio.ensure_future(_client_leaves(request))
    try:
        await asyncio.wait({task, leaving}, return_when="FIRST_COMPLETED")
        if task.done():
            answer: Answer = task.result()
            return answer
        return None
    finally:
        leaving.cancel()
        task.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _chained(answer: Answer) -> Any:
    assert answer.rest is not None
    yield answer.first
    async for chunk in answer.rest:
        yield chunk
