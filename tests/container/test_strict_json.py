"""Strict JSON against Python's own: what it takes is the same, and what it refuses is a NotJson."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpd_runtime.gateway.strict_json import NotJson, loads

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_PIECES = st.sampled_from([b'"', b"\\", b"u", b"d8", b"00", b"dc", b"{", b"}", b"[", b"]", b":", b",", b"1e9", b"\xed"])


@given(_VALUES, st.booleans())
def test_what_is_json_is_read_as_it_was_written(value: Any, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode(), 64) == value


@given(st.lists(_PIECES | st.binary(max_size=3), max_size=12).map(b"".join))
def test_whatever_comes_is_read_as_python_would_or_refused(raw: bytes) -> None:
    said = ""
    try:
        value = loads(raw, 4)
    except NotJson as refused:
        said = str(refused)
    if said:
        assert ";" in said  # what to try
    else:
        assert value == json.loads(raw)


@pytest.mark.parametrize("depth", [1, 2, 8])
@pytest.mark.parametrize(("opens", "inner", "closes"), [("[", "1", "]"), ('{"a":', "1", "}"), ("[", '"[["', "]")])
def test_so_deep_and_no_deeper(depth: int, opens: str, inner: str, closes: str) -> None:
    def nested(levels: int) -> bytes:
        return (levels * opens + inner + levels * closes).encode()

    assert loads(nested(depth), depth) == json.loads(nested(depth))
    with pytest.raises(NotJson, match=f"nested deeper than {depth} "):
        loads(nested(depth + 1), depth)
