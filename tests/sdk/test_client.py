"""The client: text out of streams, and every bad answer as an error that says what came."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from hyperpd import errors
from hyperpd.client import Client, Gateway, Retries


def client(answer: httpx.Response) -> Client:
    way = Gateway("http://gateway", transport=httpx.MockTransport(lambda _: answer))
    return Client(way, model="m", retries=Retries(attempts=1))


def test_stream_gives_the_text() -> None:
    content = b'data: {"choices": [{"text": "a"}]}\n\ndata: {"choices": [{"text": "b"}]}\n\ndata: [DONE]\n\n'
    with client(httpx.Response(200, content=content)) as c:
        assert list(c.stream("x")) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'data: {"choices": [{"text": "a"}]}\n\n', "stream_cut"),
        (b'data: {"error": {"message": "no"}}\n\n', "decode_failed"),
        (b'data: {"error": "no"}\n\n', "decode_failed"),
        (b"data: no JSON\n\n", "not_openai"),
        (b"data: no JSON\n\ndata: [DONE]\n\n", "not_openai"),
        (b"data: [1]\n\n", "not_openai"),
        (b"data: \xff\n\n", "not_openai"),
    ],
)
def test_a_broken_stream_is_an_error(content: bytes, code: str) -> None:
    with client(httpx.Response(200, content=content)) as c, pytest.raises(errors.RequestError) as caught:
        list(c.stream("x"))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_field", errors.Rejected),
        (429, "overloaded", errors.Overloaded),
        (502, "prefill_failed", errors.PrefillFailed),
        (502, "handoff_failed", errors.HandoffFailed),
        (502, "anything", errors.DecodeFailed),
        (503, "no_worker_available", errors.NoWorkerAvailable),
        (500, "x", errors.RequestError),
    ],
)
def test_a_status_becomes_the_error_that_says_the_same(status: int, code: str, kind: type[Any]) -> None:
    body = {"error": {"message": "why", "code": code}}
    answer = httpx.Response(status, json=body, headers={"retry-after": "7", "x-request-id": "r1"})
    with client(answer) as c, pytest.raises(errors.RequestError, match="why") as caught:
        c.complete("x")
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.request_id, caught.value.retry_after_s) == (status, "r1", 7)


def test_nobody_there() -> None:
    with (
        Client("http://127.0.0.1:9", retries=Retries(attempts=1)) as c,
        pytest.raises(errors.RequestError, match="hyperpd status"),
    ):
        c.complete("x")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"\xff\xfe", b""])
def test_an_answer_that_is_not_openai(content: bytes) -> None:
    with client(httpx.Response(200, content=content)) as c:
        for ask in (c.models, lambda: c.complete("x"), lambda: c.chat([])):
            with pytest.raises(errors.RequestError, match="does not speak"):
                ask()


@pytest.mark.parametrize("content", [b'{"error": "text"}', b'{"error": {"message": "text"}}', b"text"])
def test_an_error_in_any_dress(content: bytes) -> None:
    with client(httpx.Response(400, content=content)) as c, pytest.raises(errors.Rejected, match=r"^text$"):
        c.complete("x")


def test_no_model_is_served() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"data": []}))
    with (
        Client(Gateway("http://gateway", transport=transport)) as c,
        pytest.raises(errors.RequestError, match="give the model's name"),
    ):
        c.complete("x")


@pytest.mark.parametrize("key", ["", "secret\n", "sécret", "sec ret"])
def test_a_key_that_no_header_carries(key: str) -> None:
    with pytest.raises(errors.RecipeError, match="not one API key") as caught:
        Client("http://gateway", api_key=key)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(("ask", "use"), [("complete", "stream"), ("chat", "stream_chat")])
def test_a_whole_answer_is_no_stream(ask: str, use: str) -> None:
    with client(httpx.Response(200, json={})) as c, pytest.raises(errors.Rejected, match=rf"try: {use}\(…\)$"):
        getattr(c, ask)("x", stream=True)


def test_a_stream_where_n_is_left_open() -> None:
    content = b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'
    with client(httpx.Response(200, content=content)) as c:
        assert list(c.stream("x", n=None)) == ["a"]
