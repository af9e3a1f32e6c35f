"""Random valid request bodies, one strategy for each shape that the gateway decides about."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.real.recipes import ADAPTER, THINK_END

Body = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]
COMPLETIONS, CHAT, RESPONSES, MESSAGES, INVOCATIONS = (
    *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/invocations"),
)
_PLAIN = "abcdefghijklmnopqrstuvwxyz     ,."
_WIDE = 'aé😀漢ß\u202e 🏳️‍🌈\n\t\\"𝕏'
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}
_TOOL = {"name": "weather", "description": "tells it", "parameters": SCHEMA}


def text(draw: Draw, most: int = 1200, alphabet: str = _PLAIN) -> str:
    length, seed = draw(st.integers(1, most)), draw(st.integers(0, 2**32))
    return "".join(random.Random(seed).choices(alphabet, k=length))


def ids(draw: Draw, most: int = 1200) -> list[int]:
    length, seed = draw(st.integers(1, most)), draw(st.integers(0, 2**32))
    return random.Random(seed).choices(range(3, 250), k=length)


def sampling(draw: Draw) -> Body:
    """Greedy, or sampled with a seed: what can be asked twice."""
    if draw(st.booleans()):
        return {"temperature": 0}
    return {"temperature": draw(st.sampled_from([0.3, 0.8, 1.2])), "seed": draw(st.integers(0, 2**31))}


def streamed(draw: Draw) -> Body:
    if not draw(st.booleans()):
        return {}
    return {"stream": True, **draw(st.sampled_from([{}, {"stream_options": {"include_usage": True}}]))}


def completion(draw: Draw, prompt: Any = None, **options: Any) -> Body:
    prompt = text(draw) if prompt is None else prompt
    return {"prompt": prompt, "max_tokens": draw(st.integers(2, 14)), **sampling(draw), **streamed(draw), **options}


def chat(draw: Draw, **options: Any) -> Body:
    messages = [{"role": "user", "content": text(draw, 700)}]
    if draw(st.booleans()):
        messages = [{"role": "system", "content": text(draw, 200)}, *messages]
    limit = draw(st.sampled_from(["max_tokens", "max_completion_tokens"]))
    return {"messages": messages, limit: draw(st.integers(2, 14)), **sampling(draw), **streamed(draw), **options}


def response(draw: Draw, **options: Any) -> Body:
    given = {"input": text(draw), "max_output_tokens": draw(st.integers(2, 14)), "stream": draw(st.booleans())}
    return {**given, **sampling(draw), **options}


def whole(body: Body) -> Body:
    """Not streamed: a stream of responses leaves out the logprobs of a token whose text came with the next one."""
    return {**body, "stream": False}


def message(draw: Draw, **options: Any) -> Body:
    given = {"messages": [{"role": "user", "content": text(draw)}], "max_tokens": draw(st.integers(2, 14))}
    return {**given, "temperature": 0, "stream": draw(st.booleans()), **options}


def several(draw: Draw, one: Callable[..., Any]) -> list[Any]:
    return [one(draw, 500) for _ in range(draw(st.integers(2, 3)))]


def seeded(draw: Draw) -> Body:
    return {"n": draw(st.integers(2, 3)), "temperature": 0.9, "seed": draw(st.integers(0, 2**31))}


def structured(draw: Draw, **how: Any) -> Body:
    return {"structured_outputs": how, "max_tokens": 40, "temperature": draw(st.sampled_from([0, 0.7])), "seed": 5}


def thinking(draw: Draw) -> Body:
    """Reasoning first, which ends soon, late or never."""
    end = draw(st.sampled_from([None, 36, 40, 44]))  # tiny-llama says it at once from 50 on, and never below 32
    return {"chat_template_kwargs": {"thinking": True}, "logit_bias": end and {str(THINK_END): end}}


def thinking_aloud(draw: Draw) -> Body:
    """In ASCII: of a character that </think> cuts off a stream says something or nothing, as its events are cut."""
    space, end = 220, 257
    return {**thinking(draw), "allowed_token_ids": [*range(94), space, end, THINK_END]}


def thought(draw: Draw) -> Body:
    """Reasoning that ends, and room for what comes after it."""
    return {**thinking_aloud(draw), "logit_bias": {str(THINK_END): draw(st.sampled_from([38, 40]))}}


def tool(choice: Any) -> Body:
    return {"tools": [{"type": "function", "function": _TOOL}], "tool_choice": choice, "max_tokens": 48}


_SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}
_NAMED = {"type": "function", "function": {"name": "weather"}}
_FLAT_TOOL = [{"type": "function", **_TOOL}]
_ANTHROPIC_TOOL = [{"name": "weather", "description": "tells it", "input_schema": SCHEMA}]
_GRAMMAR = 'root ::= "yes" | "no" root'

# name → (path, body). Invocations carry their route in CustomAttributes, or say it by their shape.
SHAPES: dict[str, tuple[str, Callable[[Draw], Body]]] = {
    "plain": (COMPLETIONS, completion),
    "token_ids": (COMPLETIONS, lambda d: completion(d, ids(d))),
    "prompt_list": (COMPLETIONS, lambda d: completion(d, several(d, text))),
    "prompt_list_ids": (COMPLETIONS, lambda d: completion(d, several(d, ids))),
    "n": (COMPLETIONS, lambda d: completion(d, **seeded(d))),
    "n_of_a_list": (COMPLETIONS, lambda d: completion(d, several(d, text), **seeded(d))),
    "echo": (COMPLETIONS, lambda d: completion(d, echo=True)),
    "echo_logprobs": (COMPLETIONS, lambda d: completion(d, text(d, 200), echo=True, logprobs=2)),
    "logprobs": (COMPLETIONS, lambda d: completion(d, logprobs=d(st.integers(0, 5)))),
    "prompt_logprobs": (COMPLETIONS, lambda d: completion(d, text(d, 200), prompt_logprobs=1, stream=False)),
    "stop": (
        COMPLETIONS,
        lambda d: completion(d, stop=d(st.lists(st.sampled_from("aeiou t"), min_size=1, max_size=3))),
    ),
    "stop_token_ids": (
        COMPLETIONS,
        lambda d: completion(d, stop_token_ids=ids(d, 60), include_stop_str_in_output=True),
    ),
    "min_tokens": (COMPLETIONS, lambda d: completion(d, stop_token_ids=ids(d, 60), min_tokens=5, max_tokens=12)),
    "max_tokens_absent": (COMPLETIONS, lambda d: completion(d, max_tokens=None)),
    "max_tokens_one": (COMPLETIONS, lambda d: completion(d, max_tokens=1)),
    "max_tokens_zero_echo": (COMPLETIONS, lambda d: completion(d, max_tokens=0, echo=True)),
    "max_tokens_beyond_the_rest": (COMPLETIONS, lambda d: completion(d, ids(d, 30) + [9] * 2010, max_tokens=1900)),
    "include_usage": (COMPLETIONS, lambda d: completion(d, stream=True, stream_options={"include_usage": True})),
    "continuous_usage": (
        COMPLETIONS,
        lambda d: completion(
            d, several(d, text), stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}
        ),
    ),
    "seed": (
        COMPLETIONS,
        lambda d: completion(d, temperature=1.0, top_p=0.9, top_k=40, min_p=0.01, seed=d(st.integers(0, 99))),
    ),
    "penalties": (
        COMPLETIONS,
        lambda d: completion(d, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.5),
    ),
    "logit_bias": (COMPLETIONS, lambda d: completion(d, logit_bias={"65": 5, "70": -50}, bad_words=["e"])),
    "allowed_token_ids": (COMPLETIONS, lambda d: completion(d, allowed_token_ids=ids(d, 50))),
    "return_token_ids": (COMPLETIONS, lambda d: completion(d, return_token_ids=True)),
    "json_schema": (COMPLETIONS, lambda d: completion(d, **structured(d, json=SCHEMA))),
    "regex": (COMPLETIONS, lambda d: completion(d, **structured(d, regex="[0-9]{3}-[a-f]{4}"))),
    "grammar": (COMPLETIONS, lambda d: completion(d, **structured(d, grammar=_GRAMMAR))),
    "choice": (COMPLETIONS, lambda d: completion(d, **structured(d, choice=["left", "right", "straight on"]))),
    "unicode": (COMPLETIONS, lambda d: completion(d, text(d, 150, _WIDE), **structured(d, regex="[é😀漢]{4}"))),
    "ignore_eos": (COMPLETIONS, lambda d: completion(d, ignore_eos=True)),
    "beam_search": (
        COMPLETIONS,
        lambda d: {
            **completion(d, text(d, 200)),
            "use_beam_search": True,
            "n": 2,
            "stream": False,
            "stream_options": None,
        },
    ),
    "truncation": (COMPLETIONS, lambda d: completion(d, truncate_prompt_tokens=64)),
    "chat": (CHAT, chat),
    "chat_n": (CHAT, lambda d: chat(d, **seeded(d))),
    "chat_logprobs": (CHAT, lambda d: chat(d, logprobs=True, top_logprobs=d(st.integers(0, 5)))),
    "chat_unicode": (CHAT, lambda d: chat(d, messages=[{"role": "user", "content": text(d, 150, _WIDE)}])),
    "chat_parts": (
        CHAT,
        lambda d: chat(
            d, messages=[{"role": "user", "content": [{"type": "text", "text": text(d, 200)} for _ in "ab"]}]
        ),
    ),
    "chat_json_schema": (
        CHAT,
        lambda d: chat(d, response_format=_SCHEMA_FORMAT, max_tokens=48, max_completion_tokens=48),
    ),
    "tools_required": (CHAT, lambda d: {**chat(d), **tool("required"), "max_completion_tokens": 48}),
    "tools_named": (CHAT, lambda d: {**chat(d), **tool(_NAMED), "max_completion_tokens": 48}),
    "tools_auto": (CHAT, lambda d: {**chat(d), **tool("auto"), "max_completion_tokens": 12}),
    "reasoning_off": (CHAT, lambda d: chat(d, include_reasoning=True, chat_template_kwargs={"thinking": False})),
    "reasoning": (CHAT, lambda d: chat(d, **thinking_aloud(d))),
    "reasoning_hidden": (CHAT, lambda d: chat(d, include_reasoning=False, **thinking_aloud(d))),
    "reasoning_n": (CHAT, lambda d: chat(d, **seeded(d), **thinking_aloud(d))),
    "reasoning_json_schema": (
        CHAT,
        lambda d: chat(d, **thought(d), response_format=_SCHEMA_FORMAT, max_tokens=64, max_completion_tokens=64),
    ),
    "reasoning_tools": (CHAT, lambda d: {**chat(d), **tool(_NAMED), **thought(d), "max_completion_tokens": 64}),
    "reasoning_responses": (RESPONSES, lambda d: whole(response(d, **thinking(d)))),
    "reasoning_messages": (MESSAGES, lambda d: message(d, chat_template_kwargs={"thinking": True})),
    "reasoning_invocations": (INVOCATIONS, lambda d: chat(d, **thinking_aloud(d))),
    "responses": (RESPONSES, response),
    "responses_instructed": (RESPONSES, lambda d: response(d, instructions=text(d, 200))),
    "responses_logprobs": (
        RESPONSES,
        lambda d: whole(response(d, include=["message.output_text.logprobs"], top_logprobs=2)),
    ),
    "responses_tool": (
        RESPONSES,
        lambda d: response(d, tools=_FLAT_TOOL, tool_choice="required", max_output_tokens=48),
    ),
    "messages": (MESSAGES, message),
    "messages_system": (MESSAGES, lambda d: message(d, system=text(d, 300), stop_sequences=["e", "st"])),
    "messages_tool": (
        MESSAGES,
        lambda d: message(d, tools=_ANTHROPIC_TOOL, tool_choice={"type": "auto"}, max_tokens=48),
    ),
    "invocations": (INVOCATIONS, completion),
    "invocations_chat": (INVOCATIONS, chat),
    "adapter": (COMPLETIONS, lambda d: completion(d, text(d, 500), model=ADAPTER)),
    "adapter_token_ids": (COMPLETIONS, lambda d: completion(d, ids(d, 500), model=ADAPTER)),
    "adapter_list": (COMPLETIONS, lambda d: completion(d, several(d, text), model=ADAPTER)),
    "adapter_n": (COMPLETIONS, lambda d: completion(d, text(d, 500), **seeded(d), model=ADAPTER)),
    "adapter_logprobs": (
        COMPLETIONS,
        lambda d: completion(d, text(d, 200), prompt_logprobs=1, logprobs=2, model=ADAPTER, stream=False),
    ),
    "adapter_chat": (CHAT, lambda d: chat(d, model=ADAPTER)),
    "adapter_reasoning": (CHAT, lambda d: chat(d, **thinking_aloud(d), model=ADAPTER)),
    "adapter_tools": (CHAT, lambda d: {**chat(d, model=ADAPTER), **tool("required"), "max_completion_tokens": 48}),
    "adapter_responses": (RESPONSES, lambda d: response(d, model=ADAPTER)),
    "adapter_messages": (MESSAGES, lambda d: message(d, model=ADAPTER)),
    "adapter_invocations": (INVOCATIONS, lambda d: completion(d, text(d, 500), model=ADAPTER)),
}


class Bodies(list[tuple[str, str, Body]]):
    """Name, path and body of every shape."""

    def __repr__(self) -> str:
        return f"{len(self)} bodies"  # all of them are 50 kB


@st.composite
def one_of_each(draw: Draw) -> Bodies:
    """A body of every shape."""
    return Bodies((name, path, _valid(make(draw))) for name, (path, make) in SHAPES.items())


def _valid(body: Body) -> Body:
    """Without what is not to be said, and without a stream's options where there is no stream."""
    return {
        key: value
        for key, value in body.items()
        if value is not None and (key != "stream_options" or body.get("stream"))
    }
