"""Pairing: every rule by name, and what must never make two workers unpairable."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from hyperpd.errors import RecipeError
from hyperpd.pairing import Fingerprint, Identity, compatible, read
from hyperpd.recipe import parse


def document(**change: Any) -> dict[str, Any]:
    base = {"version": 1, "name": "pair", "model": {"generated": "tiny-llama"}, "prefill": {}, "decode": {}}
    return base | change


def prints(**change: Any) -> tuple[Fingerprint, Fingerprint]:
    recipe = parse(document(**change), "test")
    return recipe.fingerprint("prefill"), recipe.fingerprint("decode")


@pytest.mark.parametrize("field", [field.name for field in fields(Identity)])
def test_every_field_of_the_handshake_must_be_equal(field: str) -> None:
    prefill, decode = prints()
    other = replace(decode, identity=replace(decode.identity, **{field: "other"}))
    assert prefill.identity.digest == decode.identity.digest
    assert prefill.identity.digest != other.identity.digest
    (broken,) = compatible(prefill, other)
    assert broken.startswith(f"engine_digest: {field} is ")


def test_adapters_of_one_name_must_be_the_same_ones() -> None:
    """While a fleet is replaced, one role has the new ones before the other."""
    model = {"generated": "tiny-llama"}
    law, law2, tax = ({"name": n, "path": p} for n, p in (("law", "/law"), ("law", "/law2"), ("tax", "/tax")))
    prefill, _ = prints(model={**model, "adapters": [law, tax]})
    assert compatible(prefill, prints(model={**model, "adapters": [tax, law]})[1]) == []
    for others in ([law2, tax], [law], []):
        (broken,) = compatible(prefill, prints(model={**model, "adapters": others})[1])
        assert broken.startswith("engine_digest: adapters is 'law=/law, tax=/tax' on prefill, ")


@pytest.mark.parametrize(
    ("prefill", "decode", "rule"), [(1, 4, ""), (2, 4, ""), (2, 1, "tensor_fan_in"), (2, 3, "tensor_divides")]
)
def test_tensor_parallel_fans_out_only(prefill: int, decode: int, rule: str) -> None:
    left, right = prints()
    broken = compatible(replace(left, tensor=prefill), replace(right, tensor=decode))
    assert [problem.split(":")[0] for problem in broken] == ([rule] if rule else [])


def test_blocks_layout_and_direction() -> None:
    prefill, decode = prints()
    assert compatible(replace(prefill, block_size_tokens=64), decode) == []
    assert compatible(prefill, replace(decode, block_size_tokens=64))[0].startswith("block_size_multiple: ")
    assert compatible(prefill, replace(decode, kv_layout="LBNHC"))[0].startswith("kv_layout: ")
    assert compatible(decode, prefill)[0].startswith("direction: ")


@pytest.mark.parametrize(
    "change",
    [
        {"prefill": {"replicas": 4}},
        {"decode": {"engine": {"max-num-seqs": 8}}},
        {"drain_s": 5},
        {"kv_transfer": {"lease_s": 60}},
        {"description": "other"},
        {"decode": {"engine": {"speculative-config": {"method": "ngram", "num_speculative_tokens": 3}}}},
    ],
)
def test_what_the_handshake_does_not_see_keeps_workers_pairable(change: dict[str, Any]) -> None:
    running, _ = prints()
    _, new = prints(**change)
    assert compatible(running, new) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"prefill": {"parallel": {"tensor": 2}}}, "tensor_fan_in: prefill TP2 is above decode TP1"),
        ({"decode": {"engine": {"kv_cache_dtype": "fp8"}}}, "kv_cache_dtype is 'auto' on prefill, 'fp8' on decode"),
        ({"decode": {"engine": {"disable-hybrid-kv-cache-manager": True}}}, "hybrid_kv_cache is"),
        ({"decode": {"engine": {"speculative-config": {"method": "eagle", "model": "m"}}}}, "speculative is"),
    ],
)
def test_a_recipe_that_cannot_pair_is_refused_when_it_is_read(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(RecipeError, match="cannot exchange KV") as caught:
        parse(document(**change), "test")
    assert rule in str(caught.value)


def test_a_fingerprint_survives_its_way() -> None:
    prefill, _ = prints()
    assert read(prefill.document()) == prefill
    for broken in ({}, {**prefill.document(), "identity": {}}, {**prefill.document(), "identity": None}):
        with pytest.raises(ValueError, match="not a fingerprint"):
            read(broken)
