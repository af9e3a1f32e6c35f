"""The four inference APIs, and what differs between them on the wire. Nothing else knows their field names.

Protocol: vLLM 0.32. Lists of fields are allow-lists: the upstream body has these and no others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hyperpd.errors import RequestError
from hyperpd.sse import encode

_SAMPLING = """
    model stream temperature top_p top_k min_p seed stop stop_token_ids presence_penalty frequency_penalty
    repetition_penalty logit_bias user ignore_eos skip_special_tokens include_stop_str_in_output structured_outputs
    metadata
"""
_OPENAI = f"""
    {_SAMPLING} stream_options max_tokens min_tokens n best_of length_penalty logprobs logprob_token_ids
    spaces_between_special_tokens use_beam_search prompt_logprobs response_format return_token_ids
    return_tokens_as_token_ids bad_words allowed_token_ids truncate_prompt_tokens truncation_side add_special_tokens
    repetition_detection thinking_token_budget stream_interval
"""
_CHAT = """
    messages max_completion_tokens top_logprobs tools tool_choice parallel_tool_calls reasoning_effort
    add_generation_prompt continue_final_message chat_template_kwargs include_reasoning documents
"""
_RESPONSES = f"""
    {_SAMPLING} input instructions max_output_tokens text tools tool_choice parallel_tool_calls reasoning include
    include_reasoning top_logprobs truncation store background previous_response_id service_tier prompt_cache_key
    chat_template_kwargs
"""
_INVALID = "invalid_request_error"
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_MESSAGES = """
    model messages system max_tokens stream temperature top_p top_k stop_sequences tools tool_choice thinking
    output_config metadata chat_template_kwargs
"""


@dataclass(frozen=True, slots=True)
class Api:
    """One way to ask for text.

    prompt:   the field that has to be there.
    limits:   the fields that bound the output; prefill gets the last one, as 1.
    ends:     what begins the last event of a stream. A line break never stands inside an event's JSON.
    error:    what begins an error event.
    preamble: how many events are said before the engine has done anything.
    opening:  how many come with its first work, before it is said that this failed.
    unsaid_output_tokens: how long an output is that nothing is said of; 0: as long as the model has room.
    """

    name: str
    path: str
    prompt: str
    fields: frozenset[str]
    limits: tuple[str, ...]
    ends: bytes
    error: bytes
    preamble: int = 0
    opening: int = 0
    unsaid_output_tokens: int = 0

    def error_event(self, error: RequestError) -> bytes:
        """`error` as the last event of a stream that can go on no more."""
        body = error_body(self, error)
        if self is RESPONSES:
            body = {"type": "error", "code": error.code, "message": str(error), "param": None, **body}
        named = b"event: error\n" if self.error.startswith(b"event") else b""
        return named + encode(json.dumps(body))


def _api(name: str, path: str, prompt: str, fields: str, *limits: str, **more: Any) -> Api:
    events = {"ends": b"\ndata: [DONE]", "error": b'data: {"error"'} | more
    return Api(name, path, prompt, frozenset(fields.split()), limits, **events)


COMPLETIONS = _api(
    *("completions", "/v1/completions", "prompt", f"{_OPENAI} prompt echo suffix", "max_tokens"),
    unsaid_output_tokens=16,
)
CHAT = _api(
    *("chat", "/v1/chat/completions", "messages", f"{_OPENAI} {_CHAT}", "max_tokens", "max_completion_tokens"),
    opening=1,  # the role
)
RESPONSES = _api(
    *("responses", "/v1/responses", "input", _RESPONSES, "max_output_tokens"),
    ends=b"\nevent: response.completed\n",
    error=b"event: error\n",
    preamble=2,  # response.created and response.in_progress
)
MESSAGES = _api(
    *("messages", "/v1/messages", "messages", _MESSAGES, "max_tokens"),
    ends=b"\nevent: message_stop\n",
    error=b"event: error\n",
    opening=1,  # message_start
)
APIS = (COMPLETIONS, CHAT, RESPONSES, MESSAGES)
BY_PATH = {api.path: api for api in APIS}


def by_shape(body: dict[str, Any]) -> Api:
    """Which API a body is meant for that came without a route: as the engine's own /invocations, chat or completion."""
    return CHAT if "messages" in body else COMPLETIONS


def error_body(api: Api | None, error: RequestError) -> dict[str, Any]:
    """An error as clients of that API expect it: OpenAI's object, or Anthropic's with types of its own."""
    body = error.body()
    if api is not MESSAGES:
        return body
    kind = _ANTHROPIC_TYPES.get(error.status, _INVALID)
    return {"type": "error", "error": {**body["error"], "type": kind}, "request_id": error.request_id}
