"""What may enter, and what must never be disaggregated. One table, each line with its reason."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hyperpd.errors import Rejected
from hyperpd.recipe import Limits
from hyperpd_runtime.gateway import strict_json
from hyperpd_runtime.gateway.apis import Api
from hyperpd_runtime.gateway.bounds import excess, output_limit
from hyperpd_runtime.gateway.fields import json_type, whole_numbers, wrong_value
from hyperpd_runtime.gateway.shapes import Ask
from hyperpd_runtime.gateway.strict_json import NotJson

How = Literal["disaggregated", "split", "decode_only", "refused"]

# Refused by name: they choose hosts, blocks, scheduling or cache keys inside the engines.
FORBIDDEN = {
    "kv_transfer_params": "transfer parameters are made by the gateway",
    "ec_transfer_params": "transfer parameters are made by the gateway",
    "request_id": "request ids are made by the gateway; send X-Request-Id to have yours logged",
    "session_id": "it chooses a worker",
    "priority": "it would reorder other requests",
    "prompt_embeds": "it reaches engine memory",
    "vllm_xargs": "it reaches the connector",
    "cache_salt": "cache keys are the gateway's",
}
MOST_PARTS = 128  # of a split request; each is a request to both roles
_SAID = 8  # unknown fields in one answer: to look for what was meant by each takes time
_NAME_LENGTH = 64
_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Shape:
    """A line of the table: requests that `fits` are served that way. `why` is a label in metrics."""

    how: How
    why: str
    fits: Callable[[Ask], object]
    because: str


# The first line that fits decides.
TABLE = (
    Shape("refused", "stored", Ask.stored,
          "store, background, previous_response_id: answers are not kept here; send the whole input"),
    Shape("refused", "best_of", lambda ask: ask.body.get("best_of") not in (None, 1, ask.body.get("n")),
          "best_of: the engine has no such choice; ask for n answers and choose"),
    Shape("decode_only", "prompt_embeds", lambda ask: ask.body.get("prompt_embeds"),
          "no handoff of a prompt of embeddings has been tested"),
    Shape("decode_only", "beam_search", lambda ask: ask.body.get("use_beam_search"),
          "beams share one ticket: the first to end frees what the others still read"),
    Shape("decode_only", "prompt_logprobs", Ask.prompt_logprobs,
          "decode skips every cache for them and computes the prompt anyway"),
    Shape("decode_only", "prompt_mixed", Ask.mixed_prompts,
          "what is not all texts or all token ids may be several prompts, by the engine's reading, with one ticket"),
    Shape("decode_only", "one_token", Ask.one_token,
          "nothing is decoded that prefill did not compute, or the engine refuses it"),
    Shape("decode_only", "beyond_length", Ask.beyond_length,
          "more output than the model's length: the engine refuses it, and prefill, asked for one token, would not"),
    Shape("decode_only", "stream_options", lambda ask: ask.body.get("stream_options") and not ask.body.get("stream"),
          "without a stream the engine refuses them, too early to give a ticket back, and prefill is not shown them"),
    Shape("decode_only", "truncation", Ask.truncated,
          "what is cut off depends on the output limit, so the two legs could have different prompts"),
    Shape("decode_only", "builtin_tools", Ask.builtin_tools,
          "the engine may run a tool and ask the model again, with the ticket of the first prompt"),
    Shape("decode_only", "media", Ask.media,
          "no handoff of images, sound, video or files has been tested"),
    Shape("decode_only", "n_greedy", lambda ask: ask.answers() > 1 and ask.greedy(),
          "the engine refuses it, and says so itself"),
    Shape("decode_only", "too_many", lambda ask: not 1 <= ask.prompts() * ask.answers() <= MOST_PARTS,
          f"more than {MOST_PARTS} answers at once would fill both roles; or n is nothing that could be counted"),
    Shape("split", "prompt_list", lambda ask: ask.prompts() > 1,
          "the engine gives the first prompt's ticket to all of them: wrong text, or a dead engine"),
    Shape("split", "n", lambda ask: ask.answers() > 1,
          "children share one ticket; each alone, with the seed the engine would give it, is the same answer"),
    Shape("disaggregated", "plain", lambda _: True,
          "token ids, echo, logprobs, stops, limits, seeds, penalties, structured output, tools, reasoning, adapters,"
          " any API, streamed or not: decode samples everything from the KV cache of the prompt"),
)  # fmt: skip
PLAIN = TABLE[-1]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may enter. Whether it may be handed off is decided by its shape alone.

    forced: an operator wants it handed off. session: see steering.Caller.
    """

    body: dict[str, Any]
    api: Api
    shape: Shape
    forced: bool = False
    session: str = ""

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))


class Refused(Rejected):
    """A request that may not enter; `why` is the word that the metrics count it by."""

    def __init__(
        self, message: str, why: str, *, status: int = 400, code: str = "invalid_field", param: str | None = None
    ) -> None:
        super().__init__(message, status=status, code=code, param=param)
        self.why = why


def read(raw: bytes, depth: int = 64) -> dict[str, Any]:
    """A client's body, at most `depth` levels of it. Raises Refused when it is not a JSON object."""
    if not raw.strip():
        raise Refused("the body is empty; send a JSON object", "empty_body", code="empty_body")
    try:
        body = strict_json.loads(raw, depth)
    except NotJson as error:
        raise Refused(f"the body cannot be read as JSON: {error}", "invalid_json", code=error.code) from None
    if not isinstance(body, dict):
        found = json_type(body)
        raise Refused(f"the body must be a JSON object (found: {found})", "invalid_json", code="invalid_json")
    whole_numbers(body)
    return body


def admit(
    body: dict[str, Any],
    api: Api,
    models: Sequence[str],
    model: str = "",
    length_tokens: float = math.inf,
    limits: Limits = _LIMITS,
    *,
    allow: frozenset[str] = frozenset(),
) -> Admitted:
    """Decide how a client's body is served.

    models: what is served, the model itself before its adapters. model: overrules the body's.
    length_tokens: see Ask. allow: forbidden fields that may enter all the same.
    Raises Refused naming every field that may not enter.
    """
    prompted = body.get(api.prompt) not in (None, "", []) or ("prompt_embeds" in allow and body.get("prompt_embeds"))
    missing = {} if prompted else {api.prompt: "missing or empty (give it)"}
    _refuse(wrong_fields(body, api.fields | allow) | missing, body)
    check_model(body, models, model)
    ask = Ask(body, api, length_tokens)
    if found := excess(ask, limits):
        raise Refused(found.message, found.code, code=found.code, param=found.param)
    body |= output_limit(ask, limits)
    shape = decide(ask)
    if shape.how == "refused":
        raise Refused(shape.because, shape.why)
    return Admitted(body, api, shape)


def check(body: dict[str, Any], allowed: frozenset[str], models: Sequence[str]) -> None:
    """Raises Refused when a body has a field that is not of `allowed`, or asks for a model that is not served."""
    _refuse(wrong_fields(body, allowed), body)
    check_model(body, models)


def wrong_fields(body: Mapping[str, Any], allowed: frozenset[str]) -> dict[str, str]:
    """What is wrong with the fields of a body, by their names: with these, or with the type of what they hold."""
    wrong = {
        key: f"not accepted, {FORBIDDEN[key]} (leave it out)" for key in body if key in FORBIDDEN and key not in allowed
    }
    unknown = [key for key in body if key not in allowed and key not in FORBIDDEN]
    wrong |= {key: _unknown(key, allowed) for key in unknown[:_SAID]}
    if len(unknown) > _SAID:
        wrong["and"] = f"{len(unknown) - _SAID} more unknown fields"
    return wrong | {key: said for key in body if key in allowed and (said := wrong_value(key, body[key]))}


def _refuse(wrong: Mapping[str, str], body: Mapping[str, Any]) -> None:
    if wrong:
        message = "; ".join(f"{short(key)}: {said}" for key, said in wrong.items())
        why = next((key for key in body if key in FORBIDDEN), "invalid_field")
        raise Refused(message, why, param=short(next(iter(wrong))))


def short(text: str) -> str:
    """What a client said, to be told to it again: no more than a name's length of it, and nothing that is not text."""
    shown = text if len(text) <= _NAME_LENGTH else f"{text[:_NAME_LENGTH]}…"
    return shown.encode(errors="backslashreplace").decode()


def check_model(body: dict[str, Any], models: Sequence[str], model: str = "") -> None:
    """Fill in or overrule the body's model. Raises Refused (404) when it is not served."""
    if model:
        body["model"] = model
    if body.get("model") is None:
        body["model"] = models[0]
    if body["model"] not in models:
        raise Refused(
            f"model {short(str(body['model']))!r} is not served here; this is {' and '.join(map(repr, models))}",
            "model_not_found",
            status=404,
            code="model_not_found",
            param="model",
        )


def decide(ask: Ask) -> Shape:
    """The line of the table for this request."""
    return next(shape for shape in TABLE if shape.fits(ask))


def _unknown(key: str, allowed: frozenset[str]) -> str:
    near = difflib.get_close_matches(key, allowed, 1) if len(key) <= _NAME_LENGTH else []
    return f"unknown, did you mean {near[0]}?" if near else "unknown (leave it out)"
