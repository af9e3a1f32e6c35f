"""How vLLM's four inference APIs look on the wire, as far as a gateway can tell: bodies, streams, errors, tickets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer."""

    prompt: int
    completion: int
    cached: int = 0


def ticket(lease: str, cached: int = 0) -> dict[str, Any]:
    """A ticket with every field that the real one has."""
    return {
        "do_remote_prefill": True,
        "do_remote_decode": False,
        "remote_engine_id": "prefill-0-x",
        "remote_request_id": lease,
        "remote_block_ids": [[1, 2]],
        "remote_host": "127.0.0.1",
        "remote_port": 5600,
        "tp_size": 1,
        "dcp_size": 1,
        "pp_size": 1,
        "remote_num_tokens": 3,
        "remote_blocks_expiry_time": None,
        "transfer_mode": "pull",
        "remote_prefill_cached_tokens": cached,
    }


class Api:
    """OpenAI's completions; the others differ by what they override."""

    chat = False
    limit = "max_tokens"
    has_n = True
    cuts = False  # the connection, where it cannot say that it failed

    def prompts(self, body: dict[str, Any]) -> list[Any]:
        prompt = body.get("prompt_embeds") or body["prompt"]
        return prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]

    def wrong_for_prefill(self, body: dict[str, Any]) -> list[str]:
        """Fields that a prefill leg must not have as they are."""
        wrong = [key for key in ("stream_options", "min_tokens") if key in body]
        wrong += [key for key in ("stream",) if body.get(key)]
        wrong += [] if body.get(self.limit) == 1 else [self.limit]
        wrong += ["n"] if self.has_n and body.get("n") != 1 else []
        return wrong + (["prompt: a list"] if len(self.prompts(body)) > 1 else [])

    def malformed(self, body: dict[str, Any]) -> str:
        """What is wrong with a body's form, of that which the tests get wrong."""
        wrong = ["stream_options"] if body.get("stream_options") and not body.get("stream") else []
        wrong += [name for name in ("temperature", "seed") if isinstance(body.get(name), str)]
        return ", ".join(wrong)

    def beyond(self, body: dict[str, Any], length: int) -> str:
        """The limit that asks for more tokens than the model has room for, with its value."""
        limit = self.limit if body.get(self.limit) is not None else "max_tokens"
        return f"{limit}={body[limit]}" if (body.get(limit) or 0) > length else ""

    def error(self, message: str, status: int) -> dict[str, Any]:
        return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}

    def usage(self, usage: Usage) -> dict[str, Any]:
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {"cached_tokens": usage.cached},
        }

    def choice(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": "length"}

    def delta(self, index: int, word: str, ends: bool) -> dict[str, Any]:
        return {"index": index, "text": word, "logprobs": None, "finish_reason": "length" if ends else None}

    def whole(self, texts: list[str], usage: Usage) -> dict[str, Any]:
        choices = [self.choice(index, text) for index, text in enumerate(texts)]
        return {"id": "1", "object": "whole", "created": 7, "choices": choices, "usage": self.usage(usage)}

    def preamble(self) -> Iterator[bytes]:
        yield from ()

    def failed(self) -> Iterator[bytes]:
        yield b'data: {"error": {"message": "KV load failed", "code": 500}}\n\n'
        yield b"data: [DONE]\n\n"

    def events(self, texts: list[str], usage: Usage, body: dict[str, Any]) -> Iterator[bytes]:
        """The stream: word by word, the answers in turn."""
        words = [text.split(" ") for text in texts]
        for place in range(max(map(len, words))):
            for index, said in enumerate(words):
                if place < len(said):
                    delta = self.delta(index, said[place] + " ", place + 1 == len(said))
                    yield _data({"id": "1", "created": 7, "choices": [delta]})
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _data({"id": "1", "created": 7, "choices": [], "usage": self.usage(usage)})
        yield b"data: [DONE]\n\n"


class Chat(Api):
    """Chat completions."""

    chat = True
    limit = "max_completion_tokens"

    def prompts(self, body: dict[str, Any]) -> list[Any]:
        return [body["messages"][-1]["content"]]

    def choice(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}

    def delta(self, index: int, word: str, ends: bool) -> dict[str, Any]:
        return {"index": index, "delta": {"content": word}, "finish_reason": "length" if ends else None}

    def failed(self) -> Iterator[bytes]:
        yield self._role(0)
        yield from super().failed()

    def events(self, texts: list[str], usage: Usage, body: dict[str, Any]) -> Iterator[bytes]:
        yield from (self._role(index) for index, _ in enumerate(texts))
        yield from super().events(texts, usage, body)

    def _role(self, index: int) -> bytes:
        choice = {"index": index, "delta": {"role": "assistant", "content": ""}}
        return _data({"id": "1", "created": 7, "choices": [choice]})


class Responses(Api):
    """Responses: two events before the engine has done anything, and a last one that holds all."""

    limit = "max_output_tokens"
    has_n = False
    cuts = True

    def prompts(self, body: dict[str, Any]) -> list[Any]:
        return [body["input"] if isinstance(body["input"], str) else body["input"][-1]["content"]]

    def usage(self, usage: Usage) -> dict[str, Any]:
        return {
            "input_tokens": usage.prompt,
            "output_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "input_tokens_details": {"cached_tokens": usage.cached},
        }

    def whole(self, texts: list[str], usage: Usage) -> dict[str, Any]:
        content = [{"type": "output_text", "text": texts[0]}]
        return {"id": "r", "output": [{"type": "message", "content": content}], "usage": self.usage(usage)}

    def preamble(self) -> Iterator[bytes]:
        for name in ("response.created", "response.in_progress"):
            yield _event(name, {"type": name, "response": {}})

    def failed(self) -> Iterator[bytes]:
        yield from ()  # vLLM 0.32 cannot say it in this API: it closes the connection

    def events(self, texts: list[str], usage: Usage, body: dict[str, Any]) -> Iterator[bytes]:
        for word in texts[0].split(" "):
            name = "response.output_text.delta"
            yield _event(name, {"type": name, "delta": word + " "})
        name = "response.completed"
        yield _event(name, {"type": name, "response": self.whole(texts, usage)})


class Messages(Api):
    """Anthropic's messages."""

    has_n = False

    def prompts(self, body: dict[str, Any]) -> list[Any]:
        return [body["messages"][-1]["content"]]

    def malformed(self, body: dict[str, Any]) -> str:
        return super().malformed(body) or ("" if "max_tokens" in body else "max_tokens")

    def error(self, message: str, status: int) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "BadRequestError", "message": message}}

    def usage(self, usage: Usage) -> dict[str, Any]:
        return {
            "input_tokens": usage.prompt - usage.cached,
            "output_tokens": usage.completion,
            "cache_read_input_tokens": usage.cached,
            "cache_creation_input_tokens": 0,
        }

    def whole(self, texts: list[str], usage: Usage) -> dict[str, Any]:
        content = [{"type": "text", "text": texts[0]}]
        return {"id": "m", "type": "message", "role": "assistant", "content": content, "usage": self.usage(usage)}

    def failed(self) -> Iterator[bytes]:
        yield _event("message_start", {"type": "message_start", "message": {}})
        yield _event("error", {"type": "error", "error": {"type": "internal_error", "message": "KV load failed"}})

    def events(self, texts: list[str], usage: Usage, body: dict[str, Any]) -> Iterator[bytes]:
        yield _event("message_start", {"type": "message_start", "message": {}})
        for word in texts[0].split(" "):
            delta = {"type": "text_delta", "text": word + " "}
            yield _event("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta})
        yield _event("message_delta", {"type": "message_delta", "delta": {}, "usage": self.usage(usage)})
        yield _event("message_stop", {"type": "message_stop"})


def _data(payload: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()


def _event(name: str, payload: dict[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + _data(payload)


APIS: dict[str, Api] = {
    "/v1/completions": Api(),
    "/v1/chat/completions": Chat(),
    "/v1/responses": Responses(),
    "/v1/messages": Messages(),
}
