"""A way in: a SageMaker endpoint, by boto3's sagemaker-runtime (extra `aws`).

Credentials and Region come from the session, or boto3's own chain.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from hyperpd.client.call import Call, Sent
from hyperpd.client.patience import UNREACHABLE, Timeouts
from hyperpd.client.way import Opened, Request
from hyperpd.errors import CloudError, DecodeFailed, NotReady, RecipeError, Rejected, RequestError

ANSWER_S = 60  # SageMaker gives a container so long for a whole answer, or to begin a stream
_THROTTLED = ("ThrottlingException", "Throttling", "TooManyRequestsException", "ModelNotReadyException")
_FORBIDDEN = (
    "AccessDenied",
    "ExpiredToken",
    "UnrecognizedClient",
    "InvalidClientTokenId",
    "InvalidSignature",
    "Missing",
)
_NO_LOGIN = ("Credential", "Token", "Profile", "Region")  # in names of botocore's errors
_CHUNK_BYTES = 65536


class Endpoint:
    """An endpoint whose container is hyperpd's, or another that takes `route=` in CustomAttributes.

    region, session: where and as whom; default: boto3's. session_id: SageMaker's SessionId. attributes: what else is
    said in CustomAttributes. parameters: InvokeEndpoint's own, as boto3 names them (TargetVariant, PrefixAwareId, …).

    Raises RecipeError for attributes that cannot be said.
    """

    lists_models = False

    def __init__(
        self,
        name: str,
        *,
        region: str | None = None,
        session: Any = None,
        session_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> None:
        self.name, self.where = name, f"endpoint {name}"
        self._region, self._session = region, session
        self._attributes = dict(attributes or {})
        wrong = [key for key, value in self._attributes.items() if not _sayable(key, value)]
        if wrong:
            rule = "ASCII without commas and =, and no route, which is the client's"
            raise RecipeError("attributes", [f"{key!r} cannot be said: {rule}" for key in wrong])
        self._parameters = {**({"SessionId": session_id} if session_id else {}), **parameters}
        self._runtime: Any = None
        self._lock = threading.Lock()

    def next_step(self, status: int) -> str:
        if status == 401:
            return (
                "a recipe without gateway.auth: SageMaker lets no API key through, and asks for AWS's signature itself"
            )
        if status == 403:
            return "aws sts get-caller-identity; it needs sagemaker:InvokeEndpoint and …WithResponseStream"
        if status >= 500 and status != 504:
            region = f" --region {self._region}" if self._region else ""
            return f"aws sagemaker describe-endpoint --endpoint-name {self.name}{region}"
        return ""

    async def open(self, request: Request, timeouts: Timeouts) -> Opened:
        """Raises RequestError, CloudError without credentials, NotReady without boto3. A call that is left before its
        answer begins goes on in its thread until SageMaker ends it: boto3 cannot take it back."""
        if request.body is None:
            raise Rejected(
                f"{self.where}: an endpoint takes requests for text only; {request.path} needs a gateway's URL"
            )
        return await Call(partial(self._send, request, timeouts)).opened()

    async def close(self) -> None:
        if self._runtime:
            self._runtime.close()

    def _send(self, request: Request, timeouts: Timeouts) -> Sent:
        runtime = self._client(timeouts)
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectTimeoutError,
            EndpointConnectionError,
            ParamValidationError,
        )

        said = ",".join(f"{key}={value}" for key, value in {"route": request.path, **self._attributes}.items())
        invoke = runtime.invoke_endpoint_with_response_stream if request.stream else runtime.invoke_endpoint
        try:
            answer = invoke(
                **{"ContentType": "application/json", "CustomAttributes": said, **self._parameters},
                **{"EndpointName": self.name, "Body": request.body},
            )
        except ClientError as error:
            return self._refused(error.response, request)
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            message = f"{self.where}: {error}\ntry: the Region it is in"
            raise RequestError(message, code=UNREACHABLE, request_id=request.id) from error
        except ParamValidationError as error:
            raise Rejected(f"{self.where}: {error}") from error
        except BotoCoreError as error:
            if any(word in type(error).__name__ for word in _NO_LOGIN):
                raise _no_login(self.where, error) from None
            raise self._lost(error, request.id) from error
        request_id = answer["ResponseMetadata"].get("RequestId", request.id)
        headers = {"x-request-id": request_id, "content-type": answer.get("ContentType", "")}
        return Sent(200, headers, self._parts(answer["Body"], request_id, request.stream), answer["Body"])

    def _parts(self, body: Any, request_id: str, streamed: bool) -> Iterator[bytes]:
        from botocore.eventstream import ParserError
        from botocore.exceptions import BotoCoreError, EventStreamError
        from urllib3.exceptions import HTTPError

        try:
            if not streamed:
                yield from body.iter_chunks(_CHUNK_BYTES)
                return
            for event in body:
                yield event.get("PayloadPart", {}).get("Bytes", b"")
        except EventStreamError as error:
            raise self._broke(error.response.get("Error", {}), request_id) from None
        except (BotoCoreError, HTTPError, ParserError, OSError) as error:
            raise self._lost(error, request_id) from error

    def _refused(self, response: Mapping[str, Any], request: Request) -> Sent:
        """An error answer in OpenAI's words: the container's own, or what SageMaker says, explained."""
        error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
        code, message, status = error.get("Code", ""), error.get("Message", ""), metadata.get("HTTPStatusCode", 500)
        headers = {"x-request-id": metadata.get("RequestId", request.id)}
        if code == "ModelError" and (original := response.get("OriginalStatusCode", 0)):
            return Sent(original, headers, [str(response.get("OriginalMessage", "")).encode()])
        if code == "ModelError" and "timed out" not in message:
            status, code = 502, "model_error"  # the container hung up, say
        elif code == "ModelError":
            status, code = 504, "sagemaker_timeout"
            what = "begin its stream" if request.stream else "give its whole answer"
            message = f"the container did not {what} within the {ANSWER_S} s that SageMaker waits"
            message += "" if request.stream else "\ntry: streaming it, which only has to begin by then; or fewer tokens"
        elif status == 413 or ("less than or equal to" in message and "'body'" in message):
            status, code = 413, "payload_too_large"
            size = len(request.body or b"")
            message = (
                f"the request has {size:,} bytes, and SageMaker's InvokeEndpoint takes 6,291,456 (6 MiB)"
                "\ntry: a shorter prompt, or the gateway's own URL"
            )
        elif code in _THROTTLED:
            status, headers = 429, {**headers, "retry-after": "1"}  # refused before it began
        elif "not found" in message.lower():
            status, code = 404, "endpoint_not_found"
            message += "\ntry: aws sagemaker list-endpoints; is it another Region or account?"
        elif code.startswith(_FORBIDDEN):
            status = 403
        body = {"error": {"message": f"{self.where}: {message or code}", "code": code}}
        return Sent(status, headers, [json.dumps(body).encode()])

    def _broke(self, error: Mapping[str, Any], request_id: str) -> RequestError:
        """An exception that SageMaker put into the stream."""
        code, message = error.get("Code", ""), error.get("Message", "")
        late = "timeout" in message.lower() or "TimeExceeded" in message
        return DecodeFailed(
            f"{self.where}: the stream broke: {code}: {message} (request {request_id})"
            f"\ntry: {'fewer tokens: SageMaker bounds how long a stream may last' if late else 'it again'}",
            code={"ModelStreamError": "model_stream_error"}.get(code, "internal_stream_failure"),
            request_id=request_id,
        )

    def _lost(self, error: Exception, request_id: str) -> RequestError:
        reason = str(error) or type(error).__name__
        return RequestError(
            f"{self.where}: the connection broke: {reason}; it is not sent again (request {request_id})"
            f"\ntry: {self.next_step(500)}",
            code="connection_lost",
            request_id=request_id,
        )

    def _client(self, timeouts: Timeouts) -> Any:
        with self._lock:
            if self._runtime is None:
                try:
                    import boto3
                except ImportError:
                    raise NotReady("a SageMaker endpoint needs boto3: pip install 'hyperpd[aws]'") from None
                from botocore.config import Config
                from botocore.exceptions import BotoCoreError

                config = Config(
                    connect_timeout=timeouts.connect_s,
                    read_timeout=max(timeouts.first_token_s, timeouts.idle_s) + 1,  # ours come first
                    retries={"total_max_attempts": 1},  # it would send again what the engine is computing
                )
                try:
                    session = self._session or boto3.Session()
                    self._runtime = session.client("sagemaker-runtime", region_name=self._region, config=config)
                except BotoCoreError as error:
                    raise _no_login(self.where, error) from None
            return self._runtime


def _sayable(key: str, value: str) -> bool:
    text = f"{key}{value}"
    return key != "route" and text.isascii() and text.isprintable() and not set(text) & {",", "="}


def _no_login(where: str, error: Exception) -> CloudError:
    return CloudError(
        f"{where}: {error}\ntry: aws configure or aws sso login, and --region; aws sts get-caller-identity says who",
        code=type(error).__name__,
    )
