"""A stand-in for sagemaker-runtime: InvokeEndpoint and InvokeEndpointWithResponseStream before containers that run.

    with Runtime({"tiny": "http://127.0.0.1:8080"}) as runtime:
        runtime.client().invoke_endpoint(EndpointName="tiny", …)   # others with runtime.environment()
        runtime.calls                                               # what was asked, in order
        runtime.advance(60)                                         # time passes here, and never by itself

Requests are held to botocore's shapes and have to be signed for SageMaker in this Region. A stream has the framing of
AWS's event streams, both checksums included; its parts are cut anywhere, inside characters too, and differently for
each seed. What an error looks like is botocore's model; the words are those AWS documents or was seen to say, and what
no document says (the limits of a whole stream) only an account can show.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from zlib import crc32

import aiohttp
import boto3
from aiohttp import web

from tests.deploy import botocore_shapes
from tests.fakes.gate import ACCOUNT, REGION, Refused
from tests.fakes.hyperpod.clock import Clock
from tests.fakes.wire import Request

BODY_BYTES = 6_291_456  # botocore's BodyBlob
ANSWER_S = 60.0  # a container's, for a whole answer or a stream's beginning
STREAM_S = 480.0  # a whole stream's (AWS: 8 minutes; of an endpoint that HyperPod registered: unknown)
_KEYS = {"aws_access_key_id": "AKIASTANDIN0000000000", "aws_secret_access_key": "stand-in"}
_PREFIX = "x-amzn-sagemaker-"
# What reaches the container; everything else is stripped.
_PASSED = ("content-type", "accept", *(f"{_PREFIX}{name}" for name in ("custom-attributes", "session-id")))
_MEMBERS = {
    "CustomAttributes": "custom-attributes",
    "SessionId": "session-id",
    "TargetVariant": "target-variant",
    "InferenceId": "inference-id",
    "InferenceComponentName": "inference-component",
    "PrefixAwareId": "prefix-aware-id",
}
# Their patterns are Java's, and say no more than what a header's value is anyway; longest length.
_TEXTS = {"CustomAttributes": 1024, "InferenceId": 64, "PrefixAwareId": 64}


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call, as it came."""

    operation: str
    endpoint: str
    members: Mapping[str, str]  # of the request, without its body
    body: bytes


class Runtime:
    """The runtime of one account and Region, while its context lasts.

    endpoints: name → URL of its container.

    `throttles`: so many calls are refused. `breaks`: what ends a stream after its first part: "ModelStreamError",
    "InternalStreamFailure" (both as exceptions in the stream), "cut" (the connection), "corrupt" (a wrong checksum).
    """

    def __init__(self, endpoints: Mapping[str, str], *, seed: int = 0) -> None:
        self.endpoints = dict(endpoints)
        self.calls: list[Invocation] = []
        self.throttles = 0
        self.breaks = ""
        self.running = 0  # invocations that are being answered
        self.url = ""
        self._clock = Clock(0.0)
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def environment(self) -> dict[str, str]:
        """Variables with which every SDK of AWS finds it."""
        keys = {name.upper(): value for name, value in _KEYS.items()}
        return {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": self.url, "AWS_DEFAULT_REGION": REGION, **keys}

    def client(self, **given: Any) -> Any:
        """A boto3 client; `given`: other arguments of boto3.client."""
        return boto3.client("sagemaker-runtime", **({"endpoint_url": self.url, "region_name": REGION} | _KEYS | given))

    def advance(self, seconds: float) -> None:
        """Time passes."""

        async def pass_by() -> None:
            self._clock.advance(seconds)

        self._wait(pass_by())

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self) -> None:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=4 * BODY_BYTES)
        app.router.add_post("/endpoints/{name}/invocations", self._whole)
        app.router.add_post("/endpoints/{name}/invocations-response-stream", self._streamed)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._http.close()

    async def _whole(self, request: web.Request) -> web.StreamResponse:
        return await self._answered(request, "InvokeEndpoint")

    async def _streamed(self, request: web.Request) -> web.StreamResponse:
        return await self._answered(request, "InvokeEndpointWithResponseStream")

    async def _answered(self, request: web.Request, operation: str) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.running += 1
        said = {"x-amzn-RequestId": f"stand-in-{len(self.calls) + 1}"}
        try:
            url = self._admit(Request("POST", request.path, headers, body), operation, request.match_info["name"])
            passed = {name: headers[name] for name in _PASSED if name in headers}
            overdue = self._due(ANSWER_S)
            opening = asyncio.ensure_future(
                self._http.post(f"{url}/invocations", data=io.BytesIO(body), headers=passed)
            )
            try:
                answer = await _unless(overdue, opening, "ModelError")
            except aiohttp.ClientError:
                raise _model_error(0, "the connection broke") from None
            async with answer:
                if answer.status != 200:
                    said_by_it = (await answer.content.read()).decode(errors="replace")
                    raise _model_error(answer.status, said_by_it)
                said["x-Amzn-Invoked-Production-Variant"] = "AllTraffic"
                if operation == "InvokeEndpoint":
                    whole = await _unless(overdue, asyncio.ensure_future(answer.read()), "ModelError")
                    return web.Response(body=whole, headers=said | {"Content-Type": answer.headers["content-type"]})
                said["X-Amzn-SageMaker-Content-Type"] = answer.headers["content-type"]
                return await self._stream(request, answer, said)
        except _Failed as failed:
            said["x-amzn-ErrorType"] = failed.code
            return web.json_response(failed.body, status=failed.status, headers=said)
        finally:
            self.running -= 1

    def _admit(self, request: Request, operation: str, name: str) -> str:
        """The container's URL. Raises _Failed."""
        key, region, service = request.signed
        if (region, service) != (REGION, "sagemaker") or "x-amz-date" not in request.headers:
            raise _Failed("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
        if key != _KEYS["aws_access_key_id"]:
            raise _Failed("UnrecognizedClientException", "The security token included in the request is invalid.", 403)
        given = {member: request.headers.get(_PREFIX + header) for member, header in _MEMBERS.items()}
        members = {member: value for member, value in given.items() if value is not None}
        self.calls.append(Invocation(operation, name, members, request.body))
        if self.throttles:
            self.throttles -= 1
            raise _Failed("ThrottlingException", "Rate exceeded", 400)
        if len(request.body) > BODY_BYTES:
            limit = f"Member must have length less than or equal to {BODY_BYTES}"
            at = "1 validation error detected: Value at 'body' failed to satisfy constraint"
            raise _Failed("ValidationError", f"{at}: {limit}", 400)
        asked = {"EndpointName": name, "Body": b"", **members}
        texts = {member: asked.pop(member) for member in _TEXTS if member in asked}
        found = botocore_shapes.problems("sagemaker-runtime", operation, asked)
        found += [f"{member}: {len(text)} long" for member, text in texts.items() if len(text) > _TEXTS[member]]
        if found:
            raise _Failed("ValidationError", f"{len(found)} validation error(s) detected: {'; '.join(found)}", 400)
        if name not in self.endpoints:
            raise _Failed("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.", 400)
        return self.endpoints[name]

    def _due(self, within_s: float) -> asyncio.Event:
        overdue = asyncio.Event()
        self._clock.after(within_s, overdue.set)
        return overdue

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse, said: dict[str, str]) -> Any:
        response = web.StreamResponse(headers=said | {"Content-Type": "application/vnd.amazon.eventstream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async for part in self._parts(answer):
                await response.write(part)
                if self.breaks in ("cut", "corrupt"):
                    if self.breaks == "corrupt":
                        await response.write(_flipped(_event(part)))
                    assert request.transport is not None
                    request.transport.close()
                    return response
                if self.breaks:
                    raise _Failed(self.breaks, "The stream broke.", 400)
        except _Failed as failed:
            await response.write(_exception(failed))
        await response.write_eof()
        return response

    async def _parts(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """What the container says as PayloadParts. Raises _Failed, as what ends a stream."""
        overdue = self._due(STREAM_S)
        chunks = aiter(answer.content.iter_any())
        try:
            while True:
                reading = asyncio.ensure_future(anext(chunks, None))
                chunk = await _unless(overdue, reading, "ModelStreamError")
                if chunk is None:
                    return
                for part in self._cut(chunk):
                    yield _event(part)
        except aiohttp.ClientError as error:
            raise _Failed("ModelStreamError", f"The connection to the model broke: {error}", 400) from None

    def _cut(self, data: bytes) -> Iterator[bytes]:
        cuts = sorted(self._random.randrange(len(data) + 1) for _ in range(self._random.randrange(4)))
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if end > start:
                yield data[start:end]


class _Failed(Refused):
    """An error answer, or what ends a stream."""

    def __init__(self, code: str, message: str, status: int, **members: Any) -> None:
        super().__init__(code, message, status)
        self.body = {"Message": message, **members}


def _model_error(status: int, said: str) -> _Failed:
    """What becomes of a container's error answer; 0: there was none."""
    whose = "client" if 400 <= status < 500 else "server"
    where = f"https://{REGION}.console.aws.amazon.com/cloudwatch/home in account {ACCOUNT} for more information."
    message = f'Received {whose} error ({status}) from primary with message "{said}". See {where}'
    log = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/tiny"
    return _Failed("ModelError", message[:2048], 424, OriginalStatusCode=status, OriginalMessage=said, LogStreamArn=log)


async def _unless(overdue: asyncio.Event, doing: asyncio.Future[Any], code: str) -> Any:
    """What `doing` comes to. Raises _Failed where its time is over first."""
    waiting = asyncio.ensure_future(overdue.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when="FIRST_COMPLETED")
        if doing.done():
            return doing.result()
    finally:
        waiting.cancel()
        doing.cancel()
        await asyncio.gather(doing, waiting, return_exceptions=True)
    if code == "ModelError":
        raise _model_error(0, "Your invocation timed out while waiting for a response from container primary.")
    late = "The model failed to finish sending the response within the timeout period allowed by Amazon SageMaker AI."
    raise _Failed(code, late, 400, ErrorCode="ModelInvocationTimeExceeded")


def _event(data: bytes) -> bytes:
    kind = {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}
    return message(kind, data)


def _exception(failed: _Failed) -> bytes:
    kind = {":exception-type": failed.code, ":content-type": "application/json", ":message-type": "exception"}
    return message(kind, json.dumps(failed.body).encode())


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message of an event stream: lengths and their checksum, headers, payload, and a checksum of it all."""
    packed = b"".join(
        struct.pack("!B", len(name)) + name + struct.pack("!BH", 7, len(value)) + value  # 7: a string
        for name, value in ((name.encode(), value.encode()) for name, value in headers.items())
    )
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    begun = prelude + struct.pack("!I", crc32(prelude)) + packed + payload
    return begun + struct.pack("!I", crc32(begun))


def _flipped(data: bytes) -> bytes:
    """The same with another last bit, which is the checksum's."""
    return data[:-1] + bytes([data[-1] ^ 1])
