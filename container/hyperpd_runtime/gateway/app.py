"""The two FastAPI apps: the API on 8080 and the admin port. Routes, and the error handler."""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from hyperpd.errors import DecodeFailed, HandoffFailed, NoWorkerAvailable, PrefillFailed, Rejected, RequestError
from hyperpd.problems import nearest
from hyperpd.recipe import RecipeFile
from hyperpd_runtime.gateway import apis, guard, openapi, sagemaker, steering, telemetry
from hyperpd_runtime.gateway.apis import Api
from hyperpd_runtime.gateway.flow import Flow
from hyperpd_runtime.gateway.guard import Refused
from hyperpd_runtime.gateway.keys import Keys
from hyperpd_runtime.gateway.limits import Door
from hyperpd_runtime.gateway.passed import ADAPTERS, CACHED, NO_ADAPTERS, PASSED
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.relay import Answer
from hyperpd_runtime.gateway.steering import Caller
from hyperpd_runtime.gateway.telemetry import Record
from hyperpd_runtime.tls import Certificate

_CLIENT_LEFT = 499  # nginx's number for it; nobody reads it
_CLIENT_ID_LENGTH = 128
_DECISION = "x-hyperpd-decision"
_ALIVE = "/health"  # of the admin port: the one path there that is open to everybody
_OF_THE_FLEET = (NoWorkerAvailable, PrefillFailed, HandoffFailed, DecodeFailed)  # their words name workers
_Ask = Callable[[dict[str, Any], Record, Caller], Awaitable[Answer]]


def api(flow: Flow, pool: Pool, file: RecipeFile, keys: Keys | None = None) -> FastAPI:
    """What clients see. keys: one of them is needed, but for /ping and /health, which platforms probe."""
    # Without redirects: those would name whatever host the client did.
    app = FastAPI(title="hyperpd", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    model, gateway = file.recipe.model, file.recipe.gateway
    names = (model.name, *(adapter.name for adapter in model.adapters))
    door = Door(gateway.limits, pool, keys)

    async def answered(request: Request, ask: _Ask) -> Response:
        record = Record(uuid.uuid4().hex, request.headers.get("x-request-id", "-")[:_CLIENT_ID_LENGTH])
        request.state.record = record
        record.on_end.append(lambda: pool.routing.explained.serve(record.request_id, record.mode))
        caller = Caller()
        try:
            key = door.look(request.headers, record)
            caller = steering.caller(request.headers, request.url.path, key, gateway)
            request.state.explain = record.explain = caller.explain
            raw = await door.body(request)
            request.state.body_read = True
            door.enter(key, record)
            body = guard.read(raw, gateway.limits.json_depth)
            caller.strip(body)
            answer = await _unless_client_leaves(request, ask(body, record, caller))
        except RequestError as error:
            if isinstance(error, Refused):
                record.decide("refused", error.why)
            error.request_id = record.request_id
            record.end(error.code)
            if isinstance(error, _OF_THE_FLEET) and not caller.operator:
                raise _withheld(error) from error
            raise
        except ClientDisconnect:
            answer = None
        if answer is None:
            record.end("client_left")
            return Response(status_code=_CLIENT_LEFT)
        headers = _headers(record)
        if caller.explain:
            headers[_DECISION] = record.explanation()
        if answer.events is None:
            record.end("ok" if answer.status == 200 else f"engine_{answer.status}")
            return Response(answer.body, answer.status, headers, answer.content_type)
        return _Relayed(answer, headers)

    async def infer(request: Request, api: Api | None) -> Response:
        """api: None where SageMaker's headers, or the body, say which is meant."""
        request.state.api = api

        async def ask(body: dict[str, Any], record: Record, caller: Caller) -> Answer:
            adapter = "" if api else sagemaker.adapter(request.headers)
            request.state.api = api or sagemaker.route(request.headers)
            chosen = request.state.api or apis.by_shape(body)
            bounds = (adapter, model.max_len_tokens, gateway.limits)
            admitted = guard.admit(body, chosen, names, *bounds, allow=caller.may_send(chosen))
            admitted = caller.steer(admitted, disaggregated=pool.disaggregated)
            record.decide(admitted.shape.how, admitted.shape.why)
            return await flow.run(admitted, record)

        return await answered(request, ask)

    for each in apis.APIS:
        app.post(each.path)(_bound(infer, each))

    @app.post(sagemaker.PATH)
    async def invocations(request: Request) -> Response:
        return await infer(request, None)

    async def pass_on(request: Request, path: str) -> Response:
        async def ask(body: dict[str, Any], record: Record, caller: Caller) -> Answer:
            guard.check(body, PASSED[path], names)
            if caller.mode == "pd":
                raise Refused(f"{steering.MODE}: {path} has no prefill", "forced", code="mode_impossible")
            if caller.cache_salt and path in CACHED:
                body["cache_salt"] = caller.cache_salt
            record.decide("passed", path)
            return await flow.pass_on(path, body, record)

        return await answered(request, ask)

    for path in PASSED:
        app.post(path)(_bound(pass_on, path))

    async def adapters(request: Request) -> Response:
        door.check(request.headers)
        raise Rejected(NO_ADAPTERS, status=403, code="adapters_are_fixed")

    for path in ADAPTERS:
        app.api_route(path, methods=["GET", "POST", "PUT", "DELETE"])(adapters)

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
        if why and keys:  # it names workers; who has an operator's key reads it in the status
            return JSONResponse({"status": "unavailable"}, 503)
        return JSONResponse({"status": "unavailable", "reason": why}, 503) if why else JSONResponse({"status": "ok"})

    _errors(app)
    return app


def admin(
    pool: Pool,
    file: RecipeFile,
    drain: Callable[[], None],
    keys: Keys | None = None,
    certificate: Certificate | None = None,
) -> FastAPI:
    """What operators see: status, metrics, /explain/ID, and drain, which begins an orderly end of this process.

    From this machine all of it is open. From elsewhere it needs a key of scope operator; where there are no keys,
    status and metrics are open to whom the network lets in, and drain to nobody. /health says that this process
    answers, to platforms that probe it.
    """

    def check(request: Request) -> None:
        if request.url.path == _ALIVE or _from_this_machine(request):
            return
        if keys and keys.find(request.headers).scope != "operator":
            what = f"{request.url.path}: needs a key of scope operator"
            raise Rejected(what, status=403, code=steering.OPERATORS_ONLY)
        if not keys and request.method != "GET":
            what = (
                f"{request.url.path}: only from the gateway's own machine, where gateway.auth is none; set it to keys"
            )
            raise Rejected(f"{what}, and an operator's key will do", status=403, code=steering.OPERATORS_ONLY)

    app = FastAPI(title="hyperpd admin", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(check)])

    @app.get(_ALIVE)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

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
            "certificate": certificate.status() if certificate else None,
            "routing": pool.routing.status(),
            **pool.status(),
        }

    @app.get("/explain/{request_id}")
    async def explain(request_id: str) -> dict[str, Any]:
        return pool.routing.explained.explain(request_id)

    @app.get("/openapi.json")
    async def document() -> dict[str, Any]:
        """Of the API port, not of this one."""
        return openapi.document(file)

    @app.post("/drain", status_code=202)
    async def drain_gateway() -> dict[str, str]:
        drain()
        return {"state": "draining"}

    _errors(app)
    return app


def _from_this_machine(request: Request) -> bool:
    """By the socket, never by a header: its other end is at a loopback address, or at the one it came in by.

    Not what a web page makes a browser of this machine send, which says so with everything that changes something.
    """
    if not request.client or "origin" in request.headers:
        return False
    own = request.scope["server"][0] if request.scope.get("server") else None
    return request.client.host == own or ipaddress.ip_address(request.client.host).is_loopback


def _bound(handle: Callable[..., Awaitable[Response]], what: Any) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        return await handle(request, what)

    return handler


def _withheld(error: RequestError) -> RequestError:
    """What is said of `error` to somebody who may not see the fleet; the log has the rest."""
    telemetry.log.warning("event=withheld request_id=%s code=%s detail=%r", error.request_id, error.code, str(error))
    what = "no worker could answer this; try again, or give your operator the request id"
    said = RequestError(what, status=error.status, code=error.code, retry_after_s=error.retry_after_s)
    said.request_id = error.request_id
    return said


def _headers(record: Record) -> dict[str, str]:
    """The client's own id where it sent one, and ours, which is in the logs."""
    theirs = record.client_id if record.client_id != "-" else record.request_id
    return {"x-request-id": theirs, "x-hyperpd-request-id": record.request_id}


def _api(request: Request) -> Api | None:
    """The API that a request is meant for, also where no route is reached."""
    messages = request.url.path.startswith(apis.MESSAGES.path)
    return apis.MESSAGES if messages else getattr(request.state, "api", None)


def _instead(request: Request, error: HTTPException) -> str:
    """What to try where there is no such route, or not with this method."""
    if error.status_code == 405:
        return f"; send {(error.headers or {}).get('Allow', 'another method')}"
    served = list(dict.fromkeys(str(getattr(route, "path", "")) for route in request.app.routes))
    return nearest(guard.short(request.url.path), served)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        record: Record | None = getattr(request.state, "record", None)
        headers = _headers(record) if record else {}
        if record and getattr(request.state, "explain", False):
            headers[_DECISION] = record.explanation()
        if error.retry_after_s:
            headers["retry-after"] = str(error.retry_after_s)
        if error.status == 504:  # OpenAI's and Anthropic's clients would ask again, for as long
            headers["x-should-retry"] = "false"
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        if not getattr(request.state, "body_read", False):  # nor will it be: that ends the connection
            headers["connection"] = "close"
        return JSONResponse(apis.error_body(_api(request), error), error.status, headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {guard.short(request.url.path)}: {error.detail}{_instead(request, error)}"
        code = str(error.detail).lower().replace(" ", "_")  # not_found, method_not_allowed
        rejected = Rejected(what, status=error.status_code, code=code)
        return JSONResponse(apis.error_body(_api(request), rejected), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        if record := getattr(request.state, "record", None):
            record.end("defect")
        message = f"a defect in the gateway: {type(error).__name__}; its log has the traceback"
        return JSONResponse(apis.error_body(_api(request), RequestError(message)), 500)


class _Relayed(StreamingResponse):
    """A stream that closes its decode leg however it ends, also when the client left before it began."""

    def __init__(self, answer: Answer, headers: dict[str, str]) -> None:
        assert answer.events is not None
        super().__init__(answer.events, answer.status, headers, answer.content_type)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def _unless_client_leaves(request: Request, running: Awaitable[Answer]) -> Answer | None:
    """The answer, or None when the client left first; then `running` is cancelled, and with it its legs."""
    task = asyncio.ensure_future(running)
    leaving = asyncio.ensure_future(_client_leaves(request))
    answer: Answer | None = None
    try:
        await asyncio.wait({task, leaving}, return_when="FIRST_COMPLETED")
        if task.done():
            answer = task.result()
        return answer
    finally:
        leaving.cancel()
        task.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)
        if answer is None and not task.cancelled() and not task.exception():
            task.result().close()


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
