"""What a client is told of its prompt's tokens, and markers in streams that are cut anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpd.errors import DecodeFailed
from hyperpd_runtime.gateway import usage
from hyperpd_runtime.gateway.apis import APIS, Api
from hyperpd_runtime.gateway.relay import _Watch
from hyperpd_runtime.gateway.usage import correct, correct_events, of_prompt
from tests.container.stack import running, tiny
from tests.fakes import engine_wire as wire

CHAT = {
    "prompt_tokens": 9,
    "completion_tokens": 1,
    "prompt_tokens_details": {"cached_tokens": 4, "created": 2, "x": None},
}


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (None, {}),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, {}),
        (CHAT, {"prompt_tokens_details": {"cached_tokens": 4, "created": 2}}),
        ({"input_tokens": 5, "output_tokens": 1}, {}),
        (
            {"input_tokens": 5, "output_tokens": 1, "cache_creation_input_tokens": 4},
            {"input_tokens": 5, "cache_creation_input_tokens": 4},
        ),
    ],
)
def test_what_prefill_tells(usage: Any, told: dict[str, Any]) -> None:
    assert of_prompt({"usage": usage}) == told


def test_what_has_no_usage_yet_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the key stands in what a client wrote."""
    tried = []

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            tried.append(idx)
            return super().raw_decode(s, idx)

    monkeypatch.setattr(usage, "_decoder", Counting())
    said = b"[" + b'{"usage": null}, ' * 1000 + b"0]"
    assert correct(said, of_prompt({"usage": CHAT})) == said
    assert len(tried) == 1


def test_only_the_prompts_side_is_put_right() -> None:
    told = of_prompt({"usage": CHAT})
    document = {
        "choices": [{"text": 'a "usage": {"prompt_tokens_details": {}} é'}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 0, "x": None}},
        "metadata": {"usage": "client's", "deep": {"usage": {"a": 1}}},
    }
    right = json.loads(correct(json.dumps(document, ensure_ascii=False).encode(), told))
    assert right["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4, "created": 2, "x": None},
    }
    assert {**right, "usage": 0} == {**document, "usage": 0}
    assert correct(b"no document", told) == b"no document"
    assert correct(b'{"usage": cut', told) == b'{"usage": cut'


def test_every_event_of_a_stream_is_put_right() -> None:
    told = {"input_tokens": 5, "cache_creation_input_tokens": 4}
    events = (
        b'data: {"usage":{"input_tokens":9}}\n\ndata: {"usage":{"input_tokens":9,"cache_creation_input_tokens":0}}\n\n'
    )
    first, second, end = correct_events(events, told).split(b"\n\n")
    assert (first, end) == (b'data: {"usage":{"input_tokens":9}}', b"")  # it says nothing of a cache
    assert json.loads(second[6:])["usage"] == told


@pytest.mark.parametrize("path", list(wire.APIS))
@pytest.mark.parametrize("stream", [False, True])
async def test_cached_tokens_are_those_of_prefill(path: str, stream: bool) -> None:
    """The prompt was at prefill before, and never at decode."""
    prompt = {"messages": [{"role": "user", "content": "again"}]} if "prompt" not in path else {}
    body = {"/v1/completions": {"prompt": "again"}, "/v1/responses": {"input": "again"}}.get(path, prompt)
    limits = {"max_tokens": 4} if path == "/v1/messages" else {}
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    if path in ("/v1/responses", "/v1/messages"):
        options.pop("stream_options", None)
    async with running(tiny()) as stack:
        stack.prefill.prefilled.add("again")
        answer = await stack.http.post(path, json={**body, **limits, **options})
        assert answer.status_code == 200
        assert any(f'{key}": {len("again")}' in answer.text or f'{key}":{len("again")}' in answer.text for key in KEYS)


KEYS = ("cached_tokens", "cache_read_input_tokens")


@given(st.data(), st.sampled_from(APIS), st.sampled_from(["", "error", "cut"]))
def test_a_streams_end_and_errors_are_seen_however_it_is_cut(data: Any, api: Api, fault: str) -> None:
    spoken = wire.APIS[api.path]
    # What a client's text says is no marker: its line breaks and quotes are escaped.
    text = 'x \ndata: [DONE] \nevent: message_stop\n \nevent: response.completed\n data: {"error" \nevent: error\n'
    events = [*spoken.preamble(), *spoken.events([text], wire.Usage(3, 2), {})]
    if fault == "error":
        failed = [each for each in spoken.failed() if b"error" in each] or [api.error_event(DecodeFailed("x"))]
        events = [*events[:-1], failed[0]]
    stream = b"".join(events)
    if fault == "cut":
        stream = stream[: data.draw(st.integers(0, len(stream) - 1))]
    watch = _Watch(api)
    while stream:
        size = data.draw(st.integers(min(5, len(stream)), len(stream)))
        watch.see(stream[:size])
        stream = stream[size:]
    assert (watch.ended, watch.error) == (fault == "", fault == "error")


@pytest.mark.parametrize("said", [b'{"usage":{"a":"\xff"}}', b'{"usage":' + b"[" * 100_000], ids=["no text", "nested"])
def test_what_cannot_be_read_stays_as_it_is(said: bytes) -> None:
    assert correct(said, {"prompt_tokens_details": {}}) == said
    assert usage.tokens(said) == {}
