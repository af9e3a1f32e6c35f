"""Server-sent events: wherever the bytes are cut, the same events come out."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperpd.sse import Decoder, encode

STREAM = (
    ': keep-alive\n\ndata: {"text": "grüße 🙂"}\n\nevent: token\r\ndata: one\r\ndata: two\r\n\r\n'
    "id: 7\rdata:bare\r\rdata:  two spaces\n\n: only a comment\n\ndata: [DONE]\n\n"
).encode()
EVENTS = ['{"text": "grüße 🙂"}', "one\ntwo", "bare", " two spaces", "[DONE]"]


def decode(pieces: list[bytes]) -> list[str]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def test_whole() -> None:
    assert decode([STREAM]) == EVENTS


def test_byte_by_byte() -> None:
    assert decode([STREAM[index : index + 1] for index in range(len(STREAM))]) == EVENTS


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_yields_the_same_events(cuts: list[int]) -> None:
    assert decode(split(STREAM, cuts)) == EVENTS


@settings(suppress_health_check=[HealthCheck.too_slow])  # a table of all characters, on a busy machine
@given(
    st.lists(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])), max_size=5),
    st.sampled_from([b"\n", b"\r\n"]),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_what_is_encoded_comes_back(events: list[str], newline: bytes, cuts: list[int]) -> None:
    data = b"".join(map(encode, events)).replace(b"\n", newline)
    assert decode(split(data, cuts)) == events


def test_an_unfinished_event_is_held_back() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == ["a"]


def test_a_character_that_is_cut_breaks_its_event_alone() -> None:
    cut = "ü".encode()[:1]
    assert decode([b"data: a" + cut, b"\n\n", b"data: b\n\n"]) == ["a\ufffd", "b"]


@pytest.mark.parametrize(("data", "encoded"), [("a", b"data: a\n\n"), ("a\nb", b"data: a\ndata: b\n\n")])
def test_encode(data: str, encoded: bytes) -> None:
    assert encode(data) == encoded
