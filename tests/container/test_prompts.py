"""What a prompt looks like to routing: a turn's blocks are the next turn's first, and nobody else's."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpd.errors import DecodeFailed
from hyperpd.routing.blocks import chain
from hyperpd.routing.request import Request
from hyperpd_runtime.gateway import prompts
from hyperpd_runtime.gateway.apis import APIS, CHAT, COMPLETIONS, MESSAGES, RESPONSES, Api
from hyperpd_runtime.gateway.guard import PLAIN, Admitted
from hyperpd_runtime.gateway.prompts import Approximate, Exact
from hyperpd_runtime.gateway.relay import Answer
from tests.container.stack import counted

BLOCK = 2  # tokens: 8 bytes, so that a few words are many blocks
APPROXIMATE = Approximate(BLOCK)

texts = st.text(min_size=1, max_size=40)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(("role", "content", "type", "text", "output", "image_url", "id")) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def of_call(api: Api, call: str, arguments: str, output: str) -> list[dict[str, Any]]:
    """A tool's call and its answer."""
    if api is RESPONSES:
        said = {"type": "function_call", "call_id": call, "name": "look", "arguments": arguments}
        return [said, {"type": "function_call_output", "call_id": call, "output": output}]
    if api is MESSAGES:
        use = {"type": "tool_use", "id": call, "name": "look", "input": {"at": arguments}}
        result = {"type": "tool_result", "tool_use_id": call, "content": [{"type": "text", "text": output}]}
        return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    calls = [{"id": call, "type": "function", "function": {"name": "look", "arguments": arguments}}]
    return [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": call, "content": output},
    ]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Api, list[dict[str, Any]]]:
    """An API, and its bodies turn by turn, as clients send them: each with all that was said before."""
    api = draw(st.sampled_from((CHAT, MESSAGES, RESPONSES)))
    body: dict[str, Any] = {}
    if draw(st.booleans()):
        body["tools"] = [{"type": "function", "function": {"name": "look", "description": draw(texts)}}]
    aside = {CHAT: None, MESSAGES: "system", RESPONSES: "instructions"}[api]
    messages: list[dict[str, Any]] = []
    if aside:
        body[aside] = draw(texts)
    else:
        messages.append({"role": "system", "content": draw(texts)})
    turns = []
    for turn in range(draw(st.integers(2, 4))):
        messages.append({"role": "user", "content": draw(texts)})
        turns.append(body | {api.prompt: copy.deepcopy(messages)})
        if draw(st.booleans()):
            messages += of_call(api, f"call-{turn}", draw(texts), draw(texts))
            turns.append(body | {api.prompt: copy.deepcopy(messages)})
        messages.append({"role": "assistant", "content": draw(texts)})
    return api, turns


async def seen(body: dict[str, Any], api: Api = CHAT, **more: str) -> Request:
    return await APPROXIMATE.request(Admitted(body, api, PLAIN), **more)


def shared(one: Request, other: Request) -> int:
    """Blocks that two prompts begin with, both."""
    same = [a == b for a, b in zip(one.blocks, other.blocks, strict=False)]
    return same.index(False) if False in same else len(same)


@given(conversations())
async def test_a_turn_begins_with_all_of_the_one_before(conversation: tuple[Api, list[dict[str, Any]]]) -> None:
    api, turns = conversation
    requests = [await seen(body, api) for body in turns]
    for before, after in itertools.pairwise(requests):
        assert len(before.blocks) >= before.tokens // BLOCK - 1
        assert shared(before, after) == len(before.blocks)
        assert after.tokens > before.tokens


@given(conversations(), texts)
async def test_another_beginning_shares_nothing_after_it(
    conversation: tuple[Api, list[dict[str, Any]]], other: str
) -> None:
    api, turns = conversation
    changed = copy.deepcopy(turns[-1])
    changed["tools"] = [{"name": f"other {other}"}]
    assert shared(await seen(turns[-1], api), await seen(changed, api)) < 4


@given(st.sampled_from(APIS), st.dictionaries(st.sampled_from(("tools", "system", "instructions")), anything), anything)
async def test_no_body_is_too_odd(api: Api, body: dict[str, Any], prompt: Any) -> None:
    """Wrong types are the engine's to refuse."""
    request = await seen(body | {api.prompt: prompt}, api)
    assert request.tokens >= 1
    assert len(request.blocks) * BLOCK <= request.tokens


async def test_what_engines_do_not_see_changes_nothing() -> None:
    """Clients move their cache marks with each turn, and write a message as a text or a list of it."""
    plain: dict[str, Any] = {
        "system": "Be brief, and kind to all.",
        "messages": [{"role": "user", "content": "Who are you today?"}],
    }
    marked = copy.deepcopy(plain)
    mark = {"cache_control": {"type": "ephemeral"}}
    billing = {"type": "text", "text": "x-anthropic-billing-header: cch=1234;"}
    marked["system"] = [billing, {"type": "text", "text": plain["system"], **mark}]
    marked["messages"] = [{"role": "user", "content": [{"type": "text", "text": "Who are you today?", **mark}]}]
    plain["tools"] = [{"name": "look", "input_schema": {}}]
    marked["tools"] = [plain["tools"][0] | mark]
    assert await seen(plain, MESSAGES) == await seen(marked, MESSAGES)
    one = await seen({"input": "Who are you today?"}, RESPONSES)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Who are you today?"}]}
    assert one == await seen({"input": [item]}, RESPONSES)


async def test_who_said_it_is_part_of_a_prompt() -> None:
    content = "the same long text"
    user, assistant = [await seen({"messages": [{"role": role, "content": content}]}) for role in ("user", "assistant")]
    assert shared(user, assistant) == 0


@pytest.mark.parametrize("prompt", ["to be or not to be", list(range(20))], ids=["text", "ids"])
async def test_salts_and_adapters_have_blocks_of_their_own(prompt: Any) -> None:
    body = {"prompt": prompt}
    kinds = [
        await seen(body, COMPLETIONS),
        await seen(body, COMPLETIONS, adapter="law"),
        await seen(body, COMPLETIONS, adapter="tax"),
        await seen(body | {"cache_salt": "law"}, COMPLETIONS),
        await seen(body | {"cache_salt": "tax"}, COMPLETIONS),
        await seen(body | {"cache_salt": "tax"}, COMPLETIONS, adapter="law"),
    ]
    assert len({block for kind in kinds for block in kind.blocks}) == len(kinds) * len(kinds[0].blocks) > 0
    assert {kind.tokens for kind in kinds} == {kinds[0].tokens}
    assert kinds[5] == await seen(body | {"cache_salt": "tax"}, COMPLETIONS, adapter="law")


async def test_token_ids_are_taken_as_they_are() -> None:
    ids = list(range(100, 121))
    request = await seen({"prompt": ids}, COMPLETIONS, session="a/s")
    assert (request.tokens, list(request.blocks), request.session) == (21, list(chain(ids, BLOCK)), "a/s")


async def test_what_is_no_token_id_is_no_block() -> None:
    assert await seen({"prompt": [[["a"], ["b"], ["c"]]]}, COMPLETIONS) == Request(3)


async def test_of_several_prompts_all_count_and_the_first_stands_for_them() -> None:
    for first, second in (("what is first", "what is second"), ([1, 2, 3, 4, 5], [6, 7, 8])):
        alone, other = [await seen({"prompt": one}, COMPLETIONS) for one in (first, second)]
        both = await seen({"prompt": [first, second]}, COMPLETIONS)
        assert (both.tokens, both.blocks) == (alone.tokens + other.tokens, alone.blocks)


async def test_four_bytes_are_a_token() -> None:
    for text, tokens in (("", 1), ("abcd", 1), ("abcde", 2), ("日本", 2)):
        assert (await seen({"prompt": text}, COMPLETIONS)).tokens == tokens


async def test_media_are_told_apart_and_do_not_count() -> None:
    def picture(url: str) -> dict[str, Any]:
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this, please?"}]
        return {"messages": [{"role": "user", "content": parts}]}

    same = [await seen(picture(f"data:image/png;base64,{'A' * 100_000}{end}")) for end in "xxy"]
    assert same[0] == same[1]
    assert shared(same[0], same[2]) < 3 < len(same[0].blocks)
    assert same[0].tokens < 30


class Engine:
    """Renders a prompt to one id for each letter of its JSON; `fails`: what it does instead."""

    def __init__(self, fails: Exception | Answer | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fails = fails

    async def ask(self, path: str, body: dict[str, Any]) -> Answer:
        self.asked.append((path, body))
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails:
            return self.fails
        api = next(api for api in APIS if path == f"{api.path}/render")
        prompt = body[api.prompt]
        several = prompt if api is COMPLETIONS and isinstance(prompt, list) else [prompt]
        told = [{"token_ids": self.ids(one), "sampling_params": {}} for one in several]
        return Answer(200, "application/json", json.dumps(told if api is COMPLETIONS else told[0]).encode())

    @staticmethod
    def ids(prompt: Any) -> list[int]:
        return [ord(letter) for letter in json.dumps(prompt)]


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
async def test_an_engine_renders_what_is_exact(api: Api) -> None:
    engine = Engine()
    body = {api.prompt: "hello" if api in (COMPLETIONS, RESPONSES) else [{"role": "user", "content": "hello"}]}
    request = await Exact(BLOCK, engine.ask).request(Admitted(body, api, PLAIN), adapter="law", session="a/s")
    ids = engine.ids(body[api.prompt])
    assert request == Request(len(ids), chain(ids, BLOCK, prompts.salt("law", "")), "a/s")
    assert engine.asked == [(f"{api.path}/render", body)]


async def test_several_prompts_are_rendered_at_once() -> None:
    engine = Engine()
    body = {"prompt": ["hello", "you"], "cache_salt": "of-a"}
    request = await Exact(BLOCK, engine.ask).request(Admitted(body, COMPLETIONS, PLAIN))
    first, second = engine.ids("hello"), engine.ids("you")
    assert request == Request(len(first) + len(second), chain(first, BLOCK, prompts.salt("", "of-a")))


async def test_nobody_is_asked_about_token_ids() -> None:
    engine = Engine(AssertionError())
    body = {"prompt": [1, 2, 3, 4]}
    request = await Exact(BLOCK, engine.ask).request(Admitted(body, COMPLETIONS, PLAIN))
    assert request == Request(4, chain([1, 2, 3, 4], BLOCK))


PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("fails", "content", "why"),
    [
        (DecodeFailed("decode-0 cannot be reached"), "hello", "no_answer"),
        (TimeoutError(), "hello", "late"),
        (Answer(403, "application/json", b'{"error": {}}'), "hello", "refused"),
        *(
            (Answer(200, "text/html", said), "hello", "refused")
            for said in (b"<html>", b"[]", b'{"token_ids": [[], []]}')
        ),
        (None, [PICTURE], "media"),
    ],
)
async def test_where_no_engine_says_it_nothing_is_held_to_be_cached(
    fails: Exception | Answer | None, content: Any, why: str
) -> None:
    before = counted("hyperpd_unknown_prompts_total", why=why)
    body = {"messages": [{"role": "user", "content": content}]}
    request = await Exact(BLOCK, Engine(fails).ask).request(Admitted(body, CHAT, PLAIN), session="a/s")
    assert request == Request((await seen(body)).tokens, (), "a/s")
    assert counted("hyperpd_unknown_prompts_total", why=why) == before + 1
