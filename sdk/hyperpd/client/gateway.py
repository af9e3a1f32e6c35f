"""A way in: a gateway's URL, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx

from hyperpd.api_key import check
from hyperpd.client.patience import UNREACHABLE, Timeouts
from hyperpd.client.way import Opened, Request
from hyperpd.errors import RecipeError, RequestError


class Gateway:
    """url: as in http://127.0.0.1:8080. headers: sent with each request.

    Raises RecipeError where the URL is none, or the key none that can be sent.
    """

    lists_models = True

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if api_key is not None:
            check(api_key, "api_key")  # what no header carries would be shown in the error that says so
        self.where, self.api_key = url.rstrip("/"), api_key
        sent = {**(headers or {}), **({"authorization": f"Bearer {api_key}"} if api_key else {})}
        try:
            self._http = httpx.AsyncClient(base_url=self.where, headers=sent, transport=transport)
            if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
                raise httpx.InvalidURL("no http:// or https:// in front")
        except httpx.InvalidURL as error:
            raise RecipeError("url", [f"{url!r} is no gateway's: {error}; try http://127.0.0.1:8080"]) from None

    def next_step(self, status: int) -> str:
        if status in (401, 403):
            return "the API key that this needs (api_key=, hyperpd invoke --key-file)"
        return "hyperpd status" if status >= 500 and status != 504 else ""

    async def open(self, request: Request, timeouts: Timeouts) -> Opened:
        built = self._http.build_request(
            "GET" if request.body is None else "POST",
            request.path,
            content=request.body,
            headers={"content-type": "application/json", "x-request-id": request.id},
            timeout=httpx.Timeout(None, connect=timeouts.connect_s),  # the others are the caller's
        )
        try:
            answer = await self._http.send(built, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error, request) from error
        except httpx.HTTPError as error:
            raise self._lost(error, request) from error
        return Opened(answer.status_code, answer.headers, self._parts(answer, request), answer.aclose)

    async def _parts(self, answer: httpx.Response, request: Request) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_bytes():
                if chunk:
                    yield chunk
        except httpx.HTTPError as error:
            raise self._lost(error, request) from error

    async def close(self) -> None:
        await self._http.aclose()

    def _unreachable(self, error: httpx.HTTPError, request: Request) -> RequestError:
        reason = str(error) or type(error).__name__
        hint = f"is it running? try: {self.next_step(500)}"
        match self._http.base_url.host.split("."):
            case [service, namespace, "svc", *_]:
                port = self._http.base_url.port or 80
                forward = f"kubectl --namespace {namespace} port-forward service/{service} {port}"
                hint = f"only its cluster knows this name; from elsewhere: {forward}, and http://127.0.0.1:{port}"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            hint = "a private authority's certificates are believed with SSL_CERT_FILE=ca.pem in the environment"
            return RequestError(
                f"{self.where}: {reason}; {hint}", code="certificate_not_believed", request_id=request.id
            )
        return RequestError(f"{self.where}: {reason}; {hint}", code=UNREACHABLE, request_id=request.id)

    def _lost(self, error: httpx.HTTPError, request: Request) -> RequestError:
        reason = str(error) or type(error).__name__
        return RequestError(
            f"{self.where}: the connection broke: {reason}; it is not sent again (request {request.id})"
            f"\ntry: {self.next_step(500)}",
            code="connection_lost",
            request_id=request.id,
        )
