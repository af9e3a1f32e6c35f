"""What a gateway can see of a prefill and a decode worker, as one document: of real engines, or of the fake one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx

from hyperpd.sse import Decoder

_ASK = {"do_remote_decode": True, "do_remote_prefill": False}
_WORDS = "the quick brown fox jumps over the lazy dog "
_CHAT = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hello", "max_tokens": 4},
    "/v1/chat/completions": {"messages": _CHAT, "max_completion_tokens": 4},
    "/v1/responses": {"input": "hello", "max_output_tokens": 4},
    "/v1/messages": {"messages": _CHAT, "max_tokens": 4},
}
LIMITS = {"/v1/chat/completions": "max_completion_tokens", "/v1/responses": "max_output_tokens"}


class Observer:
    """Asks the two workers of a pair, and notes what matters."""

    def __init__(self, http: httpx.Client, prefill: str, decode: str, model: str = "tiny-llama") -> None:
        self._http = http
        self._prefill = prefill
        self._decode = decode
        self._model = model
        self._number = 0

    def observe(self) -> dict[str, Any]:
        """All of it, by what was done."""
        return dict(self._all())

    def _all(self) -> Iterator[tuple[str, Any]]:
        for path, body in BODIES.items():
            prefilled = self._ask(self._prefill, path, self._prefill_body(path, body))
            yield f"prefill {path}", self._note(prefilled)
            self._release(prefilled.json()["kv_transfer_params"])
            whole = self._ask(self._decode, path, self._with_ticket(path, body))
            yield f"decode {path}", self._note(whole)
            stream = self._ask(self._decode, path, self._with_ticket(path, {**body, "stream": True}))
            yield f"decode {path}, streamed", self._note(stream)
            yield f"decode {path}, other model", self._other_model(path, body)
            yield f"decode {path}, beyond the length", self._beyond_length(path, body)
            for way, options in (("", {}), (", streamed", {"stream": True})):
                failing = self._with_ticket(path, {**body, **options})
                ticket = failing["kv_transfer_params"]
                # Blocks that prefill does not have: the load fails at once.
                nowhere = [[10**6 + number for number, _ in enumerate(ids)] for ids in ticket["remote_block_ids"]]
                failing["kv_transfer_params"] = {**ticket, "remote_block_ids": nowhere}
                yield f"decode {path}, load fails{way}", self._note(self._ask(self._decode, path, failing))
                self._release(ticket)
        completion = BODIES["/v1/completions"]
        yield "no ticket", self._note(self._ask(self._decode, "/v1/completions", completion))
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        yield "usage, streamed", self._note(self._ask(self._decode, "/v1/completions", {**completion, **usage}))
        yield "chat as token ids", self._token_ids()
        for name, wrong in (("min_tokens", {"min_tokens": 3}), ("temperature", {"temperature": 9})):
            refused = {**self._prefill_body("/v1/completions", completion), **wrong}
            yield f"prefill refuses {name}", self._note(self._ask(self._prefill, "/v1/completions", refused))
        yield "cached tokens are prefill's", self._cached()
        for path in ("/v1/completions", "/v1/messages"):
            yield f"decode {path}, refused by its form", self._malformed(path)
        # What the model does not do.
        answer = self._http.post(f"{self._decode}/v1/embeddings", json={"input": "x"})
        yield "no such path", {"status": answer.status_code, "said": answer.text}

    def _ask(self, url: str, path: str, body: dict[str, Any]) -> httpx.Response:
        self._number += 1
        headers = {"X-Request-Id": f"observe-{self._number}"}
        asked = self._http.build_request("POST", url + path, json={"model": self._model, **body}, headers=headers)
        answer = self._http.send(asked, stream=True)
        content, cut = b"", False
        try:
            for chunk in answer.iter_raw():
                content += chunk
        except httpx.RemoteProtocolError:
            cut = True
        finally:
            answer.close()
        kept = {"content-type": answer.headers["content-type"], "x-cut": str(cut)}
        return httpx.Response(answer.status_code, headers=kept, content=content)

    def _prefill_body(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        limits = {LIMITS.get(path, "max_tokens"): 1}
        single = {} if path in ("/v1/responses", "/v1/messages") else {"n": 1}
        return {**body, **limits, **single, "stream": False, "kv_transfer_params": _ASK}

    def _with_ticket(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._ask(self._prefill, path, self._prefill_body(path, body)).json()
        return {**body, "kv_transfer_params": answer["kv_transfer_params"]}

    def _other_model(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Decode refuses, and tells prefill to free the blocks."""
        answer = self._ask(self._decode, path, {**self._with_ticket(path, body), "model": "other"})
        return {**self._note(answer), "frees": self._freed()}

    def _malformed(self, path: str) -> dict[str, Any]:
        """Decode refuses before it looks at the ticket, whose blocks stay; the type of the error tells."""
        body = self._with_ticket(path, BODIES[path])
        answer = self._ask(self._decode, path, {**body, "temperature": "hot"})
        seen = {**self._note(answer), "error": answer.json()["error"]["type"], "frees": self._freed(1)}
        self._release(body["kv_transfer_params"])
        return seen

    def _beyond_length(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Decode refuses to say more than the model has room for, also where prefill was asked for one token first."""
        body = {**body, LIMITS.get(path, "max_tokens"): 10**6}
        answer = self._ask(self._decode, path, self._with_ticket(path, body))
        return {**self._note(answer), "frees": self._freed()}

    def _release(self, ticket: dict[str, Any]) -> None:
        body = {"model": "other", "prompt": "-", "max_tokens": 1, "kv_transfer_params": ticket}
        self._ask(self._decode, "/v1/completions", body)
        assert self._freed()

    def _freed(self, within_s: float = 15) -> bool:
        end_s = time.monotonic() + within_s
        while self._pinned() and time.monotonic() < end_s:
            threading.Event().wait(0.05)
        return self._pinned() == 0

    def _pinned(self) -> float:
        lines = self._http.get(f"{self._prefill}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:kv_cache_usage_perc"))

    def _token_ids(self) -> dict[str, Any]:
        """Prefill says which token ids a chat became, and decode takes them."""
        path, body = "/v1/chat/completions", BODIES["/v1/chat/completions"]
        first = self._ask(self._prefill, path, {**self._prefill_body(path, body), "return_token_ids": True}).json()
        ids = first["prompt_token_ids"]
        params = {**first["kv_transfer_params"], "prompt_token_ids": ids}
        answer = self._ask(self._decode, path, {**body, "kv_transfer_params": params})
        return {**self._note(answer), "ids": isinstance(ids, list) and all(isinstance(one, int) for one in ids)}

    def _cached(self) -> bool:
        """A prompt that prefill has and decode has not: the client is told of prefill's cached tokens."""
        body = {"prompt": _WORDS * 20, "max_tokens": 4, "cache_salt": "observed"}
        self._ask(self._prefill, "/v1/completions", {**body, "max_tokens": 2})
        answer = self._ask(self._decode, "/v1/completions", self._with_ticket("/v1/completions", body)).json()
        return bool(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    def _note(self, answer: httpx.Response) -> dict[str, Any]:
        kind = answer.headers.get("content-type", "").partition(";")[0]
        note: dict[str, Any] = {"status": answer.status_code, "type": kind}
        if kind == "text/event-stream":
            return note | {"events": _events(answer.content), "cut": answer.headers["x-cut"] == "True"}
        document = answer.json()
        params = document.get("kv_transfer_params")
        usage = document.get("usage") or {}
        return note | {
            "ticket": sorted(params) if params else None,
            "error": _error(document),
            "usage": sorted(key for key in usage if key.endswith(("prompt_tokens", "input_tokens", "output_tokens"))),
        }


def _error(document: dict[str, Any]) -> list[str] | None:
    error = document.get("error")
    return sorted({*document, *error} & {"type", "error", "message"}) if isinstance(error, dict) else None


def _events(stream: bytes) -> list[str]:
    """The kinds of a stream's events, each run of the same kind once."""
    kinds: list[str] = []
    names = [line[7:].decode() for line in stream.split(b"\n") if line.startswith(b"event: ")]
    for number, payload in enumerate(Decoder().feed(stream)):
        kind = names[number] if number < len(names) else "[DONE]" if payload == "[DONE]" else _kind(payload)
        if not kinds or kinds[-1] != kind:
            kinds.append(kind)
    return [kind for kind in kinds if not kind.startswith(("response.output_", "response.content_", "content_block"))]


def _kind(payload: str) -> str:
    if payload.startswith('{"error"'):
        return "error"
    return "usage" if '"choices":[]' in payload.replace(" ", "") else "choices"
