"""What a fuzzer feeds, and what has to hold: nothing but a refusal is raised, and no other body is built.

A target takes any bytes. It raises where something is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers

from hyperpd.errors import HandoffFailed, RecipeError, Rejected
from hyperpd.recipe import Limits
from hyperpd.sse import Decoder, encode
from hyperpd_runtime.gateway import guard, handoff, keys, sagemaker, usage
from hyperpd_runtime.gateway.apis import APIS, BY_PATH, CHAT, COMPLETIONS, Api, error_body
from hyperpd_runtime.gateway.guard import FORBIDDEN, MOST_PARTS, Admitted, Refused
from hyperpd_runtime.gateway.handoff import PARAMS, Ticket
from hyperpd_runtime.gateway.passed import PASSED
from hyperpd_runtime.gateway.relay import _Watch
from hyperpd_runtime.gateway.shapes import Ask
from hyperpd_runtime.gateway.split import DONE, Joiner, answers_per_prompt, join, split
from tests.fuzz.grammar import Source

MODELS = ("tiny-llama", "law")
LENGTH_TOKENS = 2048
MOST_SAID_BYTES = 4096
LOOSE, TIGHT = Limits(), Limits(prompt_tokens=40, output_tokens=3, choices=2)
SECRET = "sk-secret-0123456789"
_OURS = {
    "remote_engine_id": "prefill-0",
    "remote_request_id": "cmpl-1",
    "remote_block_ids": [[1, 2]],
    "remote_host": "10.0.0.1",
    "remote_port": 5600,
    "tp_size": 1,
    "do_remote_prefill": True,
}
TICKET = handoff.ticket({PARAMS: _OURS}, 0.0, "http://10.0.0.1:8100")
_PREFILL = {PARAMS: handoff._ASK}


def body(data: bytes) -> None:
    """What a client sends as a body, to every path."""
    try:
        found = guard.read(data)
    except Refused as refused:
        told(refused, None)
        return
    for api in APIS:
        enter(found, api)
    for fields in PASSED.values():
        try:
            guard.check(dict(found), fields, MODELS)
        except Refused as refused:
            told(refused, None)
        else:
            assert found.keys() <= fields


def shape(data: bytes) -> None:
    """The same, of bytes that mean fields and values, whatever they are."""
    source = Source(data)
    api = source.pick(APIS)
    adapter = source.pick(("", "", "law", "nobody's"))
    limits = source.pick((LOOSE, TIGHT))
    try:
        found = guard.read(json.dumps(source.body(api)).encode())
    except Refused as refused:  # half a surrogate pair, nested too deep
        told(refused, None)
        return
    enter(found, api, adapter, limits)


def enter(found: Mapping[str, Any], api: Api, adapter: str = "", limits: Limits = LOOSE) -> None:
    """Admit a body, and look at all that would be sent because of it."""
    try:
        admitted = guard.admit(dict(found), api, MODELS, adapter, LENGTH_TOKENS, limits)
    except Refused as refused:
        told(refused, api)
        return
    assert not found.keys() & FORBIDDEN.keys(), "a field that chooses hosts, blocks or keys came in"
    ours = {key: admitted.body[key] for key in ("model", *api.limits) if key in admitted.body}
    assert {**found, **ours} == admitted.body, "the gateway says no more than a model and a limit"
    asked = Ask(admitted.body, api)
    assert asked.prompts() * (found.get("n") or 1) <= limits.choices
    if limits.output_tokens:
        assert any(admitted.body.get(limit) is not None for limit in api.limits)
        assert all((admitted.body.get(limit) or 0) <= limits.output_tokens for limit in api.limits)
    if admitted.shape.how == "split":
        parts = _parts(admitted)
    else:
        parts = [admitted]
        several = Ask(found, api)
        assert admitted.shape.how == "decode_only" or several.prompts() * several.answers() == 1
    for part in parts:
        _sent(part.body, api)


def _parts(admitted: Admitted) -> list[Admitted]:
    parts = split(admitted)
    ask = Ask(admitted.body, admitted.api)
    assert 1 < len(parts) == ask.prompts() * ask.answers() <= MOST_PARTS
    for number, part in enumerate(parts):
        assert part.shape.how in ("disaggregated", "decode_only")
        assert Ask(part.body, part.api).prompts() == Ask(part.body, part.api).answers() == 1
        of_prompt, answer = divmod(number, answers_per_prompt(admitted))
        if ask.prompts() > 1:
            assert part.body["prompt"] == admitted.body["prompt"][of_prompt]
        if answer and admitted.body.get("seed") is not None:
            assert part.body["seed"] == admitted.body["seed"] + answer
    return parts


def _sent(body: dict[str, Any], api: Api) -> None:
    """Both legs' bodies, as they go out."""
    assert body["model"] in MODELS
    assert body.keys() <= api.fields
    prefill = json.loads(json.dumps(handoff.prefill_body(body, api), allow_nan=False))
    assert prefill.keys() <= api.fields | {PARAMS, "return_token_ids"}
    assert prefill[PARAMS] == handoff._ASK
    assert [prefill.get(limit) for limit in api.limits] == [None] * (len(api.limits) - 1) + [1]
    assert prefill["stream"] is False
    assert prefill.get("n", 1) == 1
    assert not prefill.keys() & {"stream_options", "min_tokens", "best_of", "seed"}
    for ticket, salt in ((None, ""), (TICKET, ""), (TICKET, "salt")):
        decode = json.loads(json.dumps(handoff.decode_body(body, ticket, salt), allow_nan=False))
        assert decode.keys() == body.keys() | ({PARAMS} if ticket else set()) | ({"cache_salt"} if salt else set())
        assert decode.get(PARAMS) == (TICKET.params if ticket else None)
        assert decode.get("cache_salt", "") == salt
    release = handoff.release_body(TICKET)
    assert release["model"] not in MODELS


def told(error: Rejected, api: Api | None) -> None:
    """A refusal that can be said."""
    assert 400 <= error.status < 500
    said = json.dumps(error_body(api, error), ensure_ascii=False).encode()
    assert len(said) < MOST_SAID_BYTES, "an answer grows with what was asked"
    if isinstance(error, Refused):
        assert error.why in _WHYS, error.why


_WHYS = {*FORBIDDEN, "invalid_field", "invalid_json", "empty_body", "model_not_found"} | {
    *("array_above_max_length", "integer_above_max_value", "invalid_value", "context_length_exceeded"),
    *(line.why for line in guard.TABLE if line.how == "refused"),
}


def ticket(data: bytes) -> None:
    """What a prefill worker answers: our ticket with fields of it changed, left out, put in."""
    source = Source(data)
    params: Any = dict(TICKET.params)
    while source.more and source.byte() % 4:
        params[source.pick((*_OURS, "remote_num_tokens", "do_remote_decode"))] = source.value()
    counts = {name: source.value() for name in _COUNTS if source.byte() % 2}
    answer = {PARAMS: source.pick((params, params, params, source.value())), "usage": source.pick((counts, counts, 1))}
    answer |= {"prompt_token_ids": source.value()} if source.byte() % 2 else {}
    try:
        held: Ticket = handoff.ticket(answer, 0.0, "http://10.0.0.1:8100")
    except HandoffFailed:
        return
    assert held.params["do_remote_prefill"]
    assert all(held.params.get(name) is not None for name in handoff._IDENTITY)
    assert "prompt_token_ids" not in handoff.release_body(held)[PARAMS]
    decode = json.dumps(handoff.decode_body({"model": "law"}, held, ""))
    assert json.loads(decode).keys() == {"model", PARAMS}
    usage.correct(json.dumps(answer).encode(), held.usage)


_COUNTS = ("prompt_tokens", "input_tokens", "prompt_tokens_details", "cache_read_input_tokens", "completion_tokens")


def decoder(data: bytes) -> None:
    """A stream of events reads the same wherever it is cut, and an event comes out as it went in."""
    source = Source(data[:64])
    stream = data[64:]
    whole, cut = Decoder(), Decoder()
    assert whole.feed(stream) == [event for piece in source.cut(stream) for event in cut.feed(piece)]
    said = stream.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    assert Decoder().feed(encode(said)) == [said]


def watch(data: bytes) -> None:
    """How a stream ended is seen wherever it is cut."""
    source = Source(data[:64])
    api, stream = source.pick(APIS), data[64:]
    markers = {0xF0: api.ends, 0xF1: api.error, 0xF2: b"\n\n"}
    stream = b"".join(markers.get(byte, bytes([byte])) for byte in stream)
    whole, cut = _Watch(api), _Watch(api)
    whole.see(stream)
    for piece in source.cut(stream):
        cut.see(piece)
    assert (whole.error, whole.ended) == (cut.error, cut.ended)
    assert whole.ended == (api.ends in stream and stream.endswith(b"\n\n"))


_TOLD = {"prompt_tokens_details": {"cached_tokens": 7}}


def events(data: bytes) -> None:
    """Events of a stream, in which prefill's counts replace decode's: nothing else is touched."""
    corrected = usage.correct_events(data, _TOLD)
    before, after = data.split(b"\n\n"), corrected.split(b"\n\n")
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert old == new or (b'"usage":' in old.decode().encode() and b'"cached_tokens":7' in new)  # what is text
    assert usage.correct_events(corrected, _TOLD) == corrected


def joined(data: bytes) -> None:
    """Several streams as one, in any order and cut anywhere: every part's text is there, once, under its number."""
    source = Source(data)
    parts = 2 + source.byte() % 3
    texts = [[source.pick(("a", "é😀", "\n", "\u2028", '"', "data: x", "")) for _ in range(source.byte() % 5)]
             for _ in range(parts)]  # fmt: skip
    streams = [source.cut(_stream(number, words)) for number, words in enumerate(texts)]
    joiner, out = Joiner(parts, 1), b""
    while any(streams):
        number = source.byte() % parts
        number = next(n % parts for n in range(number, number + parts) if streams[n % parts])
        out += joiner.feed(number, streams[number].pop(0))
    assert out.endswith(DONE)
    *said, done = Decoder().feed(out)
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in said]
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [[c["text"] for c in choices if c["index"] == number] for number in range(parts)] == texts
    assert chunks[-1]["usage"]["completion_tokens"] == sum(map(len, texts))


def _stream(number: int, words: list[str]) -> bytes:
    frame = {"id": f"cmpl-{number}", "created": number}
    said = [{**frame, "choices": [{"index": 0, "text": word}]} for word in words]
    counts = {"prompt_tokens": 3, "completion_tokens": len(words), "total_tokens": 3 + len(words)}
    return b"".join(map(encode, map(json.dumps, [*said, {**frame, "choices": [], "usage": counts}]))) + DONE


def whole(data: bytes) -> None:
    """Whole answers joined: choices numbered through, tokens added up."""
    source = Source(data)
    parts = 2 + source.byte() % 6
    answers: list[dict[str, Any]] = []
    for _ in range(parts):
        prompt, completion = source.byte(), source.byte()
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        details = source.pick((None, {"cached_tokens": source.byte()}, {"cached_tokens": None}))
        more = {"prompt_tokens_details": details} if source.byte() % 2 else {}
        answers.append({"id": "1", "choices": [{"index": 0, "text": source.value()}], "usage": {**counts, **more}})
    result = join(answers, 1)
    assert [choice["index"] for choice in result["choices"]] == [*range(parts)]
    total = result["usage"]
    assert total["prompt_tokens"] == sum(answer["usage"]["prompt_tokens"] for answer in answers)
    assert total["total_tokens"] == total["prompt_tokens"] + total["completion_tokens"]


def key_file(data: bytes) -> None:
    """A key file: its keys, or problems that quote nothing of it, names of fields that are not known included."""
    if data[:1] == b"\x00":
        data = json.dumps(_entries(Source(data[1:]))).encode()
    try:
        found = keys.parse(data.replace(b"SECRET", SECRET.encode()), "keys.json")
    except RecipeError as error:
        problems = error.problems
    else:
        problems = ()
        assert len({key.digest for key in found}) == len({key.name for key in found}) == len(found) > 0
        assert all(key.name.isascii() and len(key.name) <= 64 and len(key.digest) == 32 for key in found)
    assert SECRET not in "".join(problems)


def _entries(source: Source) -> list[Any]:
    entries: list[Any] = []
    while source.more and len(entries) < 4:
        entry: Any = {
            "name": source.pick(("a", "b", "SECRET", "a b", "x" * 65)),
            "sha256": source.pick(("0" * 64, "a" * 64, "A" * 64, "SECRET", "0" * 63)),
            "scope": source.pick(("user", "operator", "SECRET")),
            "concurrent_requests": source.pick((None, 1, 8, 0, "SECRET")),
        }
        if source.byte() > 192:
            entry[source.pick((*entry, "rate", "SECRET"))] = source.value()
        entries.append(entry)
    return entries


def headers(data: bytes) -> None:
    """Headers that choose: the API of an invocation, an adapter, a key."""
    attributes, _, rest = data.decode("latin-1").partition("\n")
    identifier, _, authorization = rest.partition("\n")
    given = {
        "x-amzn-sagemaker-custom-attributes": attributes,
        "x-amzn-sagemaker-adapter-identifier": identifier,
        "authorization": authorization,
    }
    try:
        route = sagemaker.route(given)
    except Rejected as error:
        told(error, None)
    else:
        assert route is None or route in BY_PATH.values()
    adapter = sagemaker.adapter(given)
    enter({"prompt": "x"}, COMPLETIONS, adapter)
    assert all(len(digest) == 32 for digest in keys._given(Headers(given)))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (body, shape, ticket, decoder, watch, events, joined, whole, key_file, headers)
}

_MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
_ENTRY = {"name": "team-a", "sha256": "0" * 64, "scope": "user", "concurrent_requests": 8}
_EVENT = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}}\n\n'
SEEDS: dict[str, list[bytes]] = {
    "body": [
        json.dumps(seed).encode()
        for seed in (
            {"prompt": ["x", [1]], "n": 2, "seed": 7, "stream": True, "stream_options": {"include_usage": True}},
            {"messages": _MESSAGES, "max_completion_tokens": 9, "tools": [{"type": "function"}], "model": "law"},
            {"input": "x", "instructions": "y", "store": False, "truncation": "auto", "max_output_tokens": 2},
            {"messages": _MESSAGES, "system": "x", "max_tokens": 2, "thinking": {"type": "enabled"}},
            {"prompt": "x", PARAMS: {"do_remote_prefill": True}, "best_of": 2, "temperature": 0, "echo": True},
            {"tokens": [1, 2]},
            {"query": "x", "documents": ["y"]},
        )
    ],
    "ticket": [json.dumps({PARAMS: _OURS, "prompt_token_ids": [1], "usage": {"input_tokens": 1}}).encode()],
    "events": [
        _EVENT,
        _EVENT.replace(b'"1"', b'"\xff"') + _EVENT,
        b'event: message_delta\ndata: {"usage":{"input_tokens":3,"cache_read_input_tokens":1}}\n\n',
    ],
    "decoder": [b"\x03" * 64 + _EVENT + b"data: [DONE]\r\n\r\n"],
    "watch": [b"\x03" * 64 + b"data: {}\xf2\xf0\xf2", b"\x01" * 64 + b"\xf1}\xf2\xf0\xf2"],
    "key_file": [
        b"\x00" + bytes(64),
        json.dumps([_ENTRY, {**_ENTRY, "name": "SECRET"}, {**_ENTRY, "SECRET": 1}]).encode(),
    ],
    "headers": [b"route=/v1/chat/completions,x=1\nlaw\nBearer key"],
}
WORDS = sorted({name for api in APIS for name in api.fields} | FORBIDDEN.keys() | {*CHAT.limits, "SECRET", '"usage":'})
